"""`kosmos2 status`: what storage says about a dataset."""

import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.dataset.layout import LEASES, partition_of
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from jobs.durations import hours_minutes_seconds
from pipeline.dataset.dataset import open_dataset
from pipeline.dataset.lease import read_lease
from pipeline.dataset.ledger import Failure, Ledger, Totals
from pipeline.spec.partition import WHOLE
from pipeline.storage import OutputStore, StorageOptions

TOP_REASONS = 5
_FAILURES_SHOWN = 10
_WATCH_S = 5.0  # as often as a lease is renewed
_SHARE_OF_TIME = 0.2  # reading may take of the time spent watching


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """`running` are the leases, one per partition at work: owner and progress of each run,
    `owner_is_dead` where that is certain. Images that are left are estimated from the images per
    byte so far."""

    output: str
    fingerprint: str
    shards_planned: int
    shards_left: int
    totals: Totals
    images_left: int | None
    reject_reasons: dict[str, int]
    failures: tuple[Failure, ...]
    running: tuple[dict[str, Any], ...]

    @property
    def is_running(self) -> bool:
        return any(not run["owner_is_dead"] for run in self.running)


def read_status(output: str, options: StorageOptions) -> Status:
    """Raises ObjectMissing where there is no dataset."""
    job = open_dataset(output, options)
    ledger = Ledger(job.store)
    commits = ledger.summaries()
    totals, failures = Totals.of(commits.values()), ledger.failed(commits.keys())
    closed = commits.keys() | failures.keys()
    done = sum(shard.own_bytes for shard in job.plan.shards if shard.shard_id in commits)
    left = sum(shard.own_bytes for shard in job.plan.shards if shard.shard_id not in closed)
    reasons: Counter[str] = Counter()
    for commit in commits.values():
        reasons.update(commit.reasons)
    return Status(
        output=job.store.uri,
        fingerprint=job.record.fingerprint,
        shards_planned=len(job.plan.shards),
        shards_left=len(job.plan.shards) - totals.shards - len(failures),
        totals=totals,
        images_left=round(totals.samples * left / done) if done else None,
        reject_reasons=dict(reasons.most_common(TOP_REASONS)),
        failures=tuple(failures.values()),
        running=tuple(_runs(job.store)),
    )


def _runs(store: OutputStore) -> Iterator[dict[str, Any]]:
    for key in store.list(LEASES):
        if (lease := read_lease(store, key)) is not None:
            is_dead = lease.owner.is_dead_here()
            partition = str(partition_of(key) or key)
            yield {"partition": partition, **asdict(lease), "owner_is_dead": is_dead}


def print_status(output: str, options: StorageOptions, *, as_json: bool) -> None:
    status = read_status(output, options)
    if as_json:
        print(json.dumps(asdict(status), indent=2))
    else:
        Console().print(_page(status))


def watch_status(output: str, options: StorageOptions, *, as_json: bool) -> None:
    """Until nobody is at work on it any more, or for ever where nobody ever was."""
    if as_json:
        for status in _statuses(output, options):
            print(json.dumps(asdict(status)), flush=True)
        return
    with Live(console=Console(), auto_refresh=False) as live:
        for status in _statuses(output, options):
            live.update(_page(status), refresh=True)


def _statuses(output: str, options: StorageOptions) -> Iterator[Status]:
    has_run = False
    while True:
        started = time.monotonic()
        status = read_status(output, options)
        yield status
        if has_run and not status.is_running:
            return
        has_run = has_run or status.is_running
        if status.shards_left == 0 and not status.is_running:
            return
        time.sleep(max(_WATCH_S, (time.monotonic() - started) / _SHARE_OF_TIME))


def _page(status: Status) -> RenderableType:
    table = Table(title=status.output, show_header=False)
    totals = status.totals
    rows: list[tuple[str, object]] = [
        ("shards planned", status.shards_planned),
        ("shards committed", totals.shards),
        ("shards failed", len(status.failures)),
        ("shards left", status.shards_left),
        ("images committed", totals.samples),
        ("images left", "unknown" if status.images_left is None else f"{status.images_left} or so"),
        ("annotations", totals.annotated),
        ("rejections", _rejections(status)),
        ("truncated inputs", totals.truncated_shards),
        ("fingerprint", status.fingerprint),
        *_running(status),
    ]
    for name, value in rows:
        table.add_row(name, Text(str(value)))
    return Group(table, *_failures(status))


def _rejections(status: Status) -> str:
    reasons = (f"{count}x {reason}" for reason, count in status.reject_reasons.items())
    return "\n".join([str(status.totals.rejected), *reasons])


def _failures(status: Status) -> Iterator[Text]:
    for failure in status.failures[:_FAILURES_SHOWN]:
        yield Text(f"failed: {failure.shard_id} ({failure.attempts}x): {failure.message}")
    if (more := len(status.failures) - _FAILURES_SHOWN) > 0:
        yield Text(f"... and {more} more: --json has them all")


def _running(status: Status) -> list[tuple[str, object]]:
    if not status.running:
        return [("running", "no")]
    return [row for run in status.running for row in _run_rows(run)]


def _run_rows(run: dict[str, Any]) -> Iterator[tuple[str, object]]:
    owner, progress = run["owner"], run["progress"]
    part = "" if run["partition"] == str(WHOLE) else f"part {run['partition']}: "
    who = f"{part}{owner['host']}, pid {owner['pid']} (run {owner['run_id']})"
    if run["owner_is_dead"]:
        yield "running", f"no: {who} died; the same command goes on"
        return
    yield "running", who
    if progress is None:
        return
    yield "images of this run", f"{progress['images_annotated'] + progress['images_rejected']}"
    yield (
        "images/s",
        f"{progress['images_per_s_now']:.1f} now, {progress['images_per_s']:.1f} on average",
    )
    if progress["eta_s"] is not None:
        yield "time left", f"{hours_minutes_seconds(progress['eta_s'])} or so"
    if progress["engine_busy"] is not None:
        yield "engine busy", f"{progress['engine_busy']:.0%}"
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
