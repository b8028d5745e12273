"""The committer: gathers shards from a stream of rows and commits each once.

A commit is ONE conditional PUT of finished, verified bytes at a deterministic key. The rejects file
is written first and named in the commit, so that the one PUT publishes both. After a retry of
rejected samples, the PUT replaces the former commit, if that is still the one that was read.
"""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.dataset.commit import (
    Committed,
    Rows,
    ShardFailed,
    commit_bytes,
    commit_of,
    read_commit,
)
from pipeline.dataset.layout import annotations_key, replaced_key
from pipeline.dataset.reject_rate import Breaker
from pipeline.dataset.shards import Shard
from pipeline.driver.assembly import Assembly, with_answers
from pipeline.errors import AlreadyExists, PipelineError
from pipeline.faults import fault
from pipeline.spec.identity import JobRecord
from pipeline.storage import OutputStore

INCOMPLETE = "incomplete"  # the error of a shard that was in flight when its pass ended
_PUTS = 4  # PUTs at a time; commits wait for the store, not for the processor
_MAX_WAITING = 8


ShardOutcome = Committed | ShardFailed


class Committer:
    """Accepts tables in any order and yields outcomes as they come.

    Not thread-safe: one thread calls it, and its own pool does the PUTs.
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
        self._puts: set[Future[ShardOutcome]] = set()

    def add(self, table: pa.Table) -> int:
        """Add rows of `schema.ANNOTATED`; return how many are new."""
        return sum(
            self._add(shard_id, table.filter(pc.equal(table["shard_id"], shard_id)))
            for shard_id in pc.unique(table["shard_id"]).to_pylist()
        )

    def finished(self) -> Iterator[ShardOutcome]:
        """Yield the outcomes so far. It waits only while too many PUTs are in flight."""
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
        """Number of shards that have some of their rows."""
        return len(self._open)

    @property
    def puts(self) -> int:
        """Number of finished shards that wait for the store, or for their outcome to be read."""
        return len(self._puts)

    def close(self) -> Iterator[ShardOutcome]:
        """Wait for every PUT; then yield the shards that stayed incomplete."""
        self._pool.shutdown(wait=True)
        yield from self.finished()
        for shard_id in self._open:
            yield ShardFailed(
                shard_id=shard_id,
                error_type=INCOMPLETE,
                message="some of its samples never came: a worker died while it processed them",
                retriable=True,
            )

    def _add(self, shard_id: str, rows: pa.Table) -> int:
        if shard_id in self._closed:  # repeated by a retry
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

    def _finish(self, assembly: Assembly) -> ShardOutcome:
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
        if assembly.shard.only is not None:  # a share of its samples does not describe the shard
            return None
        rejected = assembly.rejected_samples()
        if not self._breaker.has_too_many(rejected=rejected, samples=assembly.samples):
            return None
        reasons = ", ".join(f"{count}x {reason}" for reason, count in assembly.top_reasons())
        return ShardFailed(
            shard_id=shard_id,
            error_type="too_many_rejects",
            message=f"{rejected} of {assembly.samples} samples rejected ({reasons}); "
            "check the input, or raise --max-reject-rate",
            retriable=False,
        )

    def _commit(self, assembly: Assembly) -> Committed:
        rows = assembly.rows()
        committed = _commit_of(assembly, rows)
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
        """Replace the commit of a shard. Raises Conflict if another run replaced it meanwhile."""
        former = read_commit(self._store, assembly.shard.shard_id, assembly.schema)
        former_id = former.committed.commit_id
        rows = with_answers(former, assembly)
        if rows.rejected.equals(former.rows.rejected):
            return replace(_commit_of(assembly, former.rows, former_id), is_ours=False)
        committed = _commit_of(assembly, rows)
        data = self._bytes(assembly, rows, committed, replaces=former_id)
        # This precedes the PUT. From here on, no summary of the former commit counts.
        self._store.put(replaced_key(former_id), committed.shard_id.encode())
        fault("committer.before_put", shard_id=committed.shard_id)
        self._store.replace(former.key, data, former.etag)
        return committed

    def _bytes(
        self, assembly: Assembly, rows: Rows, committed: Committed, **provenance: str
    ) -> bytes:
        shard = assembly.shard
        return commit_bytes(self._store, self._record, shard, rows, committed, **provenance)


def _commit_of(assembly: Assembly, rows: Rows, commit_id: str | None = None) -> Committed:
    assert assembly.end is not None
    return commit_of(
        rows,
        shard_id=assembly.shard.shard_id,
        samples=assembly.end.samples,
        truncated=assembly.end.truncated,
        commit_id=commit_id,
    )
