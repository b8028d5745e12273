"""`kosmos2 bench driver`: throughput of one driver, whatever the model."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jobs.bench.jobs import encoded, light_spec, loop_shards, run_light, write_archive
from jobs.bench.local_ray import own_ray
from jobs.bench.machine import BenchResult, load_average
from jobs.bench.observers import PaceMeter
from pipeline.errors import SpecError
from pipeline.reading.shard_reader import GROUP_SIZE

_SIDE = 16  # of the images: readers and actors are not what is measured
_CPUS = 4
_LARGE = 512  # images


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverRun:
    """The rates seen, and the rates that the driver's CPU time allows on a core of its own.

    The driver takes in one block at a time: at most 64 samples of one shard. Readers and actors
    share the machine with the driver and limit the rates seen.
    """

    images_per_shard: int
    blocks_per_shard: int
    shards: int
    shards_seen_per_s: float
    rows_seen_per_s: float
    blocks_seen_per_s: float
    driver_busy: float
    driver_ms_per_shard: float
    driver_ms_per_row: float
    shards_per_s_at_most: float
    rows_per_s_at_most: float
    blocks_per_s_at_most: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverBench(BenchResult):
    """`runs`: one with shards of one image, one with large shards."""

    runs: tuple[DriverRun, ...]

    def page(self) -> Iterator[str]:
        for run in self.runs:
            yield (
                f"shards of {run.images_per_shard} images ({run.blocks_per_shard} blocks): seen "
                f"{run.shards_seen_per_s:.1f} shards/s, {run.blocks_seen_per_s:.1f} blocks/s, "
                f"{run.rows_seen_per_s:.0f} rows/s with the driver {run.driver_busy:.0%} busy; its "
                f"{run.driver_ms_per_shard:.2f} ms per shard ({run.driver_ms_per_row:.3f} ms per "
                f"row) allow at most {run.shards_per_s_at_most:.0f} shards/s, "
                f"{run.blocks_per_s_at_most:.0f} blocks/s, {run.rows_per_s_at_most:.0f} rows/s"
            )
        yield self.conditions


def bench_driver(*, small_shards: int, large_shards: int) -> DriverBench:
    """Measure both kinds of shards. Raises SpecError."""
    if min(small_shards, large_shards) < 8:
        raise SpecError("at least 8 shards of each kind, or there is no pace to tell")
    load_before = load_average()
    with own_ray(_CPUS), tempfile.TemporaryDirectory() as folder:
        _ = _run(Path(folder) / "warm-up", images=1, shards=8)
        runs = (
            _run(Path(folder) / "small", images=1, shards=small_shards),
            _run(Path(folder) / "large", images=_LARGE, shards=large_shards),
        )
    return DriverBench(runs=runs, load_before=load_before)


def _run(folder: Path, *, images: int, shards: int) -> DriverRun:
    folder.mkdir()
    image = encoded(np.zeros((_SIDE, _SIDE, 3), np.uint8))
    archive = write_archive(folder / "tiny.tar", image, images)
    loop_shards(folder / "in", [archive], shards)
    pace = PaceMeter(of=images * shards)
    # An actor's CPUs are those that readers leave; the device takes none of them.
    run_light(light_spec(folder / "in", folder / "out", actors=2), pace, image_cost_s=0.0)
    return _figures(pace, images, shards)


def _figures(pace: PaceMeter, images: int, shards: int) -> DriverRun:
    stretch = pace.steady(0.1, 0.95)
    done = stretch.images / images  # shards are counted when their PUT is through, rows before
    blocks = images // GROUP_SIZE + 1
    shard_s = stretch.cpu_s / done
    return DriverRun(
        images_per_shard=images,
        blocks_per_shard=blocks,
        shards=shards,
        shards_seen_per_s=done / stretch.seconds,
        rows_seen_per_s=stretch.images_per_s,
        blocks_seen_per_s=blocks * done / stretch.seconds,
        driver_busy=stretch.cpu_s / stretch.seconds,
        driver_ms_per_shard=1000 * shard_s,
        driver_ms_per_row=1000 * shard_s / images,
        shards_per_s_at_most=1 / shard_s,
        rows_per_s_at_most=images / shard_s,
        blocks_per_s_at_most=blocks / shard_s,
    )
