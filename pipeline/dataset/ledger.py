"""The ledger: which shards are planned, committed and failed, derived from storage alone.

A shard is committed if `annotations/<shard_id>.parquet` exists. `ledger/<n>.parquet` saves `status`
from reading every footer; commits that it lacks are read from their files. A summary describes one
commit, by its id: commits named under `ledger/replaced/` no longer count.
"""

import json
import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from pipeline.costs.actor_time import ActorTime
from pipeline.dataset import layout
from pipeline.dataset.commit import Committed, ShardFailed, open_commit
from pipeline.dataset.layout import failure_key, shard_id_of
from pipeline.errors import AlreadyExists, CorruptOutput, ObjectMissing
from pipeline.parquet import parquet_bytes, read_parquet
from pipeline.schema import LEDGER
from pipeline.storage import OutputStore

MAX_ATTEMPTS = 3
COMMITS_PER_SUMMARY = 500
READERS = 16

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """The failed attempts of a shard: the content of `failed/<shard_id>.json`."""

    shard_id: str
    error_type: str
    message: str
    attempts: int
    failed_at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Sums over all commits. `annotated` and `rejected` count rows, one per task."""

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
    """The records of one output. Every call reads the storage again."""

    def __init__(self, store: OutputStore) -> None:
        self._store = store

    def committed(self) -> set[str]:
        return _shard_ids(self._store.list(layout.ANNOTATIONS))

    def failed(self, committed: AbstractSet[str]) -> dict[str, Failure]:
        """Return the failures by shard id.

        A committed shard has not failed, whatever `failed/` holds.
        """
        ids = _shard_ids(self._store.list(layout.FAILURES)) - committed
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
        self._store.put(failure_key(failed.shard_id), json.dumps(asdict(failure)).encode())
        return failure

    def forget_failure(self, shard_id: str) -> None:
        with suppress(ObjectMissing):
            self._store.delete(failure_key(shard_id))

    def summaries(self, committed: AbstractSet[str] | None = None) -> dict[str, Committed]:
        """Return the totals of each committed shard, by shard id.

        `committed` are these shards, if the caller knows them.
        """
        known, committed = self.summarised(), self.committed() if committed is None else committed
        known |= {found.shard_id: found for found in self.commits_of(committed - known.keys())}
        return {shard_id: known[shard_id] for shard_id in known if shard_id in committed}

    def totals(self) -> Totals:
        return Totals.of(self.summaries().values())

    def unsummarised(self, committed: AbstractSet[str]) -> list[Committed]:
        """Return the commits that no summary holds, left by a run that was killed."""
        return self.commits_of(committed - self.summarised().keys())

    def summarise(self, commits: Sequence[Committed]) -> None:
        """Write the next summary. Nothing depends on it; losing one costs only time."""
        if not commits:
            return
        rows = [_summary_row(commit) for commit in commits]
        data = parquet_bytes(pa.Table.from_pylist(rows, schema=LEDGER))
        number = len(self._store.list(layout.SUMMARIES))
        while True:
            try:
                self._store.create(layout.summary_key(number), data)
            except AlreadyExists:
                number += 1
            else:
                return

    def summarised(self) -> dict[str, Committed]:
        """Read all summaries, ignoring damaged ones."""
        replaced = {key.rpartition("/")[2] for key in self._store.list(layout.REPLACED)}
        commits = (c for name in self._store.list(layout.SUMMARIES) for c in self._summary(name))
        return {c.shard_id: c for c in commits if c.commit_id not in replaced}

    def rebuild(self, commits: Sequence[Committed]) -> None:
        """Replace all summaries by summaries of these commits. The caller holds the lease."""
        for name in [*self._store.list(layout.SUMMARIES), *self._store.list(layout.REPLACED)]:
            self._store.delete(name)
        for start in range(0, len(commits), COMMITS_PER_SUMMARY):
            self.summarise(commits[start : start + COMMITS_PER_SUMMARY])

    def _summary(self, name: str) -> list[Committed]:
        try:
            table = read_summary(name, self._store.get(name).data)
        except CorruptOutput as error:
            _log.warning("%s", error)
            return []
        return [_commit_of_row(row) for row in table.to_pylist()]

    def commits_of(self, shard_ids: Collection[str]) -> list[Committed]:
        """Read committed shards from their files."""
        with ThreadPoolExecutor(READERS) as pool:
            return list(pool.map(self._from_footer, sorted(shard_ids)))

    def _from_footer(self, shard_id: str) -> Committed:
        with open_commit(self._store, shard_id) as commit:
            footer = commit.footer
        try:
            return footer.committed()
        except (LookupError, ValueError) as error:
            key = layout.annotations_key(shard_id)
            raise CorruptOutput(
                f"{key} does not have the metadata of a commit ({error}); "
                f"run `kosmos2 verify {self._store.uri}`"
            ) from error

    def _failure(self, shard_id: str) -> Failure | None:
        key = failure_key(shard_id)
        try:
            failure = read_failure(self._store.get(key).data)
        except ObjectMissing:
            return None
        if failure is None:
            _log.warning("%s cannot be read: the shard counts as one that never failed", key)
        return failure


def _summary_row(commit: Committed) -> dict[str, object]:
    row = {name: getattr(commit, name) for name in LEDGER.names}
    return {
        **row,
        "reasons": json.dumps(commit.reasons),
        "actor_time": None if commit.actor_time is None else asdict(commit.actor_time),
    }


def _commit_of_row(row: Mapping[str, Any]) -> Committed:
    reasons, time = json.loads(row["reasons"]), row["actor_time"]
    actor_time = None if time is None else ActorTime.from_dict(time)
    return Committed(**{**row, "reasons": reasons, "actor_time": actor_time})


def read_summary(name: str, data: bytes) -> pa.Table:
    """Read a summary; those of earlier versions have no times. Raises CorruptOutput."""
    return read_parquet(name, data, LEDGER, optional="actor_time").table


def read_failure(data: bytes) -> Failure | None:
    """Parse a failure record; return None for anything else."""
    try:
        body = json.loads(data)
        return Failure(
            shard_id=body["shard_id"],
            attempts=int(body["attempts"]),
            # Another version may name these differently. The count must not be lost for that.
            error_type=body.get("error_type", ""),
            message=body.get("message", ""),
            failed_at=body.get("failed_at", ""),
        )
    except (ValueError, TypeError, LookupError, AttributeError):
        return None


def _shard_ids(keys: Iterable[str]) -> set[str]:
    return {shard_id for key in keys if (shard_id := shard_id_of(key)) is not None}
