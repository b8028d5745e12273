"""Passes over the remaining shards, until none is left or passes no longer help."""

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pipeline.concurrency import TimedIterator
from pipeline.dataset.commit import ShardFailed
from pipeline.dataset.lease import Lease
from pipeline.dataset.shards import Shard
from pipeline.dataset.stop import StopRequest
from pipeline.driver.committer import Committer
from pipeline.driver.finishing import INCOMPLETE, ShardOutcome
from pipeline.driver.outcomes import Outcomes
from pipeline.driver.preflight import check_nodes_see
from pipeline.driver.source import PassTables, TableSource
from pipeline.driver.stall import StallPolicy
from pipeline.driver.tally import Tally
from pipeline.errors import LeaseLost, PassBroke
from pipeline.execution import metrics
from pipeline.execution.stored_tables import StoredTable
from pipeline.progress import Progress
from pipeline.spec.identity import JobRecord, ResolvedModel
from pipeline.spec.job import JobSpec
from pipeline.spec.resources import actors_text
from pipeline.storage import OutputStore

FRUITLESS_PASSES = 3
_TICK_S = 0.5
_LOOK_S = 30.0
_FULL_S = 0.05
_PAUSE_S = 2.0

_log = logging.getLogger(__name__)

ProgressObserver = Callable[[Progress], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """The parts that all passes of a run share.

    `model` is known for an existing job. `settle` returns the job's record once a model is loaded,
    and raises WrongIdentity if it is another one.
    """

    store: OutputStore
    spec: JobSpec
    model: ResolvedModel | None
    settle: Callable[[ResolvedModel], JobRecord]
    source: TableSource
    lease: Lease
    stop: StopRequest
    tally: Tally
    observe: ProgressObserver


class Passes:
    """Repeat passes. Each commits what it can; the next one does what stayed incomplete."""

    def __init__(self, run: Run, outcomes: Outcomes, *, pause_s: float = _PAUSE_S) -> None:
        """Reserve resources and check the nodes.

        `pause_s` is the pause after a pass that committed nothing; it doubles each time. Raises
        SpecError if there are not enough resources, or if a node cannot see a path that it would
        read.
        """
        self._run = run
        self._outcomes = outcomes
        self._pause_s = pause_s
        # Once: a node that is lost later may come back, and the stall policy decides when it does
        # not.
        self._resources = run.source.open(run.spec)
        self._model = run.model
        run.tally.actor_resources = str(self._resources)
        _log.info("actors: %s, each requests %s", actors_text(run.spec.actors), self._resources)
        check_nodes_see(run.source, outcomes.left()[0], run.store.uri)
        self._next_look = 0.0  # at the cluster
        self._stall = StallPolicy(run.store, run.spec, run.source, self._resources)

    def run(self) -> None:
        """Run passes. Raises LeaseLost, Stalled, SpecError, WrongIdentity."""
        fruitless = 0
        while (left := self._outcomes.left()) and not self._is_over:
            if fruitless:
                time.sleep(self._pause_s * 2 ** (fruitless - 1))
            committed = len(self._outcomes.committed)
            self._pass(left)
            fruitless = 0 if len(self._outcomes.committed) > committed else fruitless + 1
            if fruitless == FRUITLESS_PASSES:
                return

    @property
    def _is_over(self) -> bool:
        """Return whether the run must end early. Ready shards are committed, the rest is left."""
        return self._outcomes.is_tripped or self._run.stop.is_made

    def _pass(self, shards: Sequence[Shard]) -> None:
        run, model = self._run, self._model
        spec = model.pinned(run.spec) if model else run.spec
        found = run.source.tables(shards, spec, model, self._resources)
        tables = TimedIterator(lambda: iter(found))
        self._stall.begin_pass()
        try:
            record = self._settled(found, tables)
            if record is not None:
                committer = Committer(
                    run.store,
                    record,
                    shards,
                    max_reject_rate=run.spec.max_reject_rate,
                    call=found.call,
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
        while not self._is_over:
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
        record = self._run.settle(model)
        if self._model is None:
            _log.info(
                "model %s, %s on %s, fingerprint %s: %s slots, about %.1f GiB of memory per actor",
                model.id,
                model.dtype,
                model.device,
                record.fingerprint,
                model.slots,
                (model.memory_bytes or 0) / (1 << 30),
            )
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
                while committer.is_full and not self._is_over:
                    time.sleep(_FULL_S)
                    self._settle_finished(committer, tables.waiting)
                if self._is_over:
                    break
        finally:
            for outcome in committer.close():
                if not self._was_stopped_in(outcome):
                    self._settle(outcome)
            self._outcomes.summarise(at_least=1)

    def _take(self, committer: Committer, stored: StoredTable) -> None:
        self._run.tally.add_ends(stored.table)
        if committer.add(stored.table, stored.ref):
            self._run.tally.add_table(stored.table, tasks=len(self._run.spec.task))
            self._stall.note_rows()

    def _settle_finished(self, committer: Committer, waiting: int) -> None:
        """Settle the outcomes so far. Raises LeaseLost, Stalled."""
        for outcome in committer.finished():
            self._settle(outcome)
        self._outcomes.summarise()
        self._watch()
        metrics.show_queues(tables=waiting, shards_open=committer.open_shards, puts=committer.puts)
        self._run.tally.puts_waiting = committer.puts

    def _watch(self) -> None:
        """Publish progress, and check the lease. Raises LeaseLost, Stalled."""
        self._count_readers()
        progress = self._run.tally.progress()
        self._run.observe(progress)
        metrics.show(progress)
        if self._run.lease.is_lost:
            raise LeaseLost(
                f"{self._run.store.uri} was taken over by another run, so this one stops; "
                "let that run finish, or stop it and run the same command again"
            )
        self._stall.check(progress.shards_total - progress.shards_done)

    def _count_readers(self) -> None:
        """Note, from time to time, how many readers the cluster allows beside its actors."""
        if time.monotonic() >= self._next_look:
            load = self._run.source.cluster_load()
            actors = (load.actors + load.starting) * self._resources.num_cpus
            self._run.tally.readers_possible = max(load.cpus - actors, 0.0)
            self._next_look = time.monotonic() + _LOOK_S

    def _settle(self, outcome: ShardOutcome) -> None:
        self._stall.note_progress()
        self._outcomes.settle(outcome)

    def _was_stopped_in(self, outcome: ShardOutcome) -> bool:
        is_incomplete = isinstance(outcome, ShardFailed) and outcome.error_type == INCOMPLETE
        return is_incomplete and self._run.stop.is_made
