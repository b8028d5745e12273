"""`kosmos2 status` and `stop`: how far a dataset is, and the end of the run that writes it."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Annotated, Any

from cyclopts import Parameter
from cyclopts.validators import Number
from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.text import Text

from jobs.options.groups import AsJson, DatasetArgument, GpuHourCost, named_dataset, with_flags
from jobs.terminal import (
    hours_minutes_seconds,
    json_line,
    pairs_table,
    print_json,
    print_message,
    sparkline,
)
from pipeline.costs.text import cost_lines, money_text
from pipeline.dataset.dataset import open_dataset
from pipeline.dataset.leases import owners
from pipeline.dataset.status import Status
from pipeline.dataset.stop import ask_to_stop
from pipeline.errors import Stalled
from pipeline.exit_codes import ExitCode
from pipeline.logs import printable
from pipeline.spec.access import OutputAccess
from pipeline.spec.partition import WHOLE
from pipeline.storage import OutputStore, open_output

_FAILURES_SHOWN = 10
_WATCH_S = 5.0  # the lease is renewed that often
_BAR_WIDTH = 40
_STOP_POLL_S = 1.0
_SHARE_OF_TIME = 0.2  # that reading may take of the time spent watching


@with_flags
def status_command(
    output: DatasetArgument,
    /,
    *,
    json: AsJson = False,
    watch: bool = False,
    every_s: Annotated[float, Parameter(validator=Number(gt=0))] = _WATCH_S,
    gpu_hour_cost: GpuHourCost = None,
    access: OutputAccess,
) -> int:
    """Show how far the dataset OUTPUT is, during a run or after it, and what it costs.

    ```
    kosmos2 status s3://bucket/out/ --watch
    kosmos2 status s3://bucket/out/ --gpu-hour-cost 2.50
    ```

    Parameters
    ----------
    watch
        Update until the run ends, or until Ctrl-C. If the standard output is not a terminal, print
        one line each time; with --json, one object.
    every_s
        With --watch: seconds from one update to the next; more if reading the status takes long.
    """
    dataset = named_dataset(output, access)

    def read() -> Status:
        return dataset.status(gpu_hour_cost=gpu_hour_cost)

    if watch:
        _watch(read, every_s, as_json=json)
    elif json:
        print_json(asdict(read()))
    else:
        Console().print(_page(read()))
    return ExitCode.DONE


def _watch(read: Callable[[], Status], every_s: float, *, as_json: bool) -> None:
    """Show the status until the run on the dataset ends, or all is done; Ctrl-C ends it, too."""
    console, statuses = Console(), _statuses(read, every_s)
    with suppress(KeyboardInterrupt):
        if as_json:
            for status in statuses:
                print(json_line(asdict(status)), flush=True)
        elif not console.is_terminal:
            for status in statuses:
                print(_line(status), flush=True)
        else:
            with Live(console=console, auto_refresh=False) as live:
                for status in statuses:
                    live.update(Group(_bar(status), _page(status)), refresh=True)


def _statuses(read: Callable[[], Status], every_s: float) -> Iterator[Status]:
    has_run = False
    while True:
        started = time.monotonic()
        status = read()
        yield status
        if has_run and not status.is_running:
            return
        has_run = has_run or status.is_running
        if status.shards_left == 0 and not status.is_running:
            return
        time.sleep(max(every_s, (time.monotonic() - started) / _SHARE_OF_TIME))


def _bar(status: Status) -> RenderableType:
    done, of = status.totals.shards, status.shards_planned
    text = Text(f"{done} of {of} shards, {done / of if of else 1:.0%}")
    bar = ProgressBar(total=max(of, 1), completed=done if of else 1, width=_BAR_WIDTH)
    return Columns([bar, text])


def _line(status: Status) -> str:
    """Return the status in one line."""
    parts = [
        f"{status.totals.shards} of {status.shards_planned} shards",
        f"{len(status.failures)} failed" if status.failures else "",
        f"{status.totals.samples} images",
        *(f"{name}: {text}" for run in status.running for name, text in _short_rows(run)),
    ]
    if status.costs is not None and status.costs.cost is not None:
        parts.append(f"cost so far {money_text(status.costs.cost)}")
    return printable(", ".join(part for part in parts if part))


def _short_rows(run: dict[str, Any]) -> Iterator[tuple[str, object]]:
    wanted = ("images/s", "time left", "limit")
    return ((name, text) for name, text in _run_rows(run) if name in wanted)


def _page(status: Status) -> RenderableType:
    totals = status.totals
    rows = [
        ("shards planned", status.shards_planned),
        ("shards committed", totals.shards),
        ("shards failed", len(status.failures)),
        ("shards left", status.shards_left),
        ("images committed", totals.samples),
        ("images left", "unknown" if status.images_left is None else f"about {status.images_left}"),
        ("annotations", totals.annotated),
        ("rejections", _rejections(status)),
        ("truncated inputs", totals.truncated_shards),
        ("fingerprint", status.fingerprint),
        *([("pace", _pace(status.pace))] if status.pace else []),
        *(cost_lines(status.costs) if status.costs is not None else []),
        *([row for run in status.running for row in _run_rows(run)] or [("running", "no")]),
    ]
    return Group(pairs_table(rows, title=status.output), *_failures(status))


def _pace(pace: Sequence[float]) -> str:
    line = sparkline(pace, _BAR_WIDTH)
    return f"{line} {min(pace):,.1f} to {max(pace):,.1f} images/s while runs worked"


def _rejections(status: Status) -> str:
    reasons = (f"{count}x {reason}" for reason, count in status.reject_reasons.items())
    return "\n".join([str(status.totals.rejected), *reasons])


def _failures(status: Status) -> Iterator[Text]:
    for failure in status.failures[:_FAILURES_SHOWN]:
        text = f"failed: {failure.shard_id} ({failure.attempts}x): {failure.message}"
        yield Text(printable(text))
    if (more := len(status.failures) - _FAILURES_SHOWN) > 0:
        yield Text(f"... and {more} more: use --json to list them")


def _run_rows(run: dict[str, Any]) -> Iterator[tuple[str, object]]:
    owner, progress = run["owner"], run["progress"]
    part = "" if run["partition"] == str(WHOLE) else f"part {run['partition']}: "
    who = f"{part}{owner['host']}, pid {owner['pid']} (run {owner['run_id']})"
    if run["owner_is_dead"]:
        yield "running", f"no: {who} died; run the same command again to resume"
        return
    yield "running", who
    if progress is None:
        return
    yield "images of this run", progress["images_annotated"] + progress["images_rejected"]
    yield (
        "images/s",
        f"{progress['images_per_s_now']:.1f} now, {progress['images_per_s']:.1f} on average",
    )
    if progress["eta_s"] is not None:
        yield "time left", f"about {hours_minutes_seconds(progress['eta_s'])}"
    if progress["engine_busy"] is not None:
        yield "engine busy", f"{progress['engine_busy']:.0%}"
    if (drivers := progress["load"]["drivers"]) > 1:
        yield "drivers", drivers
    if progress["limit"]:
        yield "limit", progress["limit"]
    for actor in progress["actors"]:
        yield "actor", _actor(actor, progress["actor_resources"])


def _actor(actor: dict[str, Any], resources: str) -> str:
    busy = actor["engine_busy"]
    parts = [
        f"{actor['name']}: {actor['images_per_s']:.1f} images/s",
        *([f"engine {busy:.0%} busy"] if busy is not None else []),
        *([f"asked for {resources}"] if resources else []),
    ]
    return ", ".join(parts)


@with_flags
def stop_command(
    output: DatasetArgument,
    /,
    *,
    wait: bool = False,
    timeout_s: float = 120.0,
    access: OutputAccess,
) -> int:
    """Ask the run that is writing OUTPUT to stop. Works from any machine that can reach OUTPUT.

    The run commits the shards that are ready, releases its lease and exits with code 7. To resume,
    run the same `annotate` or `submit` command again.

    ```
    kosmos2 stop s3://bucket/out/ --wait
    ```

    Exit codes: 0 the run was asked to stop (with --wait: it has stopped), or there was none; 5 the
    run did not stop within --timeout.

    Parameters
    ----------
    wait
        Wait until the run has stopped.
    timeout_s
        With --wait: largest number of seconds to wait.
    """
    store = open_output(output, access.output_storage)
    running = owners(store)
    for owner in running:
        ask_to_stop(store, owner.run_id)
        print_message(f"asked to stop: {owner.name}")
    if not running:
        open_dataset(output, access.output_storage)  # or the name is wrong
        print_message(f"no run is writing {store.uri}")
    elif wait:
        _wait_for_end(store, {owner.run_id for owner in running}, timeout_s)
        print_message("stopped; run the same command again to resume")
    return ExitCode.DONE


def _wait_for_end(store: OutputStore, runs: set[str], timeout_s: float) -> None:
    """Wait until the runs have ended. Raises Stalled after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while runs & {owner.run_id for owner in owners(store)}:
        if time.monotonic() > deadline:
            raise Stalled(
                f"the run did not stop within {timeout_s:.0f} s: wait longer with --timeout. If it "
                "died on another machine, run the same annotate command again"
            )
        time.sleep(_STOP_POLL_S)
