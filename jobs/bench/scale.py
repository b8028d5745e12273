"""`kosmos2 bench scale`: what planning, resuming and looking cost with ever more shards."""

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from uuid import uuid4

from pipeline.execution.resources import ActorResources
from pipeline.plan.planning import settle_plan
from rich.console import Console
from rich.table import Table

from jobs.bench.local_ray import own_ray
from jobs.bench.models import LightModel
from jobs.bench.world import (
    commit_most,
    forget_reads,
    make_inputs,
    remove,
    scale_spec,
    were_read,
)
from jobs.commands.status import read_status
from pipeline.dataset.dataset import known_record
from pipeline.dataset.ledger import Ledger
from pipeline.dataset.shards import load_plan
from pipeline.driver.run import run
from pipeline.errors import SpecError
from pipeline.execution.graph import annotated_tables
from pipeline.exit_codes import ExitCode
from pipeline.progress import Progress
from pipeline.storage import StorageOptions, open_output
from pipeline.storage.objects import locate

COMMITTED = 0.99


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """`cpu_s` and `peak_mb` of the driver, a process of its own for each figure."""

    seconds: float
    cpu_s: float
    peak_mb: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleRun:
    """`plan`: list and freeze. `graph`: until the first table of a run with nothing committed.
    `resume`: until the first commit of a run with 99 % committed; `finish`: until its verdict,
    `left` shards later. `status` with 99 % committed.

    `committed_inputs_read` and `left_inputs_read` are None where reads cannot be seen.
    """

    shards: int
    left: int
    plan: Cost
    graph: Cost
    resume: Cost
    finish: Cost
    status: Cost
    committed_inputs_read: int | None
    left_inputs_read: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleBench:
    runs: tuple[ScaleRun, ...]
    at: str
    cpus: int | None
    load_before: float


def bench_scale(*, shards: tuple[int, ...], at: str | None) -> ScaleBench:
    """`at` is a directory or s3:// prefix to work under. Raises SpecError."""
    if not shards or min(shards) < 100:
        raise SpecError("name at least one number of shards, of 100 or more")
    if at is not None:
        locate(at)
    load_before = os.getloadavg()[0]
    runs = []
    for count in shards:
        with _place(at) as root:
            runs.append(_run(root, count))
    return ScaleBench(
        runs=tuple(runs),
        at=at or "a directory",
        cpus=os.cpu_count(),
        load_before=load_before,
    )


@contextmanager
def _place(at: str | None) -> Iterator[str]:
    if at is not None and at.startswith("s3://"):
        root = f"{at.rstrip('/')}/{uuid4().hex[:12]}"
        try:
            yield root
        finally:
            remove(root)
    else:
        with tempfile.TemporaryDirectory(dir=at) as folder:
            yield folder


def _run(root: str, shards: int) -> ScaleRun:
    make_inputs(root, shards)
    plan = _in_a_process(_plan, root)[0]
    left = commit_most(root, COMMITTED)
    status = _in_a_process(_status, root)[0]
    graph = _in_a_process(_graph, root)[0]
    resumed = resume(root)
    return ScaleRun(
        shards=shards,
        left=left,
        plan=plan,
        graph=graph,
        resume=resumed.first_commit,
        finish=resumed.verdict,
        status=status,
        committed_inputs_read=resumed.committed_inputs_read,
        left_inputs_read=resumed.left_inputs_read,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumed:
    first_commit: Cost
    verdict: Cost
    committed_inputs_read: int | None
    left_inputs_read: int | None


def resume(root: str) -> Resumed:
    """Run the job there to its end, and see what it read of which inputs."""
    spec = scale_spec(root)
    store = open_output(spec.output)
    plan, committed = load_plan(store), Ledger(store).committed()
    assert plan is not None
    done = {shard.uri for shard in plan.shards if shard.shard_id in committed}
    is_seen = not root.startswith("s3://")
    if is_seen:
        forget_reads(spec)
    first_commit, verdict = _in_a_process(_resume, root)
    read = were_read(spec) if is_seen else set[str]()
    return Resumed(
        first_commit=first_commit,
        verdict=verdict,
        committed_inputs_read=len(read & done) if is_seen else None,
        left_inputs_read=len(read - done) if is_seen else None,
    )


def _in_a_process(step: Callable[[str], tuple[Cost, ...]], root: str) -> tuple[Cost, ...]:
    """One that has done nothing else, so that its peak is the step's."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(step, root).result()


def _plan(root: str) -> tuple[Cost, ...]:
    spec = scale_spec(root)
    clock = _Clock()
    settle_plan(open_output(spec.output), spec)
    return (clock.cost(),)


def _status(root: str) -> tuple[Cost, ...]:
    clock = _Clock()
    read_status(scale_spec(root).output, StorageOptions())
    return (clock.cost(),)


def _graph(root: str) -> tuple[Cost, ...]:
    spec = scale_spec(root)
    store = open_output(spec.output)
    plan, record = load_plan(store), known_record(store)
    assert plan is not None
    with own_ray():
        clock = _Clock()
        tables = annotated_tables(
            plan.shards,
            spec,
            record.identity,
            ActorResources(num_cpus=1, num_gpus=0),
            slots=record.slots_of(spec),
            load=LightModel(image_cost_s=0.0),
        )
        next(tables)
        return (clock.cost(),)


def _resume(root: str) -> tuple[Cost, ...]:
    first: list[Cost] = []
    before: list[int] = []

    def observe(progress: Progress) -> None:
        before[:] = before or [progress.shards_done]
        if not first and progress.shards_done > before[0]:
            first.append(clock.cost())

    with own_ray():
        clock = _Clock()
        verdict = run(scale_spec(root), observe, load=LightModel(image_cost_s=0.0))
        finish = clock.cost()
    if verdict.exit_code is not ExitCode.DONE:
        raise SpecError(f"the job did not get through: {verdict.failures[:1]}")
    return (first[0] if first else finish, finish)


class _Clock:
    def __init__(self) -> None:
        self._begun = time.monotonic(), time.process_time()

    def cost(self) -> Cost:
        """Since its making."""
        at, cpu_s = self._begun
        return Cost(
            seconds=time.monotonic() - at, cpu_s=time.process_time() - cpu_s, peak_mb=_peak_mb()
        )


def _peak_mb() -> float:
    """Of resident memory. Not getrusage's, which begins with that of whoever started us."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise SpecError("this benchmark needs Linux, for /proc/self/status")


def print_scale(found: ScaleBench) -> None:
    table = Table("shards", *_STEPS, "committed inputs read", title=found.at)
    for run_ in found.runs:
        costs = (getattr(run_, step) for step in _STEPS)
        seen = run_.committed_inputs_read
        table.add_row(
            f"{run_.shards:,}",
            *(
                f"{cost.seconds:.1f} s, {cost.cpu_s:.1f} s CPU, {cost.peak_mb:.0f} MB"
                for cost in costs
            ),
            "cannot be seen" if seen is None else f"{seen}; {run_.left_inputs_read} others",
        )
    console = Console()
    console.print(table)
    console.print(f"{found.cpus} CPUs, load {found.load_before:.1f} before the start")


_STEPS = ("plan", "graph", "resume", "finish", "status")
