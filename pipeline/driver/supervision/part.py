"""A part of a run: its passes, in a process that reports to the run."""

import threading
import time
from dataclasses import dataclass, replace

from pipeline.dataset.commit import Committed
from pipeline.dataset.shards import Shard
from pipeline.driver.finishing import ShardOutcome
from pipeline.driver.passes import Passes, Run
from pipeline.driver.supervision.reports import Orders, PartReport
from pipeline.driver.supervision.supervisor import SettleModel
from pipeline.driver.tally import DriverState, TableCounts
from pipeline.errors import PipelineError
from pipeline.execution.resources import Share
from pipeline.faults import fault
from pipeline.spec.identity import JobRecord, ResolvedModel
from pipeline.storage.clouds.retries import RETRIES


@dataclass(frozen=True, slots=True, kw_only=True)
class PartJob:
    """The work of a part. It makes the `PartPasses`, in the process where it is called."""

    number: int
    run: Run
    shards: tuple[Shard, ...]
    share: Share
    settle_record: SettleModel

    def __call__(self) -> "PartPasses":
        own = replace(self.run, source=self.run.source.part(self.share))
        return PartPasses(replace(self, run=own))


class PartSupervisor:
    """The supervisor of a part's passes: it takes orders, and keeps what they find for the run."""

    def __init__(self, job: PartJob) -> None:
        self._job = job
        self._orders = Orders(share=job.share)
        self._lock = threading.Lock()
        self._closed = set[str]()  # committed, or failed for good
        self._committed = 0
        self._outcomes = list[ShardOutcome]()
        self._counts = list[TableCounts]()
        self._state = DriverState(cpu_s=time.process_time())
        self._model: ResolvedModel | None = None  # until it is reported

    @property
    def is_stopped(self) -> bool:
        return self._orders.is_stopped

    @property
    def is_over(self) -> bool:
        return self._orders.is_over

    @property
    def committed(self) -> int:
        return self._committed

    def left(self) -> list[Shard]:
        return [shard for shard in self._job.shards if shard.shard_id not in self._closed]

    def settle_model(self, model: ResolvedModel) -> JobRecord:
        record = self._job.settle_record(model)
        with self._lock:
            self._model = model
        return record

    def count(self, counts: TableCounts) -> None:
        with self._lock:
            self._counts.append(counts)

    def settle(self, outcome: ShardOutcome) -> None:
        fault("driver.part", part=self._job.number, shard_id=outcome.shard_id)
        self._committed += isinstance(outcome, Committed)
        if isinstance(outcome, Committed) or not outcome.retriable:
            self._closed.add(outcome.shard_id)
        with self._lock:
            self._outcomes.append(outcome)

    def end_pass(self) -> None:
        """Do nothing: the run writes summaries."""

    def watch(self, state: DriverState) -> int:
        self._state = state
        return len(self._job.shards) - len(self._closed)

    def obey(self, orders: Orders) -> None:
        if orders.share != self._orders.share:
            self._job.run.source.resize(orders.share)
        self._orders = orders

    def report(self, *, has_ended: bool, error: PipelineError | None) -> PartReport:
        """Return what happened since the last report."""
        with self._lock:
            outcomes, self._outcomes = self._outcomes, []
            counts, self._counts = self._counts, []
            model, self._model = self._model, None
        return PartReport(
            outcomes=tuple(outcomes),
            counts=tuple(counts),
            state=self._state,
            model=model,
            store_retries=RETRIES.take(),
            has_ended=has_ended,
            error=error,
        )


class PartPasses:
    """Runs the passes of a part in a thread, from now on, and answers orders with reports."""

    def __init__(self, job: PartJob) -> None:
        self._supervisor = PartSupervisor(job)
        self._passes = Passes(job.run, self._supervisor)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="passes", daemon=True)
        self._thread.start()

    def answer(self, question: Orders) -> PartReport:
        """Take orders, and return what happened since the last ones.

        Raises whatever ended the passes, unless it is an error for the user.
        """
        self._supervisor.obey(question)
        has_ended = not self._thread.is_alive()
        error = self._error if has_ended else None
        if error is None or isinstance(error, PipelineError):
            return self._supervisor.report(has_ended=has_ended, error=error)
        raise error

    def _run(self) -> None:
        try:
            self._passes.run()
        # This is a boundary: the process of the run raises whatever ends the passes.
        except BaseException as error:  # noqa: BLE001
            self._error = error
