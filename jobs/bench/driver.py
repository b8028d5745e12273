"""`kosmos2 bench driver`: throughput of one driver, whatever readers and model cost."""

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from jobs.bench.jobs import light_spec, loop_shards, run_whole
from jobs.bench.light.model import LightModel
from jobs.bench.light.reader import LightRead
from jobs.bench.local_ray import own_ray
from jobs.bench.machine import BenchResult, cpu_s, load_average
from jobs.bench.observers import PaceMeter, WaitMeter
from pipeline.errors import SpecError
from pipeline.progress import ProgressObserver

_CPUS = 4  # that Ray counts with: two actors, two readers
_LEAST_SHARDS = 12  # of a run, or there is no pace to tell
_SLOW_SHARDS, _SLOW_MS = 4, 5.0  # of a run whose driver mostly waits, shards of 1,000 images
_ITERATIONS = 5_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverRun:
    """Cost of shards of one size.

    `driver_ms_per_shard` is CPU time of the driver process, all its threads, beyond that of a
    driver that waits. From both follow the images per second that half a core allows.
    `loop_iterations_per_image` is the cost of an image in iterations of an empty Python loop, by
    which machines can be compared. `images_per_s` and `driver_busy` were seen: readers and actors
    share the machine with the driver.
    """

    images_per_shard: int
    shards: int
    driver_ms_per_shard: float
    images_per_s_at_half_a_core: float
    loop_iterations_per_image: float
    images_per_s: float
    driver_busy: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverBench(BenchResult):
    """Costs of a driver.

    `waiting_busy` is the share of a core that it takes while no images come. An iteration of an
    empty loop took `loop_ns` in each of the `runs`.
    """

    slots: int
    waiting_busy: float
    runs: tuple[DriverRun, ...]
    loop_ns: tuple[float, ...]

    def page(self) -> Iterator[str]:
        for run in self.runs:
            yield (
                f"shards of {run.images_per_shard:,} images: {run.driver_ms_per_shard:.1f} ms of "
                f"the driver per shard, or {run.loop_iterations_per_image:,.0f} iterations of an "
                f"empty loop per image; half a core carries "
                f"{run.images_per_s_at_half_a_core:,.0f} images/s (seen: {run.images_per_s:,.0f} "
                f"images/s with the driver {run.driver_busy:.0%} busy)"
            )
        yield (
            f"a driver that waits is {self.waiting_busy:.1%} busy; {self.slots} slots per actor; "
            f"{self.conditions}"
        )


def bench_driver(*, images_per_shard: tuple[int, ...], images: int, slots: int) -> DriverBench:
    """Measure each size of shards, over `images` or more. Raises SpecError."""
    if not images_per_shard or min(*images_per_shard, images, slots) < 1:
        raise SpecError("name at least one number of images per shard; all numbers are above 0")
    load_before = load_average()
    with own_ray(_CPUS), tempfile.TemporaryDirectory() as folder:
        jobs = _Jobs(Path(folder), slots)
        waiting = WaitMeter()
        jobs.run(waiting, images=1000, shards=_SLOW_SHARDS, image_ms=_SLOW_MS)
        found = [_run(jobs, size, images, waiting.busy) for size in images_per_shard]
    return DriverBench(
        slots=slots,
        waiting_busy=waiting.busy,
        runs=tuple(run for run, _ in found),
        loop_ns=tuple(1e9 * loop_s for _, loop_s in found),
        load_before=load_before,
    )


class _Jobs:
    """Jobs with the real graph and committer; readers and actors only fill tables."""

    def __init__(self, folder: Path, slots: int) -> None:
        self._folder = folder
        self._slots = slots
        self._numbers = count()

    def run(
        self, observe: ProgressObserver, *, images: int, shards: int, image_ms: float = 0.0
    ) -> None:
        folder = self._folder / f"{next(self._numbers)}"
        folder.mkdir()
        archive = folder / "light.tar"
        archive.touch()
        loop_shards(folder / "in", [archive], shards)
        spec = light_spec(folder / "in", folder / "out", actors=2, slots=self._slots)
        model = LightModel(image_cost_s=image_ms / 1000, slots=self._slots)
        run_whole(spec, observe, model, LightRead(images=images))


def _run(jobs: _Jobs, size: int, images: int, waiting_busy: float) -> tuple[DriverRun, float]:
    """Return the figures, and the seconds of an iteration around the run."""
    shards = max(images // size, _LEAST_SHARDS)
    pace = PaceMeter(of=size * shards)
    before = _loop_s()
    jobs.run(pace, images=size, shards=shards)
    loop_s = (before + _loop_s()) / 2
    stretch = pace.steady(0.1, 0.95)
    image_s = (stretch.cpu_s - waiting_busy * stretch.seconds) / stretch.images
    run = DriverRun(
        images_per_shard=size,
        shards=shards,
        driver_ms_per_shard=1000 * image_s * size,
        images_per_s_at_half_a_core=(0.5 - waiting_busy) / image_s,
        loop_iterations_per_image=image_s / loop_s,
        images_per_s=stretch.images_per_s,
        driver_busy=stretch.cpu_s / stretch.seconds,
    )
    return run, loop_s


def _loop_s() -> float:
    def loop() -> None:
        for _ in range(_ITERATIONS):
            pass

    time.sleep(0.5)  # what ran before comes to rest: other threads of this process count too
    return cpu_s(loop) / _ITERATIONS
