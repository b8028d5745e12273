"""`kosmos2 bench scale`: cost of planning, resuming and status by number of shards."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

from jobs.bench.jobs import run_whole
from jobs.bench.light.model import LightModel
from jobs.bench.local_ray import own_ray
from jobs.bench.machine import BenchResult, load_average
from jobs.bench.world import (
    commit_most,
    forget_reads,
    make_inputs,
    scale_spec,
    were_read,
    workplace,
)
from jobs.terminal import DataTable
from pipeline.dataset.dataset import known_record
from pipeline.dataset.ledger import Ledger
from pipeline.dataset.shards import load_plan
from pipeline.dataset.status import read_status
from pipeline.errors import SpecError
from pipeline.execution.graph import RayTables
from pipeline.execution.resources import ActorResources
from pipeline.plan.planning import settle_plan
from pipeline.progress import Progress
from pipeline.storage import StorageOptions, open_output
from pipeline.storage.objects import locate

_T = TypeVar("_T")

COMMITTED = 0.99
_STEPS = ("plan", "graph", "resume", "finish", "status")


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCost:
    """Cost of one step to the driver, measured in a new process."""

    seconds: float
    cpu_s: float
    peak_mb: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleRun:
    """Costs of one job.

    `plan`: list and freeze the inputs. `graph`: start with nothing committed, until the first
    table. `resume`: start with 99 % committed, until the first commit. `finish`: the same run
    until its verdict, `left` shards later. `status`: with 99 % committed.
    The counts of inputs read are None on S3, where reads cannot be seen.
    """

    shards: int
    left: int
    plan: StepCost
    graph: StepCost
    resume: StepCost
    finish: StepCost
    status: StepCost
    committed_inputs_read: int | None
    left_inputs_read: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleBench(BenchResult):
    runs: tuple[ScaleRun, ...]
    at: str

    def page(self) -> Iterator[str | DataTable]:
        table = DataTable("shards", *_STEPS, "committed inputs read", title=self.at)
        for run in self.runs:
            costs = (getattr(run, step) for step in _STEPS)
            seen = run.committed_inputs_read
            table.add_row(
                f"{run.shards:,}",
                *(
                    f"{cost.seconds:.1f} s, {cost.cpu_s:.1f} s CPU, {cost.peak_mb:.0f} MB"
                    for cost in costs
                ),
                "cannot be seen" if seen is None else f"{seen}; {run.left_inputs_read} others",
            )
        yield table
        yield self.conditions


def bench_scale(*, shards: tuple[int, ...], at: str | None) -> ScaleBench:
    """Measure each number of shards under `at`, a directory or s3:// prefix. Raises SpecError."""
    if not shards or min(shards) < 100:
        raise SpecError("name at least one number of shards, of 100 or more")
    if at is not None:
        locate(at)
    load_before = load_average()
    runs = []
    for count in shards:
        with workplace(at) as root:
            runs.append(_run(root, count))
    return ScaleBench(runs=tuple(runs), at=at or "a directory", load_before=load_before)


def _run(root: str, shards: int) -> ScaleRun:
    make_inputs(root, shards)
    plan = _in_a_process(_plan, root)
    left = commit_most(root, COMMITTED)
    status = _in_a_process(_status, root)
    graph = _in_a_process(_graph, root)
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
    first_commit: StepCost
    verdict: StepCost
    committed_inputs_read: int | None
    left_inputs_read: int | None


def resume(root: str) -> Resumed:
    """Run the job under `root` to its end, and count the inputs that it read."""
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


def _in_a_process(step: Callable[[str], _T], root: str) -> _T:
    """Run a step in a new process, so that the peak memory is the step's."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(step, root).result()


def _plan(root: str) -> StepCost:
    spec = scale_spec(root)
    clock = _Clock()
    settle_plan(open_output(spec.output), spec)
    return clock.cost()


def _status(root: str) -> StepCost:
    clock = _Clock()
    read_status(scale_spec(root).output, StorageOptions())
    return clock.cost()


def _graph(root: str) -> StepCost:
    spec = scale_spec(root)
    store = open_output(spec.output)
    plan, record = load_plan(store), known_record(store)
    assert plan is not None
    with own_ray():
        clock = _Clock()
        source = RayTables(LightModel(image_cost_s=0.0))
        resources = ActorResources(num_cpus=1, num_gpus=0)
        next(iter(source.tables(plan.shards, spec, record.model, resources)))
        return clock.cost()


def _resume(root: str) -> tuple[StepCost, StepCost]:
    first: list[StepCost] = []
    before: list[int] = []

    def observe(progress: Progress) -> None:
        before[:] = before or [progress.shards_done]
        if not first and progress.shards_done > before[0]:
            first.append(clock.cost())

    with own_ray():
        clock = _Clock()
        run_whole(scale_spec(root), observe, LightModel(image_cost_s=0.0))
        finish = clock.cost()
    return first[0] if first else finish, finish


class _Clock:
    def __init__(self) -> None:
        self._begun = time.monotonic(), time.process_time()

    def cost(self) -> StepCost:
        """Return the cost since the clock was made."""
        at, cpu_s = self._begun
        return StepCost(
            seconds=time.monotonic() - at, cpu_s=time.process_time() - cpu_s, peak_mb=_peak_mb()
        )


def _peak_mb() -> float:
    """Return the peak of resident memory. getrusage's would include the parent's."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise SpecError("this benchmark needs Linux, for /proc/self/status")
