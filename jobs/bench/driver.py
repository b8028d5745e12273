"""`kosmos2 bench driver`: throughput of one driver, whatever readers and model cost."""

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from jobs.bench.jobs import light_spec, loop_shards, run_whole
from jobs.bench.light.model import LightModel
from jobs.bench.light.reader import LightRead
from jobs.bench.local_ray import own_ray
from jobs.bench.machine import BenchResult, cpu_s, load_average
from jobs.bench.observers import PaceMeter
from pipeline.errors import SpecError

_CPUS = 4  # that Ray counts with: two actors, two readers
_LEAST_SHARDS = 12  # of a run, or there is no pace to tell
_ITERATIONS = 5_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverRun:
    """Cost of shards of one size.

    `driver_ms_per_shard` is CPU time of the driver process, all its threads. From it follow the
    images per second that half a core allows, and the cost of an image in iterations of an empty
    Python loop, by which machines can be compared. `images_per_s` were seen: readers and actors
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
    """Costs of a driver. An iteration of an empty loop took `loop_ns` in each of the `runs`."""

    slots: int
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
        yield f"{self.slots} slots per actor; {self.conditions}"


def bench_driver(*, images_per_shard: tuple[int, ...], images: int, slots: int) -> DriverBench:
    """Measure each size of shards, over `images` or more. Raises SpecError."""
    if not images_per_shard or min(*images_per_shard, images, slots) < 1:
        raise SpecError("name at least one number of images per shard; all numbers are above 0")
    load_before = load_average()
    with own_ray(_CPUS), tempfile.TemporaryDirectory() as folder:
        _ = _pace(Path(folder) / "warm-up", images=1, shards=8, slots=slots)
        found = [
            _run(Path(folder) / f"{number}", size, images, slots)
            for number, size in enumerate(images_per_shard)
        ]
    return DriverBench(
        slots=slots,
        runs=tuple(run for run, _ in found),
        loop_ns=tuple(1e9 * loop_s for _, loop_s in found),
        load_before=load_before,
    )


def _run(folder: Path, size: int, images: int, slots: int) -> tuple[DriverRun, float]:
    """Return the figures, and the seconds of an iteration around the run."""
    shards = max(images // size, _LEAST_SHARDS)
    before = _loop_s()
    stretch = _pace(folder, images=size, shards=shards, slots=slots).steady(0.1, 0.95)
    loop_s = (before + _loop_s()) / 2
    image_s = stretch.cpu_s / stretch.images
    run = DriverRun(
        images_per_shard=size,
        shards=shards,
        driver_ms_per_shard=1000 * image_s * size,
        images_per_s_at_half_a_core=0.5 / image_s,
        loop_iterations_per_image=image_s / loop_s,
        images_per_s=stretch.images_per_s,
        driver_busy=stretch.cpu_s / stretch.seconds,
    )
    return run, loop_s


def _pace(folder: Path, *, images: int, shards: int, slots: int) -> PaceMeter:
    """Run a job with the real graph and committer; readers and actors only fill tables."""
    folder.mkdir()
    archive = folder / "light.tar"
    archive.touch()
    loop_shards(folder / "in", [archive], shards)
    pace = PaceMeter(of=images * shards)
    spec = light_spec(folder / "in", folder / "out", actors=2, slots=slots)
    run_whole(spec, pace, LightModel(image_cost_s=0.0, slots=slots), LightRead(images=images))
    return pace


def _loop_s() -> float:
    def loop() -> None:
        for _ in range(_ITERATIONS):
            pass

    time.sleep(0.5)  # what ran before comes to rest: other threads of this process count too
    return cpu_s(loop) / _ITERATIONS
