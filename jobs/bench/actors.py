"""`kosmos2 bench actors`: throughput of the whole job by number of actors."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from jobs.bench.jobs import light_spec, loop_shards, run_light
from jobs.bench.local_ray import own_ray
from jobs.bench.machine import BenchResult, load_average
from jobs.bench.observers import PaceMeter
from kosmos2_core.shapes.world.shards import write_shards
from pipeline.errors import SpecError

_ARCHIVES, _IMAGES = 4, 128
_SEED = 7
_READERS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class ActorsRun:
    """`speedup`: images per second over those of one actor in the first run."""

    actors: int
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
                f"{run.actors} actors: {run.images_per_s:.1f} of {run.images_per_s_possible:.0f} "
                f"images/s, {run.speedup:.2f}x of one"
            )
        yield f"{self.image_cost_ms:g} ms per image; {self.conditions}"


def bench_actors(*, actors: tuple[int, ...], image_ms: float, seconds: float) -> ActorsBench:
    """Measure each number of actors for `seconds`. Raises SpecError."""
    if not actors or min(actors) < 1 or image_ms <= 0:
        raise SpecError("name at least one number of actors, and a time above 0")
    load_before = load_average()
    with own_ray(max(actors) + _READERS), tempfile.TemporaryDirectory() as folder:
        archives = write_shards(
            Path(folder) / "archives", shards=_ARCHIVES, images=_IMAGES, seed=_SEED
        )
        _run(Path(folder) / "warm-up", archives, actors[0], image_ms / 1000, shards=1)
        runs: list[ActorsRun] = []
        for count in actors:
            shards = max(round(count * seconds * 1000 / image_ms / _IMAGES), 2)
            place = Path(folder) / f"{len(runs)}"
            pace = _run(place, archives, count, image_ms / 1000, shards=shards)
            runs.append(_figures(pace, count, image_ms, shards, runs))
    return ActorsBench(image_cost_ms=image_ms, runs=tuple(runs), load_before=load_before)


def _run(
    folder: Path, archives: list[Path], actors: int, cost_s: float, *, shards: int
) -> PaceMeter:
    loop_shards(folder / "in", archives, shards)
    pace = PaceMeter(of=shards * _IMAGES)
    run_light(light_spec(folder / "in", folder / "out", actors=actors), pace, image_cost_s=cost_s)
    return pace


def _figures(
    pace: PaceMeter, actors: int, image_ms: float, shards: int, before: list[ActorsRun]
) -> ActorsRun:
    rate = pace.steady().images_per_s
    one = before[0].images_per_s / before[0].actors if before else rate / actors
    return ActorsRun(
        actors=actors,
        images=shards * _IMAGES,
        images_per_s=rate,
        images_per_s_possible=1000 * actors / image_ms,
        speedup=rate / one,
    )
