"""`kosmos2 status` and `stop`: how far a dataset is, and the end of the run that writes it."""

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from jobs.options.groups import (
    ACCESS_DEFAULTS,
    AccessFlags,
    AsJson,
    DatasetArgument,
    GpuHourCost,
    named_dataset,
)
from jobs.terminal import hours_minutes_seconds, json_line, pairs_table, print_json, print_message
from pipeline.costs.text import cost_lines
from pipeline.dataset.dataset import open_dataset
from pipeline.dataset.status import Status
from pipeline.dataset.stop import ask_to_stop
from pipeline.errors import Stalled
from pipeline.exit_codes import ExitCode
from pipeline.spec.partition import WHOLE
from pipeline.storage import OutputStore, open_output
from pipeline.verification.outputs import owners

_FAILURES_SHOWN = 10
_WATCH_S = 5.0  # the lease is renewed that often
_STOP_POLL_S = 1.0
_SHARE_OF_TIME = 0.2  # that reading may take of the time spent watching


def status_command(
    output: DatasetArgument,
    /,
    *,
    json: AsJson = False,
    watch: bool = False,
    gpu_hour_cost: GpuHourCost = None,
    access: AccessFlags = ACCESS_DEFAULTS,
) -> int:
    """Show how far the dataset OUTPUT is, during a run or after it, and what it costs.

    ```
    kosmos2 status s3://bucket/out/ --watch
    kosmos2 status s3://bucket/out/ --gpu-hour-cost 2.50
    ```

    Parameters
    ----------
    watch
        Update every 5 s until the run ends; less often if reading the status takes long. With
        --json, print one object per line.
    """
    dataset = named_dataset(output, access)

    def read() -> Status:
        return dataset.status(gpu_hour_cost=gpu_hour_cost)

    if watch:
        _watch(read, as_json=json)
    elif json:
        print_json(asdict(read()))
    else:
        Console().print(_page(read()))
    return ExitCode.DONE


def _watch(read: Callable[[], Status], *, as_json: bool) -> None:
    """Show the status until the run on the dataset ends, or all is done."""
    if as_json:
        for status in _statuses(read):
            print(json_line(asdict(status)), flush=True)
        return
    with Live(console=Console(), auto_refresh=False) as live:
        for status in _statuses(read):
            live.update(_page(status), refresh=True)


def _statuses(read: Callable[[], Status]) -> Iterator[Status]:
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
        time.sleep(max(_WATCH_S, (time.monotonic() - started) / _SHARE_OF_TIME))


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
        *(cost_lines(status.costs) if status.costs is not None else []),
        *([row for run in status.running for row in _run_rows(run)] or [("running", "no")]),
    ]
    return Group(pairs_table(rows, title=status.output), *_failures(status))


def _rejections(status: Status) -> str:
    reasons = (f"{count}x {reason}" for reason, count in status.reject_reasons.items())
    return "\n".join([str(status.totals.rejected), *reasons])


def _failures(status: Status) -> Iterator[Text]:
    for failure in status.failures[:_FAILURES_SHOWN]:
        yield Text(f"failed: {failure.shard_id} ({failure.attempts}x): {failure.message}")
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


def stop_command(
    output: DatasetArgument,
    /,
    *,
    wait: bool = False,
    timeout_s: float = 120.0,
    access: AccessFlags = ACCESS_DEFAULTS,
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
