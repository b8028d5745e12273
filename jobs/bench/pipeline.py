"""`kosmos2 bench pipeline`: the whole job on Ray around a model that only waits.

Everything else is that of a real job: how busy it keeps the model, and its CPU time, are measured.
"""

import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from jobs.bench.jobs import encoded, loop_shards, run_whole, write_archive
from jobs.bench.light.reader import LightRead
from jobs.bench.local_ray import own_ray
from jobs.bench.machine import BenchResult, load_average
from jobs.bench.observers import CpuMeter
from jobs.bench.paced import PACED_SLOTS, PacedModel
from kosmos2_core.comparison.machine import machine, versions
from kosmos2_core.shapes.world.shards import write_shards
from pipeline.errors import SpecError
from pipeline.execution.read_task import MakeReader, shard_reader
from pipeline.progress import Progress
from pipeline.spec.job import JobSpec

IMAGE_COSTS_MS = (10.0, 2.0)
_SEED = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class PacedRun:
    """`engine_busy`: time that the device computed / time from its first step to the last.

    `images_per_s`: between the first rows and the last. `images_per_s_possible`: with every slot
    in use all the time. `cpu_ms_per_image`: of all processes of the job, without start-up;
    `cpu_ms`: the same by role. `cores`: of the machine that each role kept busy.
    """

    image_cost_ms: float
    engine_busy: float
    images_per_s: float
    images_per_s_possible: float
    cpu_ms_per_image: float
    cpu_ms: dict[str, float]
    cores: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineBench(BenchResult):
    """`engine_busy` and `cpu_ms_per_image` are those of `runs[0]`.

    With `is_pre_decoded`, readers made their tables from nothing.
    """

    engine_busy: float
    cpu_ms_per_image: float
    runs: tuple[PacedRun, ...]
    images: int
    slots: int
    is_pre_decoded: bool
    machine: str = field(default_factory=machine)
    versions: dict[str, str]

    def page(self) -> Iterator[str]:
        for run in self.runs:
            by_role = ", ".join(
                f"{role} {ms:.2f} ms ({run.cores[role]:.0%} of a core)"
                for role, ms in sorted(run.cpu_ms.items())
            )
            yield (
                f"{run.image_cost_ms:g} ms per image: model busy {run.engine_busy:.1%}, "
                f"{run.images_per_s:.0f} of {run.images_per_s_possible:.0f} images/s, "
                f"{run.cpu_ms_per_image:.2f} ms of CPU per image ({by_role})"
            )
        decoded = ", images decoded before" if self.is_pre_decoded else ""
        yield f"{self.slots} slots{decoded}; {self.conditions}"


def bench_pipeline(
    *,
    shards: int,
    images: int,
    costs_ms: Sequence[float] = IMAGE_COSTS_MS,
    slots: int = PACED_SLOTS,
    pre_decoded: bool = False,
) -> PipelineBench:
    """Run the job with each cost per image. Raises SpecError."""
    if shards < 2:
        raise SpecError("at least 2 shards: the first tells what starting costs")
    if slots < 1 or not costs_ms or min(costs_ms) <= 0:
        raise SpecError("--slots is at least 1, and each --image-ms above 0")
    load_before = load_average()
    with own_ray(), tempfile.TemporaryDirectory() as folder:
        inputs = Path(folder) / "shards"
        if pre_decoded:
            image = encoded(np.zeros((1, 1, 3), np.uint8))
            loop_shards(inputs, [write_archive(Path(folder) / "tiny.tar", image, 1)], shards)
        else:
            write_shards(inputs, shards=shards, images=images, seed=_SEED)
        job = JobSpec(input=str(inputs), output=folder, device="cpu", slots=slots)
        reader = LightRead(images=images) if pre_decoded else shard_reader
        watched = partial(_watched, job, reader)
        watched("warm-up", costs_ms[0], limit=1)  # Ray's workers live on, warm
        start_up = watched("start-up", costs_ms[0], limit=1)
        runs = tuple(
            _paced_run(watched(f"{cost_ms:g}-ms", cost_ms), cost_ms, start_up)
            for cost_ms in costs_ms
        )
    return PipelineBench(
        engine_busy=runs[0].engine_busy,
        cpu_ms_per_image=runs[0].cpu_ms_per_image,
        runs=runs,
        images=shards * images,
        slots=slots,
        is_pre_decoded=pre_decoded,
        load_before=load_before,
        versions=versions("ray", "pyarrow", "torch", "simplejpeg"),
    )


class _Watch:
    """Observes the CPU time and the images of a run."""

    def __init__(self) -> None:
        self.cpu = CpuMeter()
        self.progress: Progress | None = None
        self._images_at: list[tuple[float, int]] = []  # whenever there were more

    def __call__(self, progress: Progress) -> None:
        self.progress = progress
        self.cpu.look()
        images = progress.images_annotated
        if images > (self._images_at[-1][1] if self._images_at else 0):
            self._images_at.append((time.monotonic(), images))

    @property
    def images_per_s(self) -> float:
        (begun, before), (ended, after) = self._images_at[0], self._images_at[-1]
        return (after - before) / (ended - begun) if after > before else 0.0


def _watched(
    job: JobSpec, reader: MakeReader, name: str, cost_ms: float, limit: int | None = None
) -> _Watch:
    watch = _Watch()
    spec = job.model_copy(update={"output": f"{job.output}/{name}", "limit": limit})
    slots = job.slots or PACED_SLOTS
    run_whole(spec, watch, PacedModel(image_cost_s=cost_ms / 1000, slots=slots), reader)
    return watch


def _paced_run(watch: _Watch, cost_ms: float, start_up: _Watch) -> PacedRun:
    """Return the figures of a run, less those of `start_up`, a run over one shard."""
    assert watch.progress
    assert watch.progress.engine_busy
    assert start_up.progress
    images = watch.progress.images_annotated - start_up.progress.images_annotated
    before = start_up.cpu.spent_s
    cpu_ms = {
        role: 1000 * (spent_s - before.get(role, 0.0)) / images
        for role, spent_s in watch.cpu.spent_s.items()
    }
    return PacedRun(
        image_cost_ms=cost_ms,
        engine_busy=watch.progress.engine_busy,
        images_per_s=watch.images_per_s,
        images_per_s_possible=1000 / cost_ms,
        cpu_ms_per_image=sum(cpu_ms.values()),
        cpu_ms=cpu_ms,
        cores={role: ms * watch.images_per_s / 1000 for role, ms in cpu_ms.items()},
    )
