"""Passes over the remaining shards, until none is left or passes no longer help."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pyarrow as pa

from pipeline.concurrency import TimedIterator
from pipeline.dataset.commit import ShardFailed
from pipeline.dataset.dataset import StoredDataset, check_identity
from pipeline.dataset.lease import Lease
from pipeline.dataset.shards import Shard
from pipeline.dataset.stop import StopRequest
from pipeline.driver.committer import INCOMPLETE, Committer, ShardOutcome
from pipeline.driver.outcomes import Outcomes
from pipeline.driver.preflight import check_nodes_see, resolve_model
from pipeline.driver.source import TableSource
from pipeline.driver.stall import StallPolicy
from pipeline.driver.tally import Tally
from pipeline.errors import LeaseLost, PassBroke
from pipeline.execution import metrics
from pipeline.progress import Progress
from pipeline.spec.identity import identity_of
from pipeline.spec.job import JobSpec
from pipeline.spec.resources import actors_text

FRUITLESS_PASSES = 3
_TICK_S = 0.5
_PAUSE_S = 2.0

_log = logging.getLogger(__name__)

ProgressObserver = Callable[[Progress], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """The parts that all passes of a run share. `spec` names the hub's commit."""

    dataset: StoredDataset
    spec: JobSpec
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
        run.tally.actor_resources = str(self._resources)
        _log.info("actors: %s, each requests %s", actors_text(run.spec.actors), self._resources)
        check_nodes_see(run.source, outcomes.left()[0], run.dataset.store.uri)
        self._stall = StallPolicy(run.dataset, run.spec, run.source, self._resources)

    def run(self) -> None:
        """Run passes. Raises LeaseLost, Stalled, SpecError."""
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
        run, record = self._run, self._run.dataset.record
        committer = Committer(
            run.dataset.store, record, shards, max_reject_rate=run.spec.max_reject_rate
        )
        tables = TimedIterator(lambda: run.source.tables(shards, run.spec, record, self._resources))
        self._stall.begin_pass()
        try:
            for table in tables.ticks(_TICK_S):
                if table is not None:
                    self._take(committer, table)
                self._look_around(committer, waiting=tables.waiting)
                if self._is_over:
                    break
        except PassBroke as error:
            # Commits stay, and the next pass retries the rest.
            _log.warning("a pass ended early: %s", error)
            _log.debug("the whole error:", exc_info=True)
            if error.is_actor_dead:
                self._check_model()
        finally:
            tables.stop()
            for outcome in committer.close():
                if not self._was_stopped_in(outcome):
                    self._settle(outcome)
            self._outcomes.summarise(at_least=1)

    def _take(self, committer: Committer, table: pa.Table) -> None:
        if committer.add(table):
            self._run.tally.add_table(table, tasks=len(self._run.spec.task))
            self._stall.note_rows()

    def _look_around(self, committer: Committer, *, waiting: int) -> None:
        """Settle outcomes, publish progress, check the lease. Raises LeaseLost, Stalled."""
        for outcome in committer.finished():
            self._settle(outcome)
        self._outcomes.summarise()
        progress = self._run.tally.progress()
        self._run.observe(progress)
        metrics.show(progress)
        if self._run.lease.is_lost:
            raise LeaseLost(
                f"{self._run.dataset.store.uri} was taken over by another run, so this one stops; "
                "let that run finish, or stop it and run the same command again"
            )
        self._stall.check(progress.shards_total - progress.shards_done)
        metrics.show_queues(tables=waiting, shards_open=committer.open_shards, puts=committer.puts)

    def _settle(self, outcome: ShardOutcome) -> None:
        self._stall.note_outcome()
        self._outcomes.settle(outcome)

    def _was_stopped_in(self, outcome: ShardOutcome) -> bool:
        is_incomplete = isinstance(outcome, ShardFailed) and outcome.error_type == INCOMPLETE
        return is_incomplete and self._run.stop.is_made

    def _check_model(self) -> None:
        """Check the model after the death of an actor.

        Raises SpecError if the model does not load or is not the job's: no further pass would help.
        """
        run = self._run
        model = resolve_model(run.source, run.spec, self._resources)
        check_identity(run.dataset.store, identity_of(run.spec, model), run.dataset.record)
