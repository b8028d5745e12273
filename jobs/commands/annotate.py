"""`kosmos2 annotate` and `retry`: a run with its progress on the terminal or in the log."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict

from pipeline.driver.verdict import Verdict
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from jobs.durations import hours_minutes_seconds
from jobs.logs import is_json
from pipeline.driver.run import retry, run
from pipeline.exit_codes import ExitCode
from pipeline.progress import Progress as RunProgress
from pipeline.spec.job import JobSpec, RetryOptions

LINE_EVERY_S = 30.0
_FAILURES_SHOWN = 10

_log = logging.getLogger(__name__)

Observer = Callable[[RunProgress], None]
Job = Callable[[Observer], Verdict]


def annotate_and_report(spec: JobSpec) -> int:
    """Run the job; the exit code."""
    return _run_and_report(lambda observe: run(spec, observe), spec.output)


def retry_and_report(output: str, options: RetryOptions) -> int:
    """Do again what failed; the exit code."""
    return _run_and_report(lambda observe: retry(output, options, observe), output)


def _run_and_report(job: Job, output: str) -> int:
    """A bar on a terminal; elsewhere log lines, for bars are garbage in a log."""
    console = Console(stderr=True)
    has_bar = console.is_terminal and not is_json()
    logging.getLogger("pipeline").setLevel(logging.WARNING if has_bar else logging.INFO)
    _log.setLevel(logging.INFO)
    with _bar(console) if has_bar else _lines() as observe:
        verdict = job(observe)
    if is_json():
        _log_verdict(verdict, output)
    else:
        _report(console, verdict, output)
    return verdict.exit_code


def _log_verdict(verdict: Verdict, output: str) -> None:
    """The failures have lines of their own."""
    _log.info(
        "ended with exit code %d: %s",
        verdict.exit_code,
        _sum(verdict),
        extra={
            "exit_code": int(verdict.exit_code),
            "output": output,
            "is_tripped": verdict.is_tripped,
            "is_mostly_rejects": verdict.is_mostly_rejects,
            "store_retries": verdict.store_retries,
            **_figures(verdict.progress),
        },
    )


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
def _lines() -> Iterator[Observer]:
    """One every 30 s."""
    last = time.monotonic()

    def observe(progress: RunProgress) -> None:
        nonlocal last
        if time.monotonic() - last >= LINE_EVERY_S:
            last = time.monotonic()
            done = f"{progress.shards_done} of {progress.shards_total} shards"
            _log.info("%s, %s", done, _pace(progress), extra=_figures(progress))

    yield observe


def _figures(progress: RunProgress) -> dict[str, object]:
    """Without the actors: there may be hundreds."""
    return {name: value for name, value in asdict(progress).items() if name != "actors"}


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


def _sum(verdict: Verdict) -> str:
    progress = verdict.progress
    again = f"; {verdict.store_retries} requests to the store were sent again"
    return (
        f"{progress.shards_done} of {progress.shards_total} shards committed; this run annotated "
        f"{progress.images_annotated} images, rejected {progress.images_rejected}, in "
        f"{hours_minutes_seconds(progress.elapsed_s)}{again if verdict.store_retries else ''}"
    )


def _report(console: Console, verdict: Verdict, output: str) -> None:
    console.print(_sum(verdict), highlight=False)
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
