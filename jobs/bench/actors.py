"""`kosmos2 bench actors`: throughput of the whole job by number of actors."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
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
_TABLE = 64  # images of a table, and of a shard with --pre-decoded
_READERS = 2  # per driver
_TINY = np.zeros((1, 1, 3), np.uint8)


@dataclass(frozen=True, slots=True, kw_only=True)
class ActorsRun:
    """`speedup`: images per second over those of one actor in the first run.

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
    with own_ray(max(actors) + _READERS * drivers), tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        if pre_decoded:
            archives, images = [write_archive(place / "tiny.tar", encoded(_TINY), 1)], _TABLE
        else:
            archives = write_shards(
                place / "archives", shards=_ARCHIVES, images=_IMAGES, seed=_SEED
            )
            images = _IMAGES
        jobs = _Jobs(place, archives, images, image_ms / 1000, drivers, pre_decoded=pre_decoded)
        jobs.run(1, shards=1)  # to warm up
        runs: list[ActorsRun] = []
        for count in actors:
            shards = max(round(count * seconds * 1000 / image_ms / images), 2)
            runs.append(_figures(jobs.run(count, shards), count, image_ms, shards * images, runs))
    return ActorsBench(image_cost_ms=image_ms, runs=tuple(runs), load_before=load_before)


class _Watch:
    """Observes the pace of a run, and the number of its drivers."""

    def __init__(self, images: int) -> None:
        self.pace = PaceMeter(of=images)
        self.drivers = 1

    def __call__(self, progress: Progress) -> None:
        self.pace(progress)
        self.drivers = progress.load.drivers


@dataclass(slots=True)
class _Jobs:
    """Jobs of any number of actors over archives that are repeated as often as is necessary."""

    folder: Path
    archives: list[Path]
    images: int  # of a shard
    image_cost_s: float
    drivers: int
    pre_decoded: bool = field(kw_only=True)
    _number: int = 0

    def run(self, actors: int, shards: int) -> _Watch:
        self._number += 1
        place = self.folder / f"{self._number}"
        loop_shards(place / "in", self.archives, shards)
        watch = _Watch(shards * self.images)
        drivers = min(self.drivers, actors)
        spec = light_spec(place / "in", place / "out", actors=actors, drivers=drivers)
        reader = LightRead(images=self.images) if self.pre_decoded else shard_reader
        run_whole(spec, watch, LightModel(image_cost_s=self.image_cost_s), reader)
        return watch


def _figures(
    watch: _Watch, actors: int, image_ms: float, images: int, before: list[ActorsRun]
) -> ActorsRun:
    stretch = watch.pace.steady()
    rate = stretch.images_per_s
    one = before[0].images_per_s / before[0].actors if before else rate / actors
    return ActorsRun(
        actors=actors,
        drivers=watch.drivers,
        driver_cores=stretch.cpu_s / stretch.seconds,
        images=images,
        images_per_s=rate,
        images_per_s_possible=1000 * actors / image_ms,
        speedup=rate / one,
    )
