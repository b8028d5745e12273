"""Passes over the remaining shards, until none is left or passes no longer help."""

import logging
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.concurrency import TimedIterator
from pipeline.costs.actor_time import ActorClock
from pipeline.dataset.commit import ShardFailed
from pipeline.dataset.shards import Shard
from pipeline.driver.committer import Committer
from pipeline.driver.finishing import INCOMPLETE, ShardOutcome
from pipeline.driver.source import PassTables, TableSource
from pipeline.driver.stall import StallPolicy
from pipeline.driver.supervision.supervisor import Supervisor
from pipeline.driver.tally import DriverState, TableCounts
from pipeline.errors import PassBroke
from pipeline.execution.resources import ActorResources
from pipeline.execution.stored_tables import StoredTable
from pipeline.spec.identity import JobRecord, ResolvedModel
from pipeline.spec.job import JobSpec
from pipeline.storage import OutputStore

FRUITLESS_PASSES = 3
_TICK_S = 0.5
_LOOK_S = 5.0
_FIRST_LOOKS_S = 1.0  # until the first actor has loaded the model
_FULL_S = 0.05
_PAUSE_S = 2.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """The parts that all passes of a run share. They may be sent to another process.

    `model` is known for an existing job. Each actor requests `resources`.
    """

    store: OutputStore
    spec: JobSpec
    model: ResolvedModel | None
    source: TableSource
    resources: ActorResources


class Passes:
    """Repeat passes. Each commits what it can; the next one does what stayed incomplete."""

    def __init__(self, run: Run, supervisor: Supervisor, *, pause_s: float = _PAUSE_S) -> None:
        """`pause_s` is the pause after a pass that committed nothing; it doubles each time."""
        self._run = run
        self._supervisor = supervisor
        self._pause_s = pause_s
        self._model = run.model
        self._next_look = 0.0  # at the cluster
        self._readers: float | None = None
        self._clock = ActorClock(gpus_per_actor=run.resources.num_gpus)
        self._stall = StallPolicy(run.store, run.spec, run.source, run.resources)

    def run(self) -> None:
        """Run passes. Raises LeaseLost, Stalled, SpecError, WrongIdentity."""
        fruitless = 0
        while (left := self._supervisor.left()) and not self._supervisor.is_over:
            if fruitless:
                time.sleep(self._pause_s * 2 ** (fruitless - 1))
            committed = self._supervisor.committed
            self._pass(left)
            self._watch()
            fruitless = 0 if self._supervisor.committed > committed else fruitless + 1
            if fruitless == FRUITLESS_PASSES:
                return

    def _pass(self, shards: Sequence[Shard]) -> None:
        run, model = self._run, self._model
        spec = model.pinned(run.spec) if model else run.spec
        found = run.source.tables(shards, spec, model, run.resources)
        tables = TimedIterator(lambda: iter(found))
        self._stall.begin_pass()
        self._next_look = 0.0
        try:
            record = self._settled(found, tables)
            if record is not None:
                committer = Committer(
                    run.store,
                    record,
                    shards,
                    max_reject_rate=run.spec.max_reject_rate,
                    call=found.call,
                    clock=self._clock,
                    originals=found.originals,
                )
                self._commit(committer, tables)
        except PassBroke as error:
            # Commits stay, and the next pass retries the rest.
            _log.warning("a pass ended early: %s", error)
            _log.debug("the whole error:", exc_info=True)
            found.model()  # no further pass helps if the model does not load
        finally:
            tables.stop()

    def _settled(self, found: PassTables, tables: TimedIterator[StoredTable]) -> JobRecord | None:
        """Wait until an actor has loaded the model, and return the job's record.

        Returns None if the pass ends before that. Raises PassBroke, SpecError, WrongIdentity.
        """
        while not self._supervisor.is_over:
            is_ended = tables.waiting > 0  # unless the model is loaded by now
            if (model := found.model()) is not None:
                return self._settle_model(model)
            if is_ended:
                deque(tables.ticks(_TICK_S), maxlen=0)  # raises the error that ended them
                return None
            self._watch()
            time.sleep(_TICK_S)
        return None

    def _settle_model(self, model: ResolvedModel) -> JobRecord:
        record = self._supervisor.settle_model(model)
        self._model = self._model or model
        self._stall.note_progress()
        return record

    def _commit(self, committer: Committer, tables: TimedIterator[StoredTable]) -> None:
        """Commit the shards whose tables come. Raises PassBroke, LeaseLost, Stalled."""
        try:
            for stored in tables.ticks(_TICK_S):
                if stored is not None:
                    self._take(committer, stored)
                self._settle_finished(committer, tables.waiting)
                while committer.is_full and not self._supervisor.is_over:
                    time.sleep(_FULL_S)
                    self._settle_finished(committer, tables.waiting)
                if self._supervisor.is_over:
                    break
        finally:
            for outcome in committer.close():
                if not self._was_stopped_in(outcome):
                    self._settle(outcome)
            self._supervisor.end_pass()

    def _take(self, committer: Committer, stored: StoredTable) -> None:
        self._look()  # before a commit stands for the time of its actors
        is_new = committer.add(stored.table, stored.ref) > 0
        counts = TableCounts.of(stored.table, tasks=len(self._run.spec.task), is_new=is_new)
        for usage in counts.usages:
            self._clock.note_busy(usage["actor"], usage["busy_s"])
        self._supervisor.count(counts)
        if is_new:
            self._stall.note_rows()

    def _settle_finished(self, committer: Committer, waiting: int) -> None:
        """Settle the outcomes so far. Raises LeaseLost, Stalled."""
        for outcome in committer.finished():
            self._settle(outcome)
        self._watch(tables=waiting, shards_open=committer.open_shards, puts=committer.puts)

    def _watch(self, **backlog: int) -> None:
        """Publish progress, and check that there is some. Raises LeaseLost, Stalled."""
        self._look()
        self._stall.check(self._supervisor.watch(self._state(**backlog)))

    def _state(self, **backlog: int) -> DriverState:
        return DriverState(
            cpu_s=time.process_time(),
            readers=self._readers,
            actor_time=self._clock.total,
            open_time=self._clock.open,
            **backlog,
        )

    def _look(self) -> None:
        """Note, from time to time, the actors, and how many readers the cluster allows beside."""
        if time.monotonic() >= self._next_look:
            load = self._run.source.cluster_load()
            self._clock.look(load.actors + load.starting)
            self._readers = max(load.readers(self._run.resources), 0.0)
            self._next_look = time.monotonic() + (_LOOK_S if self._model else _FIRST_LOOKS_S)

    def _settle(self, outcome: ShardOutcome) -> None:
        self._stall.note_progress()
        self._supervisor.settle(outcome)

    def _was_stopped_in(self, outcome: ShardOutcome) -> bool:
        is_incomplete = isinstance(outcome, ShardFailed) and outcome.error_type == INCOMPLETE
        return is_incomplete and self._supervisor.is_stopped
