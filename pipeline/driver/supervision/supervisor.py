"""The supervisor of passes: it takes what they find, and decides when they end."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from pipeline.costs.budget import Budget
from pipeline.dataset.lease import Lease
from pipeline.dataset.shards import Shard
from pipeline.dataset.stop import StopRequest
from pipeline.driver.finishing import ShardOutcome
from pipeline.driver.outcomes import Outcomes
from pipeline.driver.tally import DriverState, TableCounts, Tally
from pipeline.errors import LeaseLost
from pipeline.execution import metrics
from pipeline.progress import ProgressObserver
from pipeline.spec.identity import JobRecord, ResolvedModel
from pipeline.storage import OutputStore

_log = logging.getLogger(__name__)

SettleModel = Callable[[ResolvedModel], JobRecord]
"""Returns the job's record once a model is loaded. Raises WrongIdentity if it is another one."""


class Supervisor(Protocol):
    """The run that passes belong to."""

    @property
    def is_stopped(self) -> bool:
        """Return whether passes must end although nothing is wrong: a stop, or the budget."""

    @property
    def is_over(self) -> bool:
        """Return whether passes must end early. Ready shards are committed, the rest is left."""

    @property
    def committed(self) -> int:
        """Number of shards that are committed."""

    def left(self) -> list[Shard]:
        """Return the shards that another pass may complete."""

    def settle_model(self, model: ResolvedModel) -> JobRecord:
        """Return the job's record once a model is loaded. Raises WrongIdentity."""

    def count(self, counts: TableCounts) -> None:
        """Take the figures of a table."""

    def settle(self, outcome: ShardOutcome) -> None:
        """Take the outcome of a shard."""

    def end_pass(self) -> None:
        """Write what is written once per pass."""

    def watch(self, state: DriverState) -> int:
        """Publish the progress. Returns the number of shards left. Raises LeaseLost."""


@dataclass(slots=True, kw_only=True)
class RunSupervisor:
    """The supervisor in the process of the run, which holds its lease, counters and outcomes."""

    store: OutputStore
    settle_record: SettleModel
    lease: Lease
    stop: StopRequest
    outcomes: Outcomes
    tally: Tally
    observe: ProgressObserver
    budget: Budget = field(default_factory=Budget)
    _has_model: bool = False

    @property
    def is_stopped(self) -> bool:
        return self.stop.is_made or bool(self.budget_reached)

    @property
    def budget_reached(self) -> str:
        """The limit of the budget that is reached, as text; "" if none is."""
        return self.budget.reached(self.tally.actor_time)

    @property
    def is_over(self) -> bool:
        return self.outcomes.is_tripped or self.is_stopped

    @property
    def committed(self) -> int:
        return len(self.outcomes.committed)

    def left(self) -> list[Shard]:
        return self.outcomes.left()

    def settle_model(self, model: ResolvedModel) -> JobRecord:
        record = self.settle_record(model)
        if not self._has_model:
            _log.info(
                "model %s, %s on %s, fingerprint %s: %s slots, about %.1f GiB of memory per actor",
                model.id,
                model.dtype,
                model.device,
                record.fingerprint,
                model.slots,
                (model.memory_bytes or 0) / (1 << 30),
            )
        self._has_model = True
        return record

    def count(self, counts: TableCounts) -> None:
        self.tally.add(counts)

    def settle(self, outcome: ShardOutcome) -> None:
        self.outcomes.settle(outcome)
        self.outcomes.summarise()

    def end_pass(self) -> None:
        self.outcomes.summarise(at_least=1)

    def watch(self, state: DriverState) -> int:
        self.tally.note_driver(0, state)
        return self.publish()

    def publish(self) -> int:
        """Publish the progress, and check the lease.

        Returns the number of shards left. Raises LeaseLost.
        """
        progress = self.tally.progress()
        self.observe(progress)
        metrics.show(progress)
        waiting = self.tally.waiting
        metrics.show_queues(
            tables=waiting.tables, shards_open=waiting.shards_open, puts=waiting.puts
        )
        if self.lease.is_lost:
            raise LeaseLost(
                f"{self.store.uri} was taken over by another run, so this one stops; "
                "let that run finish, or stop it and run the same command again"
            )
        return progress.shards_total - progress.shards_done
