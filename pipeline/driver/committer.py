"""The committer: counts the rows of each shard and has complete shards finished, each once."""

import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field

import pyarrow as pa

from pipeline.costs.actor_time import ActorClock, ActorTime
from pipeline.dataset.commit import Committed, ShardFailed
from pipeline.dataset.originals import Originals
from pipeline.dataset.reject_rate import Breaker
from pipeline.dataset.shards import Shard
from pipeline.driver.assembly import Assembly, by_shard
from pipeline.driver.finishing import Finisher, Order, ShardOutcome, incomplete
from pipeline.errors import WorkerDied
from pipeline.execution.stored_tables import Call, StoredTable, call_in_thread
from pipeline.spec.identity import JobRecord
from pipeline.storage import OutputStore

_CALLS = 4  # at a time at most, each in a process
_SHARDS_PER_CALL = 32
_ROWS_PER_CALL = 50_000
_MAX_WAITING = 128  # complete shards
_LAST_CALLS_S = 120.0  # limit of the wait for them, when the pass has ended


@dataclass(slots=True, kw_only=True)
class _Open:
    """A shard with some of its rows, and the tables that hold them."""

    assembly: Assembly
    actor_time: ActorTime | None = None  # that its commit stands for
    tables: dict[int, StoredTable] = field(default_factory=dict)  # by identity, in order
    rows: int = 0


class Committer:
    """Accepts tables in any order and yields outcomes as they come.

    `call` runs a `Finisher`; by default in a thread of this process. It adds the images of commits
    to `originals`. `clock` counts the time that commits stand for. Not thread-safe.
    """

    def __init__(
        self,
        store: OutputStore,
        record: JobRecord,
        shards: Sequence[Shard],
        *,
        max_reject_rate: float,
        call: Call = call_in_thread,
        originals: Originals | None = None,
        clock: ActorClock | None = None,
    ) -> None:
        self._finisher = Finisher(store=store, record=record, originals=originals)
        self._call = call
        self._clock = clock
        self._shards = {shard.shard_id: shard for shard in shards}
        self._breaker = Breaker(max_reject_rate=max_reject_rate)
        self._open: dict[str, _Open] = {}
        self._closed: set[str] = set()
        self._failed: list[ShardOutcome] = []  # before they were finished
        self._complete: list[_Open] = []
        self._calls: dict[Future[list[ShardOutcome]], list[_Open]] = {}
        self._answers = 0  # of calls

    def add(self, table: pa.Table, ref: object = None) -> int:
        """Add rows of `schema.ANNOTATED`; return how many are new. `ref`: see `StoredTable`."""
        new, stored = 0, StoredTable(table, ref)
        for shard_id, rows in by_shard(table):
            if shard_id in self._closed:  # repeated by a retry
                continue
            one = self._open.get(shard_id)
            if one is None:
                shard = self._shards[shard_id]
                one = self._open[shard_id] = _Open(assembly=self._finisher.assembly(shard))
            new += one.assembly.add(rows)
            one.tables[id(stored)] = stored
            one.rows += rows.num_rows
            self._close(shard_id, one.assembly)
        self._begin_calls()
        return new

    def finished(self) -> Iterator[ShardOutcome]:
        """Yield the outcomes so far."""
        yield from self._take_failed()
        for future in [future for future in self._calls if future.done()]:
            yield from self._outcomes(future)
        self._begin_calls()

    @property
    def is_full(self) -> bool:
        """Return whether so many shards wait to be finished that no more rows should be added."""
        return self.puts > _MAX_WAITING

    @property
    def open_shards(self) -> int:
        """Number of shards that have some of their rows."""
        return len(self._open)

    @property
    def puts(self) -> int:
        """Number of complete shards that wait for the store, or for their outcome to be read."""
        return len(self._failed) + len(self._complete) + sum(map(len, self._calls.values()))

    def close(self) -> Iterator[ShardOutcome]:
        """Wait until complete shards are finished; then yield those that stayed incomplete."""
        limit = time.monotonic() + _LAST_CALLS_S
        while self._calls and (left_s := limit - time.monotonic()) > 0:
            wait(self._calls, timeout=left_s, return_when="FIRST_COMPLETED")
            yield from self.finished()
        yield from self._take_failed()
        unfinished = [one for call in self._calls.values() for one in call] + self._complete
        for one in [*unfinished, *self._open.values()]:
            yield incomplete(one.assembly.shard.shard_id)

    def _take_failed(self) -> list[ShardOutcome]:
        failed, self._failed = self._failed, []
        return failed

    def _close(self, shard_id: str, assembly: Assembly) -> None:
        """Close a shard whose rows are complete, or which has a bad end."""
        is_bad = assembly.end is not None and assembly.end.error_type is not None
        if is_bad or assembly.is_complete:
            self._closed.add(shard_id)
            one = self._open.pop(shard_id)
            if (failure := self._failure(assembly)) is not None:
                self._failed.append(failure)
            else:
                self._complete.append(one)

    def _begin_calls(self) -> None:
        """Have complete shards finished: the more wait, the more together.

        A process starts slower than a shard is finished. So each answer allows one more: those of a
        small job are finished by the first.
        """
        while self._complete and len(self._calls) < min(1 + self._answers, _CALLS):
            taken, rows = list[_Open](), 0
            while self._complete and len(taken) < _SHARDS_PER_CALL and rows < _ROWS_PER_CALL:
                taken.append(self._complete.pop(0))
                rows += taken[-1].rows
            if self._clock is not None:
                times = self._clock.share([one.rows for one in taken])
                for one, share in zip(taken, times, strict=True):
                    one.actor_time = share
            orders = [
                Order(
                    shard=one.assembly.shard,
                    commit_id=uuid.uuid4().hex,
                    actor_time=one.actor_time,
                )
                for one in taken
            ]
            tables = {number: table for one in taken for number, table in one.tables.items()}
            self._calls[self._call(self._finisher, orders, list(tables.values()))] = taken

    def _outcomes(self, future: Future[list[ShardOutcome]]) -> list[ShardOutcome]:
        taken = self._calls.pop(future)
        self._answers += 1
        try:
            found = future.result()
        except WorkerDied as error:
            found = [ShardFailed.by(one.assembly.shard.shard_id, error) for one in taken]
        for one, outcome in zip(taken, found, strict=True):
            is_ours = isinstance(outcome, Committed) and outcome.is_ours
            if self._clock is not None and one.actor_time is not None and not is_ours:
                self._clock.take_back(one.actor_time)
        return found

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
