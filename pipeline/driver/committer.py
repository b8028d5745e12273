"""Shards out of a stream of rows, each committed once.

A commit is ONE conditional PUT of finished, verified bytes at a deterministic key. The rejects
file is written before it and named in it, so that the one PUT flips both. Where rejected samples
were tried again the PUT replaces the former commit instead, if it is still the one that was read.
"""

import hashlib
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import cast

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.dataset.commit import Rows, read_commit
from pipeline.dataset.reject_rate import Breaker
from pipeline.dataset.shards import Shard
from pipeline.driver.assembly import Assembly
from pipeline.errors import AlreadyExists, PipelineError
from pipeline.faults import fault
from pipeline.parquet import parquet_bytes
from pipeline.spec.identity import JobRecord
from pipeline.spec.kinds import InputKind
from pipeline.storage import OutputStore
from pipeline.version import our_version

REPLACED = "ledger/replaced/"
INCOMPLETE = "incomplete"  # the error of a shard that was in work when its pass ended
_REJECTS_LOGGED = 5
_PUTS = 4  # at a time; commits wait for the store, not for the processor
_MAX_WAITING = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectedSample:
    """For the log; the rejects file has all of it."""

    index: int
    key: str
    task: str
    error_type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """`is_ours` is False where the shard was committed before, and stays as it was."""

    shard_id: str
    commit_id: str
    samples: int
    annotated: int
    rejected: int
    truncated: bool
    reasons: Mapping[str, int] = field(default_factory=dict)  # rejections by `error_type`
    is_ours: bool = True
    put_s: float = field(default=0.0, compare=False)
    rejected_samples: tuple[RejectedSample, ...] = field(default=(), compare=False)  # the first


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardFailed:
    shard_id: str
    error_type: str
    message: str
    retriable: bool


Outcome = Committed | ShardFailed


class Committer:
    """Takes tables in any order; gives outcomes as they come.

    Not thread-safe: one thread feeds it, its own pool does the PUTs.
    """

    def __init__(
        self,
        store: OutputStore,
        record: JobRecord,
        shards: Sequence[Shard],
        *,
        max_reject_rate: float,
    ) -> None:
        self._store = store
        self._record = record
        self._shards = {shard.shard_id: shard for shard in shards}
        self._breaker = Breaker(max_reject_rate=max_reject_rate)
        self._open: dict[str, Assembly] = {}
        self._closed: set[str] = set()
        self._pool = ThreadPoolExecutor(_PUTS, thread_name_prefix="commit")
        self._puts: set[Future[Outcome]] = set()

    def add(self, table: pa.Table) -> int:
        """Take in rows of `schema.ANNOTATED`; returns how many were not seen before."""
        return sum(
            self._add(shard_id, table.filter(pc.equal(table["shard_id"], shard_id)))
            for shard_id in pc.unique(table["shard_id"]).to_pylist()
        )

    def finished(self) -> Iterator[Outcome]:
        """Outcomes that are there by now; waits only while too many PUTs are under way."""
        while self._puts:
            is_full = len(self._puts) > _MAX_WAITING
            done, self._puts = wait(
                self._puts, timeout=None if is_full else 0, return_when=FIRST_COMPLETED
            )
            if not done:
                return
            yield from (future.result() for future in done)

    @property
    def open_shards(self) -> int:
        """Those that have some of their rows."""
        return len(self._open)

    @property
    def puts(self) -> int:
        """Finished shards that wait for the store, or for a look at their outcome."""
        return len(self._puts)

    def close(self) -> Iterator[Outcome]:
        """Wait for every PUT; then say which shards stayed incomplete."""
        self._pool.shutdown(wait=True)
        yield from self.finished()
        for shard_id in self._open:
            yield ShardFailed(
                shard_id=shard_id,
                error_type=INCOMPLETE,
                message="some of its samples never came: a worker died while it had them",
                retriable=True,
            )

    def _add(self, shard_id: str, rows: pa.Table) -> int:
        if shard_id in self._closed:  # sent again by a retry
            return 0
        assembly = self._open.get(shard_id)
        if assembly is None:
            assembly = Assembly(
                shard=self._shards[shard_id],
                tasks=self._record.spec.task_names,
                schema=self._record.identity.schema_of_rows,
            )
            self._open[shard_id] = assembly
        new = assembly.add(rows)
        if assembly.is_complete or (assembly.end and assembly.end.error_type):
            self._closed.add(shard_id)
            self._puts.add(self._pool.submit(self._finish, self._open.pop(shard_id)))
        return new

    def _finish(self, assembly: Assembly) -> Outcome:
        if (failure := self._failure(assembly)) is not None:
            return failure
        try:
            if assembly.shard.only is not None:
                return self._recommit(assembly)
            return self._commit(assembly)
        except PipelineError as error:
            return ShardFailed(
                shard_id=assembly.shard.shard_id,
                error_type=error.code,
                message=str(error),
                retriable=error.retriable,
            )

    def _failure(self, assembly: Assembly) -> ShardFailed | None:
        shard_id, end = assembly.shard.shard_id, assembly.end
        if end is not None and end.error_type is not None:
            return ShardFailed(
                shard_id=shard_id,
                error_type=end.error_type,
                message=end.message or "",
                retriable=end.retriable,
            )
        if assembly.shard.only is not None:  # a share of them says nothing about the shard
            return None
        rejected = assembly.rejected_samples()
        if not self._breaker.has_too_many(rejected=rejected, samples=assembly.samples):
            return None
        reasons = ", ".join(f"{count}x {reason}" for reason, count in assembly.top_reasons())
        return ShardFailed(
            shard_id=shard_id,
            error_type="too_many_rejects",
            message=f"{rejected} of {assembly.samples} samples rejected ({reasons}); "
            "look at the input, or raise --max-reject-rate",
            retriable=False,
        )

    def _commit(self, assembly: Assembly) -> Committed:
        rows = Rows(annotated=assembly.annotated(), rejected=assembly.rejected())
        committed = _committed(assembly, rows)
        data = self._bytes(assembly, rows, committed)
        fault("committer.before_put", shard_id=committed.shard_id)
        started = time.monotonic()
        try:
            self._store.create(annotations_key(committed.shard_id), data)
        except AlreadyExists:
            return replace(committed, is_ours=False)
        fault("committer.after_put", shard_id=committed.shard_id)
        return replace(committed, put_s=time.monotonic() - started)

    def _recommit(self, assembly: Assembly) -> Committed:
        """Raises Conflict where somebody else replaced the commit meanwhile."""
        former = read_commit(self._store, annotations_key(assembly.shard.shard_id), assembly.schema)
        rows = former.with_answers(assembly)
        if rows.rejected.equals(former.rows.rejected):
            committed = _committed(assembly, former.rows)
            return replace(committed, commit_id=former.commit_id, is_ours=False)
        committed = _committed(assembly, rows)
        data = self._bytes(assembly, rows, committed, replaces=former.commit_id)
        # Before the PUT: from here on no summary of the former commit counts, whoever writes it.
        self._store.put(replaced_key(former.commit_id), committed.shard_id.encode())
        fault("committer.before_put", shard_id=committed.shard_id)
        self._store.replace(former.key, data, former.etag)
        return committed

    def _bytes(
        self, assembly: Assembly, rows: Rows, committed: Committed, **provenance: str
    ) -> bytes:
        shard = assembly.shard
        return commit_bytes(self._store, self._record, shard, rows, committed, **provenance)


def commit_bytes(
    store: OutputStore,
    record: JobRecord,
    shard: Shard,
    rows: Rows,
    committed: Committed,
    **provenance: str,
) -> bytes:
    """The finished annotations file; the rejects file that it names is written here."""
    metadata = {
        **job_metadata(record),
        **_shard_metadata(shard, committed),
        "rejects": _write_rejects(store, record, committed.shard_id, rows.rejected),
        "commit_id": committed.commit_id,
        **provenance,
    }
    return parquet_bytes(rows.annotated, metadata)


def _write_rejects(store: OutputStore, record: JobRecord, shard_id: str, rejected: pa.Table) -> str:
    """The key of the rejects file, "" where there is none."""
    if not rejected.num_rows:
        return ""
    data = parquet_bytes(rejected, job_metadata(record))
    key = f"rejected/{shard_id}-{hashlib.sha256(data).hexdigest()[:12]}.parquet"
    with suppress(AlreadyExists):  # named by its content: an earlier try wrote the same
        store.create(key, data)
    return key


def annotations_key(shard_id: str) -> str:
    return f"annotations/{shard_id}.parquet"


def replaced_key(commit_id: str) -> str:
    """An object of that name says that the commit was replaced, or was about to be."""
    return f"{REPLACED}{commit_id}"


def job_metadata(record: JobRecord) -> dict[str, object]:
    derived = [step.model_dump(exclude_none=True) for step in record.identity.derived]
    return {
        "schema_version": str(record.identity.schema_version),
        "fingerprint": record.fingerprint,
        "checkpoint_id": record.model.id,
        "checkpoint_commit": record.model.commit or "",
        "weights_digest": record.model.weights_digest,
        "tasks": [task.model_dump(exclude_defaults=True) for task in record.identity.tasks],
        "dtype": record.identity.dtype,
        "software_version": our_version(),
        **({"derived": derived} if derived else {}),
    }


def _committed(assembly: Assembly, rows: Rows) -> Committed:
    assert assembly.end is not None
    return Committed(
        shard_id=assembly.shard.shard_id,
        commit_id=uuid.uuid4().hex,
        samples=assembly.end.samples,
        annotated=rows.annotated.num_rows,
        rejected=rows.rejected.num_rows,
        truncated=assembly.end.truncated,
        reasons=dict(Counter(rows.rejected["error_type"].to_pylist()).most_common()),
        rejected_samples=tuple(
            RejectedSample(**row)
            for row in rows.rejected.slice(0, _REJECTS_LOGGED)
            .select(["index", "key", "task", "error_type"])
            .to_pylist()
        ),
    )


def _shard_metadata(shard: Shard, committed: Committed) -> dict[str, object]:
    return {
        "input_uri": shard.uri,
        "input_etag": shard.etag,
        "input_size": str(shard.size_bytes),
        **_part_metadata(shard),
        "samples": str(committed.samples),
        "annotated": str(committed.annotated),
        "rejected": str(committed.rejected),
        "truncated": str(committed.truncated).lower(),
        "reasons": committed.reasons,
    }


def _part_metadata(shard: Shard) -> dict[str, object]:
    """Sample `index` of a part of Parquet is row `input_first` + `index` of the input."""
    if shard.kind == "webdataset":
        return {}
    count = "" if shard.count is None else str(shard.count)
    return {"input_kind": shard.kind, "input_first": str(shard.first), "input_count": count}


def committed_shard(shard_id: str, metadata: Mapping[str, str]) -> Shard:
    """The shard that a commit is of, from its file's metadata; of listed pictures without their
    list, since each row names its own."""
    count = metadata.get("input_count", "")
    return Shard(
        shard_id=shard_id,
        uri=metadata["input_uri"],
        size_bytes=int(metadata["input_size"]),
        etag=metadata["input_etag"],
        kind=cast(InputKind, metadata.get("input_kind", "webdataset")),
        first=int(metadata.get("input_first", 0)),
        count=int(count) if count else None,
    )
