"""`kosmos2 annotate` and `retry`: run a job, and show its progress."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from jobs.logs import is_json, log_as
from jobs.options.groups import (
    ConfigFile,
    DatasetArgument,
    JobInput,
    JobOutput,
    LogFormatFlag,
    PrintConfig,
    named_dataset,
    with_flags,
)
from jobs.options.job_file import job_spec, to_yaml
from jobs.remote.naming import job_name
from jobs.terminal import LineTimer, hours_minutes_seconds, print_message
from pipeline.exit_codes import ExitCode
from pipeline.progress import Progress as RunProgress
from pipeline.spec.job import JobOptions, JobSpec, RetryOptions

if TYPE_CHECKING:
    from pipeline.driver.verdict import Verdict

_FAILURES_SHOWN = 10

_log = logging.getLogger(__name__)

_Observer = Callable[[RunProgress], None]


@with_flags
def annotate_command(
    input: JobInput = None,
    output: JobOutput = None,
    /,
    *,
    options: JobOptions,
    config: ConfigFile = None,
    print_config: PrintConfig = False,
    log_format: LogFormatFlag = "text",
) -> int:
    """Annotate every image under INPUT, and write the dataset to OUTPUT as Parquet.

    To resume a run that ended early, run the same command again. Committed shards are kept.

    ```
    kosmos2 annotate s3://bucket/shards/ s3://bucket/out/ \\
        --model microsoft/kosmos-2-patch14-224
    ```

    Exit codes: 0 all shards are committed; 1 unexpected error; 2 wrong usage; 3 some shards failed;
    4 another run is writing OUTPUT; 5 no progress for --stall-timeout; 7 stopped on request, or
    --max-gpu-hours or --max-cost is reached.
    """
    spec = job_spec(input, output, options, config)
    if print_config:
        print(to_yaml(spec), end="")
        return ExitCode.DONE
    log_as(log_format, job_name(spec.output, spec.partition))
    return annotate_and_report(spec)


@with_flags
def retry_command(
    output: DatasetArgument,
    /,
    *,
    options: RetryOptions,
    log_format: LogFormatFlag = "text",
) -> int:
    """Retry what failed in the dataset OUTPUT, with the options in its job.json.

    Without --samples, failed shards are annotated again. With --samples, rejected samples of
    committed shards are annotated again; all other rows stay as they are.

    ```
    kosmos2 retry s3://bucket/out/
    kosmos2 retry s3://bucket/out/ --samples --error-type non_finite_logits
    ```

    Exit codes: 0 all retries are done, even if samples were rejected again; otherwise as
    `annotate`.
    """
    log_as(log_format, job_name(output))
    dataset = named_dataset(output, options)
    return _run_and_report(lambda observe: dataset.retry(observe, **options.model_dump()), output)


def annotate_and_report(spec: JobSpec) -> int:
    """Run the job, show its progress, and return the exit code."""
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
    """Return all figures except those of single actors: there can be hundreds."""
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
            "budget_reached": verdict.budget_reached,
            **_figures(verdict.progress),
        },
    )


def _report(verdict: "Verdict", output: str) -> None:
    print_message(_sum(verdict))
    for failed in verdict.failures[:_FAILURES_SHOWN]:
        print_message(f"failed: {failed.shard_id}: {failed.error_type}: {failed.message}")
    if len(verdict.failures) > _FAILURES_SHOWN:
        print_message(f"... and {len(verdict.failures) - _FAILURES_SHOWN} more: kosmos2 status")
    if verdict.is_out_of_memory:
        print_message(
            "stopped: the memory of an actor ran out; run the same command with fewer --slots",
            style="red",
        )
    elif verdict.is_tripped:
        print_message(
            "stopped: several shards in a row were mostly rejected; see `kosmos2 status`",
            style="red",
        )
    if verdict.is_mostly_rejects:
        print_message(
            "all shards are committed, but most samples were rejected: check the input, and the "
            "reasons in `kosmos2 status`; --max-reject-rate sets the limit",
            style="red",
        )
    elif verdict.budget_reached:
        print_message(
            f"stopped by {verdict.budget_reached}; run the same command with a higher limit to "
            "resume"
        )
    elif verdict.exit_code is ExitCode.STOPPED:
        print_message("stopped on request; run the same command again to resume")
    elif verdict.exit_code is ExitCode.SHARDS_FAILED:
        print_message("run the same command again to retry what is left")
    else:
        print_message(f"dataset: {output}")


def _sum(verdict: "Verdict") -> str:
    progress = verdict.progress
    again = f"; {verdict.store_retries} requests to the store were retried"
    return (
        f"{progress.shards_done} of {progress.shards_total} shards committed; this run annotated "
        f"{progress.images_annotated} images, rejected {progress.images_rejected}, in "
        f"{hours_minutes_seconds(progress.elapsed_s)}{again if verdict.store_retries else ''}"
    )
