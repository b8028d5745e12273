"""The end of a shard: its complete rows become a commit.

A commit is ONE conditional PUT of finished, verified bytes at a deterministic key. The rejects file
is written first and named in the commit, so that the one PUT publishes both. After a retry of
rejected samples, the PUT replaces the former commit, if that is still the one that was read.

Any process may do this, and do it again: a shard has the same commit id each time, so a second PUT
meets its own bytes in the store.
"""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import pyarrow as pa

from pipeline.costs.actor_time import ActorTime
from pipeline.dataset.commit import (
    Committed,
    Rows,
    ShardFailed,
    commit_bytes,
    commit_of,
    read_commit,
)
from pipeline.dataset.layout import annotations_key, replaced_key
from pipeline.dataset.originals import Originals, annotated_images
from pipeline.dataset.shards import Shard
from pipeline.driver.assembly import Assembly, by_shard, with_answers
from pipeline.errors import AlreadyExists, PipelineError
from pipeline.faults import fault
from pipeline.spec.identity import JobRecord
from pipeline.storage import OutputStore

INCOMPLETE = "incomplete"  # the error of a shard that was in flight when its pass ended
_PUTS = 4  # PUTs at a time

ShardOutcome = Committed | ShardFailed


def incomplete(shard_id: str) -> ShardFailed:
    return ShardFailed(
        shard_id=shard_id,
        error_type=INCOMPLETE,
        message="some of its samples never came: a worker died while it processed them",
        retriable=True,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A shard to finish. `commit_id` is that of its commit, however often it is finished.

    The commit stands for `actor_time`.
    """

    shard: Shard
    commit_id: str
    actor_time: ActorTime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finisher:
    """Finishes shards of a job. It may be sent to another process."""

    store: OutputStore
    record: JobRecord
    originals: Originals | None = None

    def assembly(self, shard: Shard) -> Assembly:
        """Return an assembly for the rows of `shard`."""
        return Assembly(
            shard=shard,
            tasks=self.record.spec.task_names,
            schema=self.record.identity.schema_of_rows,
        )

    def __call__(self, orders: Sequence[Order], tables: Sequence[pa.Table]) -> list[ShardOutcome]:
        """Commit shards whose rows are in `tables`, which may hold others. Errors are outcomes."""
        assemblies = {order.shard.shard_id: self.assembly(order.shard) for order in orders}
        for table in tables:
            for shard_id, rows in by_shard(table):
                if shard_id in assemblies:
                    assemblies[shard_id].add(rows)
        with ThreadPoolExecutor(_PUTS, thread_name_prefix="commit") as pool:
            return list(pool.map(self._finish, orders, assemblies.values()))

    def _finish(self, order: Order, assembly: Assembly) -> ShardOutcome:
        shard_id = order.shard.shard_id
        if not assembly.is_complete:  # tables that Ray made again may differ
            return incomplete(shard_id)
        try:
            if order.shard.only is not None:
                return self._recommit(order, assembly)
            return self._commit(order, assembly)
        except PipelineError as error:
            return ShardFailed.by(shard_id, error)

    def _commit(self, order: Order, assembly: Assembly) -> Committed:
        rows = assembly.rows()
        committed = _commit_of(assembly, rows, order.commit_id, order.actor_time)
        copies = assembly.copies
        data = commit_bytes(self.store, self.record, order.shard, rows, committed, copies)
        fault("committer.before_put", shard_id=committed.shard_id)
        started = time.monotonic()
        try:
            self.store.create(annotations_key(committed.shard_id), data)
        except AlreadyExists:
            return replace(committed, is_ours=False)
        fault("committer.after_put", shard_id=committed.shard_id)
        self._add_originals(committed.shard_id, rows)
        return replace(committed, copies=len(copies), put_s=time.monotonic() - started)

    def _add_originals(self, shard_id: str, rows: Rows) -> None:
        if self.originals is not None:
            tasks = len(self.record.spec.task)
            self.originals.add(shard_id, annotated_images(rows.annotated, tasks))

    def _recommit(self, order: Order, assembly: Assembly) -> Committed:
        """Replace the commit of a shard. Raises Conflict if another run replaced it meanwhile."""
        former = read_commit(self.store, order.shard.shard_id, assembly.schema)
        former_id = former.committed.commit_id
        if former_id == order.commit_id:  # the process that replaced it died right after that
            return former.committed
        rows = with_answers(former, assembly)
        if rows.rejected.equals(former.rows.rejected):
            unchanged = _commit_of(assembly, former.rows, former_id, former.committed.actor_time)
            return replace(unchanged, is_ours=False)
        actor_time = _sum(former.committed.actor_time, order.actor_time)
        committed = _commit_of(assembly, rows, order.commit_id, actor_time)
        copies = {**former.copies, **assembly.copies}
        data = commit_bytes(
            self.store, self.record, order.shard, rows, committed, copies, replaces=former_id
        )
        # This precedes the PUT. From here on, no summary of the former commit counts.
        self.store.put(replaced_key(former_id), committed.shard_id.encode())
        fault("committer.before_put", shard_id=committed.shard_id)
        self.store.replace(former.key, data, former.etag)
        fault("committer.after_put", shard_id=committed.shard_id)
        return committed


def _sum(former: ActorTime | None, more: ActorTime | None) -> ActorTime | None:
    """Return the time of a commit that replaces another; unknown if that of the former is."""
    return None if former is None or more is None else former.plus(more)


def _commit_of(
    assembly: Assembly, rows: Rows, commit_id: str, actor_time: ActorTime | None
) -> Committed:
    assert assembly.end is not None
    return commit_of(
        rows,
        shard_id=assembly.shard.shard_id,
        samples=assembly.end.samples,
        truncated=assembly.end.truncated,
        commit_id=commit_id,
        actor_time=actor_time,
    )
