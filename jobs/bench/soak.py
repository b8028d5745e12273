"""`kosmos2 bench soak`: memory, handles and threads over a long run."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jobs.bench.jobs import encoded, light_spec, loop_shards, run_light, write_archive
from jobs.bench.local_ray import own_ray
from jobs.bench.machine import BenchResult, load_average
from jobs.bench.observers import HoldingsSample, HoldingsWatch, Trend, trend
from jobs.terminal import DataTable
from pipeline.errors import SpecError
from pipeline.progress import Progress

_SAMPLES = 240
_READERS = 2
_SPARE = 1.5  # more shards than the time should take
_SMALL, _LARGE = (96, 72), (1200, 900)  # noise: of some KB, and about 1 MB, as JPEG
_LARGE_FROM_MB = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class SoakBench(BenchResult):
    minutes: float
    images: int
    image_cost_ms: float
    actors: int
    drivers: int
    shard_mb: float
    trends: dict[str, Trend]
    samples: tuple[HoldingsSample, ...]

    def page(self) -> Iterator[str | DataTable]:
        table = DataTable("", "begin", "end", "peak", "slope per hour")
        for name, one in self.trends.items():
            levels = (f"{value:,.0f}" for value in (one.begin, one.end, one.peak))
            table.add_row(name, *levels, f"{one.slope_per_hour:+,.1f}")
        yield table
        yield (
            f"{self.minutes:.1f} minutes, {self.images} images at {self.image_cost_ms:g} ms by "
            f"{self.actors} actors, {self.drivers} drivers, shards of {self.shard_mb:.0f} MB; "
            f"the first quarter counts for the peak only; {self.conditions}"
        )


class _Enough(Exception):
    """Raised in the run to end it: the time is up."""


def bench_soak(
    *, minutes: float, image_ms: float, actors: int, shard_mb: float, drivers: int = 1
) -> SoakBench:
    """Run a job for `minutes` and sample what its processes hold. Raises SpecError."""
    if min(minutes, image_ms, actors, shard_mb, drivers) <= 0:
        raise SpecError("minutes, image-ms, actors, shard-mb and drivers must be above 0")
    load_before = load_average()
    watch = HoldingsWatch(every_s=60 * minutes / _SAMPLES)
    with own_ray(actors + _READERS * drivers), tempfile.TemporaryDirectory() as folder:
        inputs = Path(folder) / "in"
        image = _noise(_LARGE if shard_mb >= _LARGE_FROM_MB else _SMALL)
        images = max(round(shard_mb * 1e6 / len(image)), 1)
        archive = write_archive(Path(folder) / "noise.tar", image, images)
        shards = 2 + round(_SPARE * 60_000 * minutes * actors / image_ms / images)
        loop_shards(inputs, [archive], shards)
        spec = light_spec(inputs, Path(folder) / "out", actors=actors, drivers=drivers)
        with suppress(_Enough):
            run_light(spec, _until(watch, 60 * minutes), image_cost_s=image_ms / 1000)
        shard_mb = archive.stat().st_size / 1e6
    return SoakBench(
        minutes=watch.samples[-1].at_s / 60 if watch.samples else 0.0,
        images=watch.samples[-1].images if watch.samples else 0,
        image_cost_ms=image_ms,
        actors=actors,
        drivers=min(drivers, actors),
        shard_mb=shard_mb,
        trends={name: trend(watch.samples, figure) for name, figure in _FIGURES.items()},
        load_before=load_before,
        samples=tuple(watch.samples),
    )


_FIGURES: dict[str, Callable[[HoldingsSample], float]] = {
    "drivers, MB": lambda sample: sample.driver.memory_mb,
    "drivers, file handles": lambda sample: sample.driver.handles,
    "drivers, threads": lambda sample: sample.driver.threads,
    "actors, MB": lambda sample: sample.actors.memory_mb,
    "actors, file handles": lambda sample: sample.actors.handles,
    "actors, threads": lambda sample: sample.actors.threads,
    "Ray objects held by the driver": lambda sample: sample.objects_held,
    "Ray objects stored": lambda sample: sample.objects_stored,
    "Ray objects stored, MB": lambda sample: sample.stored_mb,
    "Ray objects spilled, MB": lambda sample: sample.spilled_mb,
}


def _until(watch: HoldingsWatch, limit_s: float) -> Callable[[Progress], None]:
    def observe(progress: Progress) -> None:
        if watch.note(progress.images_annotated) > limit_s:
            raise _Enough

    return observe


def _noise(size: tuple[int, int]) -> bytes:
    width, height = size
    return encoded(np.random.default_rng(7).integers(0, 256, (height, width, 3), np.uint8))
