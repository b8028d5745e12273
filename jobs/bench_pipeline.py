"""`kosmos2 bench pipeline`: the whole job on Ray around a model that only takes its time.

Readers, actors, engine thread, parser and committer are those of every job. How busy they keep
the model, and what they cost the processors meanwhile, is their own doing.
"""

import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from jobs.benchmarking import machine, versions, write_json
from jobs.cpu_meter import CpuMeter
from jobs.paced_model import SLOTS, PacedModel
from kosmos2_core.shapes.world import write_shards
from pipeline.errors import SpecError
from pipeline.exit_codes import ExitCode
from pipeline.progress import Progress
from pipeline.runner import run
from pipeline.spec import JobSpec

IMAGE_COST_MS, FAST_IMAGE_COST_MS = 10.0, 2.0
_SEED = 7
_LOOK_EVERY_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PacedRun:
    """`engine_busy`: time inside the model's calls / time from its first to its last.

    `images_per_s` beside `images_per_s_possible`, with every slot in use all the time.
    `cpu_ms_per_image`: of all processes of the job, from the first rows on; `cpu_ms` by process.
    """

    image_cost_ms: float
    engine_busy: float
    images_per_s: float
    images_per_s_possible: float
    cpu_ms_per_image: float
    cpu_ms: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineBench:
    """The figures at the top are those of `runs[0]`."""

    engine_busy: float
    cpu_ms_per_image: float
    runs: tuple[PacedRun, ...]
    images: int
    slots: int
    machine: str
    cpus: int | None
    load_before: float
    versions: dict[str, str]


def bench_pipeline(*, shards: int, images: int, json_path: Path | None) -> None:
    """Raises SpecError on a cluster, whose processes cannot be looked at from here."""
    if "RAY_ADDRESS" in os.environ:
        raise SpecError(
            "this benchmark runs on a Ray of its own, on this machine: unset RAY_ADDRESS"
        )
    load_before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        inputs = Path(folder) / "shards"
        write_shards(inputs, shards=shards, images=images, seed=_SEED)
        costs_ms = (IMAGE_COST_MS, FAST_IMAGE_COST_MS)
        runs = tuple(
            _paced_run(inputs, Path(folder) / f"out-{cost_ms}", cost_ms) for cost_ms in costs_ms
        )
    found = PipelineBench(
        engine_busy=runs[0].engine_busy,
        cpu_ms_per_image=runs[0].cpu_ms_per_image,
        runs=runs,
        images=shards * images,
        slots=SLOTS,
        machine=machine(),
        cpus=os.cpu_count(),
        load_before=load_before,
        versions=versions("ray", "pyarrow", "torch", "simplejpeg"),
    )
    Console().print(_said(found), highlight=False, soft_wrap=True)
    if json_path is not None:
        write_json(found, json_path)


def _paced_run(inputs: Path, output: Path, cost_ms: float) -> PacedRun:
    spec = JobSpec(input=str(inputs), output=str(output), device="cpu", slots=SLOTS)
    watch = _Watch()
    verdict = run(spec, watch, load=PacedModel(image_cost_s=cost_ms / 1000))
    busy = verdict.progress.engine_busy
    if verdict.exit_code is not ExitCode.DONE or busy is None:
        raise SpecError(f"the job did not get through: {verdict.failures[:1]}")
    cpu_ms = {name: 1000 * cpu_s / watch.images for name, cpu_s in watch.cpu.spent_s.items()}
    return PacedRun(
        image_cost_ms=cost_ms,
        engine_busy=busy,
        images_per_s=watch.images / watch.span_s,
        images_per_s_possible=1000 / cost_ms,
        cpu_ms_per_image=sum(cpu_ms.values()),
        cpu_ms=cpu_ms,
    )


class _Watch:
    """Looks at a run now and then, from its first rows to its last."""

    def __init__(self) -> None:
        self.images = 0
        self.span_s = 0.0
        self.cpu = CpuMeter()
        self._begun: tuple[float, int] | None = None
        self._next_look = 0.0

    def __call__(self, progress: Progress) -> None:
        now, images = time.monotonic(), progress.images_annotated
        if now < self._next_look or not images:
            return
        self._next_look = now + _LOOK_EVERY_S
        if self._begun is None:
            self._begun = now, images
            self.cpu.start()
        elif images > self._begun[1] + self.images:
            self.images, self.span_s = images - self._begun[1], now - self._begun[0]
            self.cpu.look()


def _said(found: PipelineBench) -> str:
    lines = [
        f"{run.image_cost_ms:g} ms per image: model busy {run.engine_busy:.1%}, "
        f"{run.images_per_s:.0f} of {run.images_per_s_possible:.0f} images/s, "
        f"{run.cpu_ms_per_image:.2f} ms of CPU per image "
        f"({', '.join(f'{role} {ms:.2f}' for role, ms in sorted(run.cpu_ms.items()))})"
        for run in found.runs
    ]
    return "\n".join([*lines, f"{found.cpus} CPUs, load {found.load_before:.1f} before the start"])
