"""`kosmos2 annotate` and `retry`: a run with its progress on the terminal or in the log."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from jobs.durations import hours_minutes_seconds
from pipeline.exit_codes import ExitCode
from pipeline.progress import Progress as RunProgress
from pipeline.runner import Verdict, retry, run
from pipeline.spec import JobSpec, RetryOptions

LINE_EVERY_S = 30.0
_FAILURES_SHOWN = 10

Observer = Callable[[RunProgress], None]
Job = Callable[[Observer], Verdict]


def annotate_and_report(spec: JobSpec) -> int:
    """Run the job; the exit code."""
    return _run_and_report(lambda observe: run(spec, observe), spec.output)


def retry_and_report(output: str, options: RetryOptions) -> int:
    """Do again what failed; the exit code."""
    return _run_and_report(lambda observe: retry(output, options, observe), output)


def _run_and_report(job: Job, output: str) -> int:
    console = Console(stderr=True)
    logging.getLogger("pipeline").setLevel(logging.WARNING if console.is_terminal else logging.INFO)
    with _bar(console) if console.is_terminal else _lines(console) as observe:
        verdict = job(observe)
    _report(console, verdict, output)
    return verdict.exit_code


@contextmanager
def _bar(console: Console) -> Iterator[Observer]:
    columns = (
        TextColumn("shards"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False),
    )
    with Progress(*columns, console=console) as bar:
        shards = bar.add_task("starting", total=None)
        yield lambda progress: bar.update(
            shards,
            total=progress.shards_total,
            completed=progress.shards_done,
            description=_pace(progress),
        )


@contextmanager
def _lines(console: Console) -> Iterator[Observer]:
    """A plain line every 30 s: bars are garbage in a log."""
    last = time.monotonic()

    def observe(progress: RunProgress) -> None:
        nonlocal last
        if time.monotonic() - last >= LINE_EVERY_S:
            last = time.monotonic()
            done = f"{progress.shards_done} of {progress.shards_total} shards"
            console.print(f"{done}, {_pace(progress)}", markup=False, highlight=False)

    yield observe


def _pace(progress: RunProgress) -> str:
    if not progress.images_annotated and not progress.images_rejected:
        return "starting the model"
    parts = [
        f"{progress.images_annotated} images",
        f"{progress.images_rejected} rejected" if progress.images_rejected else "",
        f"{progress.shards_failed} shards failed" if progress.shards_failed else "",
        f"{progress.images_per_s:.1f} images/s",
        f"engine {progress.engine_busy:.0%} busy" if progress.engine_busy is not None else "",
        f"{hours_minutes_seconds(progress.eta_s)} left" if progress.eta_s is not None else "",
    ]
    return ", ".join(part for part in parts if part)


def _report(console: Console, verdict: Verdict, output: str) -> None:
    progress = verdict.progress
    console.print(
        f"{progress.shards_done} of {progress.shards_total} shards committed; this run annotated "
        f"{progress.images_annotated} images, rejected {progress.images_rejected}, in "
        f"{hours_minutes_seconds(progress.elapsed_s)}",
        highlight=False,
    )
    for failed in verdict.failures[:_FAILURES_SHOWN]:
        console.print(
            f"failed: {failed.shard_id}: {failed.error_type}: {failed.message}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    if len(verdict.failures) > _FAILURES_SHOWN:
        console.print(f"... and {len(verdict.failures) - _FAILURES_SHOWN} more: kosmos2 status")
    if verdict.is_tripped:
        console.print("stopped: one shard after another was mostly rejected", style="red")
    if verdict.is_mostly_rejects:
        console.print(
            "all is committed, but mostly rejects: look at the input and at `kosmos2 status`; "
            "--max-reject-rate sets how many are too many",
            style="red",
        )
    elif verdict.exit_code is ExitCode.STOPPED:
        console.print("stopped on request; the same command goes on", highlight=False)
    elif verdict.exit_code is ExitCode.SHARDS_FAILED:
        console.print("the same command tries what is left again", highlight=False)
    else:
        console.print(f"dataset: {output}", markup=False, highlight=False, soft_wrap=True)
