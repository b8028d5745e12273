"""One schedule: the job under its faults, the same command until it is done, then the check."""

import random
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import psutil

from tests.chaos.check import Found, check
from tests.chaos.schedule import DEATH_OF_A_DRIVER, TROUBLES, Fault
from tests.chaos.world import World
from tests.support.bucket import JobBucket
from tests.support.cluster import ray_workers
from tests.support.patience import end_of, patient

HANG_S = 300  # a schedule takes a tenth of that on an idle machine
MAX_RUNS = 12
_TICK_S = 0.05
_STOP_S = 3  # between SIGTERM and SIGKILL, as Ray's job server does it


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    happened: tuple[str, ...]  # faults, in their order; some runs are over before the last one
    exit_codes: tuple[int, ...]
    is_hanging: bool
    seconds: float
    requests: int  # to the store
    found: Found

    @property
    def is_good(self) -> bool:
        return not self.is_hanging and self.exit_codes[-1] == 0 and self.found.is_good


@dataclass
class Chaos:
    """The job in `bucket` under `faults`."""

    world: World
    bucket: JobBucket
    faults: list[Fault]
    chance: random.Random
    drivers: int = 1
    happened: list[str] = field(default_factory=list)
    exit_codes: list[int] = field(default_factory=list)
    said: list[str] = field(default_factory=list)  # by each driver that ended

    def run(self, samples: dict[str, int], *, hang_s: float = HANG_S) -> Outcome:
        """`samples` of each shard, by the stem of its name."""
        started = time.monotonic()
        self.world.proxy.requests.clear()
        committed: dict[str, tuple[str, str]] = {}
        is_hanging = False
        while not is_hanging and (not self.exit_codes or self.exit_codes[-1] != 0):
            driver = self._start()
            is_hanging = not self._survive(driver, until=started + patient(hang_s))
            before, committed = committed, self.bucket.objects("out/annotations/")
            assert before.items() <= committed.items(), "what is committed is never touched again"
            is_hanging |= len(self.exit_codes) >= MAX_RUNS and self.exit_codes[-1] != 0
        self._calm()
        return Outcome(
            happened=tuple(self.happened),
            exit_codes=tuple(self.exit_codes),
            is_hanging=is_hanging,
            seconds=time.monotonic() - started,
            requests=len(self.world.proxy.requests),
            found=check(self.bucket, samples),
        )

    def _start(self) -> subprocess.Popen[str]:
        places = (self.bucket.input, self.bucket.output)
        job = ("annotate", *places, "--actors", "2", "--drivers", str(self.drivers))
        return self.world.kosmos2.start(*job, "--stall-timeout", f"{patient(HANG_S):.0f}")

    def _survive(self, driver: subprocess.Popen[str], *, until: float) -> bool:
        """Let faults happen while it runs; False if it does not end."""
        while driver.poll() is None:
            if time.monotonic() > until:
                driver.kill()
                break
            if self.faults and len(self.world.proxy.requests) >= self.faults[0].after:
                self._let_happen(driver, self.faults[0])
            time.sleep(_TICK_S)
        _, stderr = end_of(driver)
        self.said.append(stderr)
        self.exit_codes.append(driver.returncode)
        return time.monotonic() <= until

    def _let_happen(self, driver: subprocess.Popen[str], fault: Fault) -> None:
        """Unless there is nobody yet to whom it could happen."""
        if fault.kind in TROUBLES:
            left = getattr(self.world.proxy, fault.kind)
            setattr(self.world.proxy, fault.kind, left + fault.count)
        elif not _DEATHS[fault.kind](self, driver):
            return
        self.happened.append(fault.kind)
        self.faults.pop(0)

    def _kill_driver(self, driver: subprocess.Popen[str]) -> bool:
        driver.kill()
        return True

    def _stop_driver(self, driver: subprocess.Popen[str]) -> bool:
        driver.terminate()
        try:
            driver.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            driver.kill()
        return True

    def _kill_actor(self, driver: subprocess.Popen[str]) -> bool:
        return self._kill_worker("MapWorker(MapBatches(Annotate))")

    def _kill_reader(self, driver: subprocess.Popen[str]) -> bool:
        return self._kill_worker("MapBatches(ReadShard)")

    def _kill_part_driver(self, driver: subprocess.Popen[str]) -> bool:
        return self._kill_worker("PartDriver")

    def _kill_worker(self, name: str) -> bool:
        workers = ray_workers(self.world.kosmos2, name)
        if not workers:
            return False
        try:
            self.chance.choice(workers).send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            return False
        return True

    def _lose_node(self, driver: subprocess.Popen[str]) -> bool:
        self.world.lose(self.chance.choice(self.world.nodes))
        self.world.join()
        return True

    def _calm(self) -> None:
        for trouble in TROUBLES:
            setattr(self.world.proxy, trouble, 0)


_DEATHS: dict[str, Callable[[Chaos, subprocess.Popen[str]], bool]] = {
    "kill_driver": Chaos._kill_driver,
    "stop_driver": Chaos._stop_driver,
    "kill_actor": Chaos._kill_actor,
    "kill_reader": Chaos._kill_reader,
    DEATH_OF_A_DRIVER: Chaos._kill_part_driver,
    "lose_node": Chaos._lose_node,
}
