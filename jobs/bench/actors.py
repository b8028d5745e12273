"""`kosmos2 bench actors`: throughput of the whole job by number of actors."""

import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jobs.bench.jobs import encoded, light_spec, loop_shards, run_whole, write_archive
from jobs.bench.light.model import LightModel
from jobs.bench.light.reader import LightRead
from jobs.bench.local_ray import own_ray
from jobs.bench.machine import BenchResult, load_average
from jobs.bench.observers import PaceMeter
from kosmos2_core.shapes.world.shards import write_shards
from pipeline.errors import SpecError
from pipeline.execution.read_task import shard_reader
from pipeline.progress import Progress

_ARCHIVES, _IMAGES = 4, 128
_SEED = 7
_LIGHT_IMAGES = 1024  # of a shard with --pre-decoded
_SPARE = 4.0  # more shards than the time should take, for those done while actors start
_READERS = 2  # per driver
_TINY = np.zeros((1, 1, 3), np.uint8)


@dataclass(frozen=True, slots=True, kw_only=True)
class ActorsRun:
    """`speedup`: images per second over those of one actor in the first run.

    Counted is from when all actors work; `images` are those until then, too.

    `drivers` is the number of driver processes, `driver_cores` the CPU time per second of the
    process of the run.
    """

    actors: int
    drivers: int
    driver_cores: float
    images: int
    images_per_s: float
    images_per_s_possible: float
    speedup: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ActorsBench(BenchResult):
    image_cost_ms: float
    runs: tuple[ActorsRun, ...]

    def page(self) -> Iterator[str]:
        for run in self.runs:
            yield (
                f"{run.actors} actors, {run.drivers} drivers: {run.images_per_s:.1f} of "
                f"{run.images_per_s_possible:.0f} images/s, {run.speedup:.2f}x of one"
            )
        yield f"{self.image_cost_ms:g} ms per image; {self.conditions}"


def bench_actors(
    *,
    actors: tuple[int, ...],
    image_ms: float,
    seconds: float,
    drivers: int = 1,
    pre_decoded: bool = False,
) -> ActorsBench:
    """Measure each number of actors for `seconds`. Raises SpecError."""
    if not actors or min(*actors, drivers) < 1 or image_ms <= 0:
        raise SpecError("name at least one number of actors, and a time above 0")
    load_before = load_average()
    runs: list[ActorsRun] = []
    with tempfile.TemporaryDirectory() as folder:
        if pre_decoded:
            archives = [write_archive(Path(folder) / "tiny.tar", encoded(_TINY), 1)]
        else:
            place = Path(folder) / "archives"
            archives = write_shards(place, shards=_ARCHIVES, images=_IMAGES, seed=_SEED)
        for count in actors:
            watch = _Watch(count, seconds)
            place = Path(folder) / f"{len(runs)}"
            size = _LIGHT_IMAGES if pre_decoded else _IMAGES
            shards = 2 + round(_SPARE * count * seconds * 1000 / image_ms / size)
            loop_shards(place / "in", archives, shards)
            spec = light_spec(
                place / "in", place / "out", actors=count, drivers=min(drivers, count)
            )
            reader = LightRead(images=size) if pre_decoded else shard_reader
            with own_ray(count + _READERS * drivers), suppress(_Enough):
                run_whole(spec, watch, LightModel(image_cost_s=image_ms / 1000), reader)
            runs.append(_figures(watch, image_ms, runs))
    return ActorsBench(image_cost_ms=image_ms, runs=tuple(runs), load_before=load_before)


class _Enough(Exception):
    """Raised in the run to end it: the time is up."""


class _Watch:
    """Observes the pace of a run from when all of its actors work, for some seconds."""

    def __init__(self, actors: int, seconds: float) -> None:
        self.pace = PaceMeter(of=sys.maxsize)
        self.actors = actors
        self.drivers = 1
        self.images = 0
        self._seconds = seconds
        self._begun: float | None = None

    def __call__(self, progress: Progress) -> None:
        if self._begun is None and len(progress.actors) < self.actors:
            return
        self._begun = self._begun or time.monotonic()
        self.pace(progress)
        self.drivers, self.images = progress.load.drivers, progress.images_annotated
        if time.monotonic() - self._begun > self._seconds:
            raise _Enough


def _figures(watch: _Watch, image_ms: float, before: list[ActorsRun]) -> ActorsRun:
    stretch = watch.pace.steady(0.0, 1.0)
    rate = stretch.images_per_s
    one = before[0].images_per_s / before[0].actors if before else rate / watch.actors
    return ActorsRun(
        actors=watch.actors,
        drivers=watch.drivers,
        driver_cores=stretch.cpu_s / stretch.seconds,
        images=watch.images,
        images_per_s=rate,
        images_per_s_possible=1000 * watch.actors / image_ms,
        speedup=rate / one,
    )
