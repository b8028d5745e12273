"""A run with several drivers: each does a part of the shards, in a process of its own."""

import logging
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace

from pipeline.dataset.ledger import Ledger
from pipeline.dataset.shards import Shard
from pipeline.driver.passes import FRUITLESS_PASSES, Run
from pipeline.driver.supervision.part import PartJob
from pipeline.driver.supervision.reports import Orders, PartReport
from pipeline.driver.supervision.supervisor import RunSupervisor
from pipeline.driver.tally import DriverState
from pipeline.errors import Stalled, WorkerDied
from pipeline.execution.parts.process import AskedProcess
from pipeline.execution.resources import Share
from pipeline.spec.resources import actors_text
from pipeline.storage.clouds.retries import RETRIES

_TICK_S = 0.5
_PAUSE_S = 2.0
_LEAST_SILENT_S = 60.0  # a process needs that long to start on a busy machine
_LAST_REPORTS_S = 130.0  # a pass that ends waits 120 s for its last commits

_log = logging.getLogger(__name__)


def dealt(shards: Sequence[Shard], weights: Sequence[int]) -> list[tuple[Shard, ...]]:
    """Deal shards to parts so that they end together: bytes in proportion to `weights`.

    The parts of `--partition` depend on the ids of shards only, so their sizes vary. Parts of a
    run need not outlive it, and can be equal.
    """
    parts = [list[Shard]() for _ in weights]
    loads = [0.0] * len(weights)
    for shard in shards:
        least = min(range(len(weights)), key=lambda part: (loads[part], part))
        parts[least].append(shard)
        loads[least] += max(shard.own_bytes, 1) / weights[least]
    return [tuple(part) for part in parts]


def _even(total: int, parts: int) -> list[int]:
    """Split a number into `parts` numbers that differ by 1 at most."""
    return [total // parts + (part < total % parts) for part in range(parts)]


@dataclass(slots=True, kw_only=True)
class _Driver:
    """The driver of a part, and how often it died in a row without a commit."""

    job: PartJob
    process: AskedProcess
    answer: "Future[PartReport]"
    asked: float = field(default_factory=time.monotonic)
    left: int = 0  # shards, when its process began
    deaths: int = 0
    rests_until: float | None = None  # after a death


class Parts:
    """The parts of a run. They report to the process of the run, which supervises them."""

    def __init__(
        self, run: Run, supervisor: RunSupervisor, drivers: int, *, pause_s: float = _PAUSE_S
    ) -> None:
        """`pause_s` is the pause after a driver that died; it doubles each time."""
        self._run = run
        self._supervisor = supervisor
        self._pause_s = pause_s
        self._number = drivers
        self._most_silent_s = max(run.spec.stall_timeout_s, _LEAST_SILENT_S)
        self._drivers = dict[int, _Driver]()  # those that have not ended

    def run(self) -> None:
        """Run the parts until all have ended.

        Raises LeaseLost, Stalled, SpecError, WrongIdentity; WorkerDied if a driver dies again and
        again.
        """
        try:
            for job in self._jobs():
                self._supervisor.tally.note_driver(job.number, DriverState(cpu_s=0.0))
                self._drivers[job.number] = self._started(job)
            while self._drivers:
                self._look()
                time.sleep(_TICK_S)
        except BaseException:
            self._wind_up()
            raise
        finally:
            for driver in self._drivers.values():
                driver.process.end()
            self._supervisor.end_pass()

    def _jobs(self) -> list[PartJob]:
        run, number = self._run, self._number
        _, of = run.spec.actors
        pools = list(zip(*(_even(actors, number) for actors in run.spec.actors), strict=True))
        parts = dealt(self._supervisor.left(), [most for _, most in pools])
        shown = " or ".join(sorted({actors_text(pool) for pool in pools}))
        _log.info("drivers: %d, each with actors: %s", number, shown)
        return [
            PartJob(
                number=part,
                run=run,
                shards=shards,
                share=Share(actors=pool, of=of),
                settle_record=self._supervisor.settle_record,
            )
            for part, (pool, shards) in enumerate(zip(pools, parts, strict=True))
        ]

    def _started(self, job: PartJob, deaths: int = 0) -> _Driver:
        process = self._run.source.start(job)
        return _Driver(
            job=job,
            process=process,
            answer=process.ask(self._orders(job)),
            left=len(job.shards),
            deaths=deaths,
        )

    def _orders(self, job: PartJob) -> Orders:
        supervisor = self._supervisor
        return Orders(share=job.share, is_stopped=supervisor.is_stopped, is_over=supervisor.is_over)

    def _look(self) -> None:
        """Take the reports that came, and ask for the next ones. Raises what ended a part."""
        for driver in list(self._drivers.values()):
            if driver.rests_until is not None:
                self._start_again(driver)
            elif driver.answer.done():
                self._take(driver)
            elif (silent_s := time.monotonic() - driver.asked) > self._most_silent_s:
                raise Stalled(
                    f"{self._name(driver)} has not answered for {silent_s:.0f} s: its process "
                    "hangs; look at it with `ray stack`, then run the same command again"
                )
        self._supervisor.publish()

    def _take(self, driver: _Driver) -> None:
        try:
            report = driver.answer.result()
        except WorkerDied as error:
            self._note_death(driver, error)
            return
        self._settle(driver, report)
        if report.error is not None:
            raise type(report.error)(f"{self._name(driver)}: {report.error}")
        if report.has_ended:
            self._end(driver)
        else:
            driver.asked, driver.answer = (
                time.monotonic(),
                driver.process.ask(self._orders(driver.job)),
            )

    def _settle(self, driver: _Driver, report: PartReport) -> None:
        supervisor = self._supervisor
        if report.model is not None:
            supervisor.settle_model(report.model)
            self._run = replace(self._run, model=self._run.model or report.model)
        for counts in report.counts:
            supervisor.count(counts)
        for outcome in report.outcomes:
            supervisor.settle(outcome)
        supervisor.tally.note_driver(driver.job.number, report.state)
        RETRIES.add(report.store_retries)

    def _end(self, driver: _Driver) -> None:
        """End the process of a part, and give its actors to the others."""
        driver.process.end()
        del self._drivers[driver.job.number]
        others = list(self._drivers.values())
        if others:
            given = [_even(actors, len(others)) for actors in driver.job.share.actors]
            for other, least, most in zip(others, *given, strict=True):
                share = other.job.share
                more = (share.actors[0] + least, share.actors[1] + most)
                other.job = replace(other.job, share=replace(share, actors=more))
            _log.info("%s has ended; its actors go to the others", self._name(driver))

    def _note_death(self, driver: _Driver, error: WorkerDied) -> None:
        """Find what the driver committed but did not report, and let it begin again after a while.

        Raises WorkerDied if it dies again and again without a commit.
        """
        supervisor = self._supervisor
        whole = {shard.shard_id for shard in driver.job.shards if shard.only is None}
        ledger = Ledger(supervisor.store)
        for commit in ledger.commits_of(whole & ledger.committed() - supervisor.outcomes.committed):
            supervisor.settle(commit)
        left = len(self._left(driver))
        driver.deaths = driver.deaths + 1 if left == driver.left else 0
        if driver.deaths == FRUITLESS_PASSES:
            raise WorkerDied(
                f"{self._name(driver)} died {driver.deaths} times in a row without a commit "
                f"({error}); check the memory of the node where the command runs, then run the "
                "same command again"
            )
        _log.warning("%s died with %d shards left: %s", self._name(driver), left, error)
        driver.rests_until = time.monotonic() + self._pause_s * 2 ** max(driver.deaths - 1, 0)

    def _start_again(self, driver: _Driver) -> None:
        left = self._left(driver)
        if not left or self._supervisor.is_over:
            self._end(driver)
        elif time.monotonic() >= (driver.rests_until or 0.0):
            run = replace(driver.job.run, model=self._run.model)
            job = replace(driver.job, run=run, shards=left)
            self._drivers[job.number] = self._started(job, driver.deaths)

    def _left(self, driver: _Driver) -> tuple[Shard, ...]:
        """Return the shards of a part that are neither committed nor failed for good."""
        left = {shard.shard_id for shard in self._supervisor.left()}
        return tuple(shard for shard in driver.job.shards if shard.shard_id in left)

    def _wind_up(self) -> None:
        """Let the parts commit what is ready, and take their last reports."""
        limit = time.monotonic() + _LAST_REPORTS_S
        going = [driver for driver in self._drivers.values() if driver.rests_until is None]
        while going and time.monotonic() < limit:
            going = [driver for driver in going if self._is_winding_up(driver)]
            time.sleep(_TICK_S / 10)

    def _is_winding_up(self, driver: _Driver) -> bool:
        if not driver.answer.done():
            return True
        try:
            report = driver.answer.result()
            self._settle(driver, report)
        except Exception as error:  # noqa: BLE001 - another error ends the run already
            _log.debug("%s ended: %s", self._name(driver), error)
            return False
        driver.answer = driver.process.ask(
            Orders(share=driver.job.share, is_stopped=True, is_over=True)
        )
        return not report.has_ended

    def _name(self, driver: _Driver) -> str:
        return f"driver {driver.job.number + 1} of {self._number}"
