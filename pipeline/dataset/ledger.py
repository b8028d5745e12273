"""What is planned, committed and failed: derived from storage, nothing else is kept.

A shard is committed when `annotations/<shard_id>.parquet` exists. `ledger/<n>.parquet` only
saves `status` from reading every footer; commits that it lacks are read from their files. A
summary speaks of one commit, by its id: those named under `ledger/replaced/` count no more.
"""

import json
import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.dataset.commit import Committed, ShardFailed
from pipeline.dataset.layout import REPLACED, annotations_key
from pipeline.errors import AlreadyExists, CorruptOutput, ObjectMissing
from pipeline.parquet import footer_metadata, opened, parquet_bytes, read_parquet
from pipeline.schema import LEDGER
from pipeline.storage import OutputStore

MAX_ATTEMPTS = 3
COMMITS_PER_SUMMARY = 500
SUMMARIES = "ledger/"
READERS = 16

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """The content of `failed/<shard_id>.json`."""

    shard_id: str
    error_type: str
    message: str
    attempts: int
    failed_at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Of all that is committed. `annotated` and `rejected` count rows, one per task."""

    shards: int
    samples: int
    annotated: int
    rejected: int
    truncated_shards: int

    @classmethod
    def of(cls, commits: Collection[Committed]) -> "Totals":
        return cls(
            shards=len(commits),
            samples=sum(c.samples for c in commits),
            annotated=sum(c.annotated for c in commits),
            rejected=sum(c.rejected for c in commits),
            truncated_shards=sum(c.truncated for c in commits),
        )


class Ledger:
    """The records of one output. Reads storage anew at every call."""

    def __init__(self, store: OutputStore) -> None:
        self._store = store

    def committed(self) -> set[str]:
        return _ids(self._store.list("annotations/"), ".parquet")

    def failed(self, committed: AbstractSet[str]) -> dict[str, Failure]:
        """By shard id; a committed shard is never failed, whatever lies in `failed/`."""
        ids = _ids(self._store.list("failed/"), ".json") - committed
        with ThreadPoolExecutor(READERS) as pool:
            found = pool.map(self._failure, sorted(ids))
        return {failure.shard_id: failure for failure in found if failure is not None}

    def record_failure(self, failed: ShardFailed) -> Failure:
        """Count one more failed attempt."""
        previous = self._failure(failed.shard_id)
        failure = Failure(
            shard_id=failed.shard_id,
            error_type=failed.error_type,
            message=failed.message,
            attempts=1 + (previous.attempts if previous else 0),
            failed_at=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        self._store.put(_failure_key(failed.shard_id), json.dumps(asdict(failure)).encode())
        return failure

    def forget_failure(self, shard_id: str) -> None:
        with suppress(ObjectMissing):
            self._store.delete(_failure_key(shard_id))

    def summaries(self) -> dict[str, Committed]:
        """What each committed shard holds."""
        known, committed = self.summarised(), self.committed()
        known |= {found.shard_id: found for found in self._from_footers(committed - known.keys())}
        return {shard_id: known[shard_id] for shard_id in known if shard_id in committed}

    def totals(self) -> Totals:
        return Totals.of(self.summaries().values())

    def unsummarised(self, committed: AbstractSet[str]) -> list[Committed]:
        """Those of `committed` that no summary holds: of a run that was killed."""
        return self._from_footers(committed - self.summarised().keys())

    def summarise(self, commits: Sequence[Committed]) -> None:
        """Write the next summary. Nothing depends on it, so losing one costs time only."""
        if not commits:
            return
        rows = [_summary_row(commit) for commit in commits]
        data = parquet_bytes(pa.Table.from_pylist(rows, schema=LEDGER))
        number = len(self._store.list(SUMMARIES))
        while True:
            try:
                self._store.create(f"{SUMMARIES}{number:06d}.parquet", data)
            except AlreadyExists:
                number += 1
            else:
                return

    def summarised(self) -> dict[str, Committed]:
        """What the summaries say. A damaged one is as good as none."""
        replaced = _ids(self._store.list(REPLACED), "")
        commits = (c for name in self._store.list(SUMMARIES) for c in self._summary(name))
        return {c.shard_id: c for c in commits if c.commit_id not in replaced}

    def rebuild(self, commits: Sequence[Committed]) -> None:
        """Summaries of just these, in place of all that are there. The caller holds the lease."""
        for name in [*self._store.list(SUMMARIES), *self._store.list(REPLACED)]:
            self._store.delete(name)
        for start in range(0, len(commits), COMMITS_PER_SUMMARY):
            self.summarise(commits[start : start + COMMITS_PER_SUMMARY])

    def _summary(self, name: str) -> list[Committed]:
        try:
            table = read_parquet(name, self._store.get(name).data, LEDGER).table
        except CorruptOutput as error:
            _log.warning("%s", error)
            return []
        return [
            Committed(**{**row, "reasons": json.loads(row["reasons"])}) for row in table.to_pylist()
        ]

    def _from_footers(self, shard_ids: Collection[str]) -> list[Committed]:
        with ThreadPoolExecutor(READERS) as pool:
            return list(pool.map(self._from_footer, sorted(shard_ids)))

    def _from_footer(self, shard_id: str) -> Committed:
        key = annotations_key(shard_id)
        with opened(self._store, key) as file:
            metadata = footer_metadata(pq.read_metadata(file))
        try:
            return committed_as(shard_id, metadata)
        except (LookupError, ValueError) as error:
            raise CorruptOutput(f"{key} is no commit of ours; see `kosmos2 verify`") from error

    def _failure(self, shard_id: str) -> Failure | None:
        try:
            return read_failure(self._store.get(_failure_key(shard_id)).data)
        except ObjectMissing:
            return None


def _summary_row(commit: Committed) -> dict[str, object]:
    row = {name: getattr(commit, name) for name in LEDGER.names}
    return {**row, "reasons": json.dumps(commit.reasons)}


def committed_as(shard_id: str, metadata: Mapping[str, str]) -> Committed:
    """From the metadata of a commit's file. Raises LookupError, ValueError."""
    return Committed(
        shard_id=shard_id,
        commit_id=metadata["commit_id"],
        samples=int(metadata["samples"]),
        annotated=int(metadata["annotated"]),
        rejected=int(metadata["rejected"]),
        truncated=metadata["truncated"] == "true",
        reasons=json.loads(metadata.get("reasons", "{}")),  # commits of earlier builds have none
    )


def read_failure(data: bytes) -> Failure | None:
    """None for what is no record of ours: as if the shard had never failed."""
    try:
        return Failure(**json.loads(data))
    except (ValueError, TypeError):
        return None


def _failure_key(shard_id: str) -> str:
    return f"failed/{shard_id}.json"


def _ids(names: Iterable[str], suffix: str) -> set[str]:
    return {name.rpartition("/")[2].removesuffix(suffix) for name in names if name.endswith(suffix)}
