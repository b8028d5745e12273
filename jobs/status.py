"""`kosmos2 status`: what storage says about a dataset."""

import json
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from pipeline.job import open_job
from pipeline.lease import lease_key, read_lease
from pipeline.ledger import Failure, Ledger, Totals
from pipeline.storage import StorageOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """`running` is the lease: its owner and progress, None where nobody holds one."""

    output: str
    fingerprint: str
    shards_planned: int
    shards_left: int
    totals: Totals
    failures: tuple[Failure, ...]
    running: dict[str, Any] | None


def read_status(output: str, options: StorageOptions) -> Status:
    """Raises ObjectMissing where there is no dataset."""
    job = open_job(output, options)
    ledger = Ledger(job.store)
    commits = ledger.summaries()
    totals, failures = Totals.of(commits.values()), ledger.failed(commits.keys())
    lease = read_lease(job.store, lease_key())
    return Status(
        output=job.store.uri,
        fingerprint=job.record.fingerprint,
        shards_planned=len(job.plan.shards),
        shards_left=len(job.plan.shards) - totals.shards - len(failures),
        totals=totals,
        failures=tuple(failures.values()),
        running=asdict(lease) | {"owner_is_dead": lease.owner.is_dead_here()} if lease else None,
    )


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
        ("running", _running(status.running)),
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


def _running(lease: dict[str, Any] | None) -> str:
    if lease is None:
        return "no"
    owner, progress = lease["owner"], lease["progress"]
    who = f"{owner['host']}, pid {owner['pid']}"
    if lease["owner_is_dead"]:
        return f"no ({who} died; the same command goes on)"
    if progress is None:
        return who
    busy = progress["engine_busy"]
    engine = f", engine {busy:.0%} busy" if busy is not None else ""
    return f"{who}, {progress['images_per_s']:.1f} images/s{engine}"
