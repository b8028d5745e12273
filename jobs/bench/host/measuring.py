"""Images per CPU second of the engine's loop, and of a whole actor, without Ray."""

import gc
import statistics
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from jobs.bench.host.answers import scripted_answers
from jobs.bench.host.device import FreeEngine
from jobs.bench.machine import BenchResult, cpu_s, load_average
from jobs.terminal import DataTable
from kosmos2_core.annotator import Annotator
from kosmos2_core.comparison.machine import one_torch_thread, versions
from kosmos2_core.comparison.workload import BRIEF_LENGTHS, DETAILED_LENGTHS, Lengths
from kosmos2_core.engine.requests import Request
from kosmos2_core.generation import Generation
from kosmos2_core.prompts.encoder import PromptEncoder
from kosmos2_core.prompts.tasks import BRIEF, DETAILED, Task
from kosmos2_core.shared_annotator import SharedAnnotator
from pipeline.execution.annotate.actor import collect_garbage_rarely, switch_threads_often
from pipeline.execution.annotate.tables import TableAnnotator
from pipeline.execution.sizes import calls_per_actor, rows_per_table
from pipeline.schema import READ
from pipeline.spec.job import JobSpec

_LOOP = 5_000_000  # iterations of the empty loop that machines are compared by
_SCRIPTS = 1024  # different answers
_IMAGES = 64  # different ones


@dataclass(frozen=True, slots=True, kw_only=True)
class HostCost:
    """`loop_iterations_per_image`: iterations of `while done < n: done += 1` that take as long."""

    images_per_cpu_s: float
    loop_iterations_per_image: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskCost:
    """`engine`: its loop alone. `actor`: with tables, prompts, parsing, flags and rows."""

    engine: HostCost
    actor: HostCost


@dataclass(frozen=True, slots=True, kw_only=True)
class HostBench(BenchResult):
    """Medians of `repeats`, for `images` brief answers and half as many detailed ones."""

    brief: TaskCost
    detailed: TaskCost
    slots: int
    images: int
    repeats: int
    versions: dict[str, str]

    def page(self) -> Iterator[str | DataTable]:
        table = DataTable(title="Host work per image, with a device that costs nothing")
        for name in ("task", "part", "images per CPU second", "loop iterations per image"):
            table.add_column(name)
        for task, found in (("brief", self.brief), ("detailed", self.detailed)):
            for part, cost in (("engine", found.engine), ("actor", found.actor)):
                table.add_row(
                    task,
                    part,
                    f"{cost.images_per_cpu_s:,.0f}",
                    f"{cost.loop_iterations_per_image:,.0f}",
                )
        yield table
        yield f"{self.slots} slots, {self.images} images, medians of {self.repeats}"
        yield self.conditions


def bench_host(*, images: int, repeats: int, slots: int = 256) -> HostBench:
    """Measure the CPU time of this process for `images` brief answers and half as many
    detailed ones.
    """
    load_before = load_average()
    with one_torch_thread():
        brief = _task_cost(BRIEF, BRIEF_LENGTHS, images=images, repeats=repeats, slots=slots)
        detailed = _task_cost(
            DETAILED, DETAILED_LENGTHS, images=images // 2, repeats=repeats, slots=slots
        )
    return HostBench(
        brief=brief,
        detailed=detailed,
        slots=slots,
        images=images,
        repeats=repeats,
        load_before=load_before,
        versions=versions("torch", "numpy", "pyarrow"),
    )


def _task_cost(task: Task, lengths: Lengths, *, images: int, repeats: int, slots: int) -> TaskCost:
    annotator = Annotator.from_pretrained(
        "shapes", device="cpu", generation=Generation(slots=slots), keep_model=True
    )
    eos = annotator.checkpoint.tokenizer.eos_token_id
    answers = scripted_answers(
        annotator.checkpoint.vocabulary, eos, lengths=lengths, count=_SCRIPTS
    )
    engine = FreeEngine(annotator.checkpoint, answers, slots)
    with _interpreter_of_an_actor():
        return TaskCost(
            engine=_cost(_engine_run(annotator, engine, task, images), images, repeats),
            actor=_cost(_actor_run(annotator, engine, task, images, slots), images, repeats),
        )


def _cost(run: Callable[[], object], images: int, repeats: int) -> HostCost:
    run()  # what is only set up in a first call is no part of it
    found = [(cpu_s(run), cpu_s(_empty_loop)) for _ in range(repeats)]
    return HostCost(
        images_per_cpu_s=images / statistics.median(run_s for run_s, _ in found),
        loop_iterations_per_image=statistics.median(
            run_s / images / (loop_s / _LOOP) for run_s, loop_s in found
        ),
    )


def _empty_loop() -> None:
    done = 0
    while done < _LOOP:
        done += 1


def _engine_run(
    annotator: Annotator, engine: FreeEngine, task: Task, images: int
) -> Callable[[], object]:
    prompt = PromptEncoder(annotator.checkpoint).encode(task, {}).prompt
    pixels = _pixels()

    def run() -> None:
        requests = (
            Request(id=n, pixels=pixels[n % len(pixels)], prompts=(prompt,)) for n in range(images)
        )
        _check(sum(1 for _ in engine.generate(requests)), images)

    return run


def _actor_run(
    annotator: Annotator, engine: FreeEngine, task: Task, images: int, slots: int
) -> Callable[[], object]:
    spec = JobSpec(input="in", output="out", task=(task.name,))
    actor = TableAnnotator(spec, SharedAnnotator(annotator, engine))
    table, calls = _table(rows_per_table(slots)), calls_per_actor(slots)
    tables = [table.slice(0, min(len(table), images - n)) for n in range(0, images, len(table))]

    def run() -> None:
        with ThreadPoolExecutor(calls) as pool:
            found = list(pool.map(actor, tables))
        _check(sum(len(each["annotated"].drop_null()) for each in found), images)

    return run


def _check(found: int, images: int) -> None:
    if found != images:
        raise AssertionError(f"{found} answers to {images} images")


def _pixels() -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (_IMAGES, 3, 224, 224), np.uint8)


def _table(rows: int) -> pa.Table:
    """Return samples as the readers of a job make them."""
    pixels = [each.tobytes() for each in _pixels()]
    return pa.Table.from_pylist(
        [
            {"shard_id": "a", "sample": _sample(index), "pixels": pixels[index % len(pixels)]}
            for index in range(rows)
        ],
        schema=READ,
    )


def _sample(index: int) -> dict[str, object]:
    return {
        "index": index,
        "key": f"{index:09d}",
        "uri": "s3://bucket/images/00000.tar",
        "member": f"{index:09d}.jpg",
        "image_offset": 100_000 * index,
        "image_size": 99_000,
        "image_sha256": bytes(32),
        "width": 640,
        "height": 480,
        "exif_orientation": 1,
        "metadata": '{"caption": "an old caption of the image, of some length"}',
        "issues": [],
    }


@contextmanager
def _interpreter_of_an_actor() -> Iterator[None]:
    """Set the interpreter as an actor does after loading."""
    interval, threshold = sys.getswitchinterval(), gc.get_threshold()
    switch_threads_often()
    collect_garbage_rarely()
    try:
        yield
    finally:
        gc.unfreeze()
        gc.set_threshold(*threshold)
        sys.setswitchinterval(interval)
