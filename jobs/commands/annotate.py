"""`kosmos2 annotate` and `retry`: a run with its progress on the terminal or in the log."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from jobs.logs import is_json, log_as
from jobs.options.groups import (
    JOB_DEFAULTS,
    RETRY_DEFAULTS,
    ConfigFile,
    DatasetArgument,
    JobFlags,
    JobInput,
    JobOutput,
    LogFormatFlag,
    RetryFlags,
)
from jobs.options.job_file import job_spec, to_yaml
from jobs.remote.naming import job_name
from jobs.terminal import LineTimer, hours_minutes_seconds, print_message
from pipeline.exit_codes import ExitCode
from pipeline.progress import Progress as RunProgress
from pipeline.spec.job import JobSpec, RetryOptions

if TYPE_CHECKING:
    from pipeline.driver.verdict import Verdict

_FAILURES_SHOWN = 10

_log = logging.getLogger(__name__)

_Observer = Callable[[RunProgress], None]


def annotate_command(
    input: JobInput = None,
    output: JobOutput = None,
    /,
    *,
    options: JobFlags = JOB_DEFAULTS,
    config: ConfigFile = None,
    print_config: bool = False,
    log_format: LogFormatFlag = "text",
) -> int:
    """Annotate every image of the shards under INPUT into Parquet under OUTPUT.

    The same command again resumes: finished shards are neither read nor written again.

    ```
    kosmos2 annotate s3://bucket/shards/ s3://bucket/out/ \\
        --model microsoft/kosmos-2-patch14-224
    ```

    Exit codes: 0 all shards committed, 2 wrong usage, 3 some shards failed, 4 another run is at
    work on OUTPUT, 5 stalled, 7 stopped on request, 1 anything else.

    Parameters
    ----------
    print_config
        Write a file for --config to the standard output, instead of annotating anything.
    """
    spec = job_spec(input, output, options, config)
    if print_config:
        print(to_yaml(spec), end="")
        return ExitCode.DONE
    log_as(log_format, job_name(spec.output, spec.partition))
    return annotate_and_report(spec)


def retry_command(
    output: DatasetArgument,
    /,
    *,
    options: RetryFlags = RETRY_DEFAULTS,
    log_format: LogFormatFlag = "text",
) -> int:
    """Annotate again what failed under OUTPUT, as its job.json says.

    Failed shards are tried as if they never had been. With --samples, committed shards that hold
    rejected samples are rewritten: those samples get their annotations, no other row changes.

    ```
    kosmos2 retry s3://bucket/out/
    kosmos2 retry s3://bucket/out/ --samples --error-type non_finite_logits
    ```

    Exit codes: 0 all of it was done (a sample may be rejected again), otherwise as `annotate`.
    """
    from pipeline.driver.run import retry

    log_as(log_format, job_name(output))
    typed = RetryOptions(**options.model_dump())
    return _run_and_report(lambda observe: retry(output, typed, observe), output)


def annotate_and_report(spec: JobSpec) -> int:
    """Run the job, show how it goes, and return the exit code."""
    from pipeline.driver.run import run

    return _run_and_report(lambda observe: run(spec, observe), spec.output)


def _run_and_report(run: "Callable[[_Observer], Verdict]", output: str) -> int:
    """Show progress as a bar on a terminal, elsewhere as log lines."""
    console = Console(stderr=True)
    has_bar = console.is_terminal and not is_json()
    logging.getLogger("pipeline").setLevel(logging.WARNING if has_bar else logging.INFO)
    _log.setLevel(logging.INFO)
    with _bar(console) if has_bar else _lines() as observe:
        verdict = run(observe)
    if is_json():
        _log_verdict(verdict, output)
    else:
        _report(verdict, output)
    return verdict.exit_code


@contextmanager
def _bar(console: Console) -> Iterator[_Observer]:
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
def _lines() -> Iterator[_Observer]:
    timer = LineTimer()

    def observe(progress: RunProgress) -> None:
        if timer.is_due():
            done = f"{progress.shards_done} of {progress.shards_total} shards"
            _log.info("%s, %s", done, _pace(progress), extra=_figures(progress))

    yield observe


def _figures(progress: RunProgress) -> dict[str, object]:
    """Return all figures but those of each actor: there may be hundreds."""
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


def _log_verdict(verdict: "Verdict", output: str) -> None:
    """Log the end of a run. Failed shards were logged when they failed."""
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


def _report(verdict: "Verdict", output: str) -> None:
    print_message(_sum(verdict))
    for failed in verdict.failures[:_FAILURES_SHOWN]:
        print_message(f"failed: {failed.shard_id}: {failed.error_type}: {failed.message}")
    if len(verdict.failures) > _FAILURES_SHOWN:
        print_message(f"... and {len(verdict.failures) - _FAILURES_SHOWN} more: kosmos2 status")
    if verdict.is_tripped:
        print_message("stopped: one shard after another was mostly rejected", style="red")
    if verdict.is_mostly_rejects:
        print_message(
            "all is committed, but mostly rejects: look at the input and at `kosmos2 status`; "
            "--max-reject-rate sets how many are too many",
            style="red",
        )
    elif verdict.exit_code is ExitCode.STOPPED:
        print_message("stopped on request; the same command goes on")
    elif verdict.exit_code is ExitCode.SHARDS_FAILED:
        print_message("the same command tries what is left again")
    else:
        print_message(f"dataset: {output}")


def _sum(verdict: "Verdict") -> str:
    progress = verdict.progress
    again = f"; {verdict.store_retries} requests to the store were sent again"
    return (
        f"{progress.shards_done} of {progress.shards_total} shards committed; this run annotated "
        f"{progress.images_annotated} images, rejected {progress.images_rejected}, in "
        f"{hours_minutes_seconds(progress.elapsed_s)}{again if verdict.store_retries else ''}"
    )
