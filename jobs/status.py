"""`kosmos2 status`: what storage says about a dataset."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from pipeline.job import open_job
from pipeline.lease import read_lease
from pipeline.leases import LEASES, partition_of
from pipeline.ledger import Failure, Ledger, Totals
from pipeline.storage import OutputStore, StorageOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """`running` are the leases, one per partition at work: its owner and progress."""

    output: str
    fingerprint: str
    shards_planned: int
    shards_left: int
    totals: Totals
    failures: tuple[Failure, ...]
    running: tuple[dict[str, Any], ...]


def read_status(output: str, options: StorageOptions) -> Status:
    """Raises ObjectMissing where there is no dataset."""
    job = open_job(output, options)
    ledger = Ledger(job.store)
    commits = ledger.summaries()
    totals, failures = Totals.of(commits.values()), ledger.failed(commits.keys())
    return Status(
        output=job.store.uri,
        fingerprint=job.record.fingerprint,
        shards_planned=len(job.plan.shards),
        shards_left=len(job.plan.shards) - totals.shards - len(failures),
        totals=totals,
        failures=tuple(failures.values()),
        running=tuple(_leases(job.store)),
    )


def _leases(store: OutputStore) -> Iterator[dict[str, Any]]:
    for key in store.list(LEASES):
        if (lease := read_lease(store, key)) is not None:
            is_dead = lease.owner.is_dead_here()
            yield {
                "partition": str(partition_of(key) or key),
                **asdict(lease),
                "owner_is_dead": is_dead,
            }


def print_status(output: str, options: StorageOptions, *, as_json: bool) -> None:
    status = read_status(output, options)
    if as_json:
        print(json.dumps(asdict(status), indent=2))
    else:
        _print_table(status)


def _print_table(status: Status) -> None:
    table = Table(title=status.output, show_header=False)
    totals = status.totals
    rows: list[tuple[str, object]] = [
        ("shards planned", status.shards_planned),
        ("shards committed", totals.shards),
        ("shards failed", len(status.failures)),
        ("shards left", status.shards_left),
        ("images", totals.samples),
        ("annotations", totals.annotated),
        ("rejections", totals.rejected),
        ("truncated inputs", totals.truncated_shards),
        ("fingerprint", status.fingerprint),
        *(("running", _running(lease)) for lease in status.running),
        *([("running", "no")] if not status.running else []),
    ]
    for name, value in rows:
        table.add_row(name, str(value))
    console = Console()
    console.print(table)
    for failure in status.failures:
        console.print(
            f"failed: {failure.shard_id} ({failure.attempts}x): {failure.message}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )


def _running(lease: dict[str, Any]) -> str:
    owner, progress = lease["owner"], lease["progress"]
    who = f"{lease['partition']}: {owner['host']}, pid {owner['pid']}"
    if lease["owner_is_dead"]:
        return f"no ({who} died; the same command goes on)"
    if progress is None:
        return who
    busy = progress["engine_busy"]
    engine = f", engine {busy:.0%} busy" if busy is not None else ""
    return f"{who}, {progress['images_per_s']:.1f} images/s{engine}"
