"""`kosmos2 verify`: what is wrong with a dataset, and mending it."""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict

from rich.console import Console
from rich.table import Table
from rich.text import Text

from jobs.terminal import shards_bar
from pipeline.dataset.dataset import known_record
from pipeline.dataset.leases import writing_to
from pipeline.exit_codes import ExitCode
from pipeline.spec.identity import JobRecord
from pipeline.storage import OutputStore, StorageOptions, open_output
from pipeline.verification.findings import Defect, Finding
from pipeline.verification.mending import mend
from pipeline.verification.outputs import Drift, Report, drift_from, owners, verify_dataset


def verify_and_report(
    output: str, options: StorageOptions, *, input_uri: str | None, is_fixing: bool, as_json: bool
) -> int:
    """Raises LeaseHeld where `is_fixing` meets a live run."""
    store = open_output(output, options)
    record = known_record(store)
    drift = drift_from(store, record.spec, input_uri) if input_uri is not None else None
    report = (_mended if is_fixing else _verified)(store, record, drift)
    if as_json:
        print(json.dumps(_as_json(report), indent=2))
    else:
        _print_table(report)
    return ExitCode.DEFECTS if report.findings else ExitCode.DONE


def _verified(store: OutputStore, record: JobRecord, drift: Drift | None) -> Report:
    with shards_bar() as observe:
        return verify_dataset(store, record, running=owners(store), drift=drift, observe=observe)


def _mended(store: OutputStore, record: JobRecord, drift: Drift | None) -> Report:
    with writing_to(store):
        with shards_bar() as observe:
            report = verify_dataset(store, record, drift=drift, observe=observe)
        return mend(store, record, report)


def _as_json(report: Report) -> dict[str, object]:
    body = asdict(report)
    del body["commits"]
    for name in ("findings", "mended"):
        body[name] = [
            asdict(finding) | {"remedy": finding.remedy} for finding in getattr(report, name)
        ]
    return body


def _print_table(report: Report) -> None:
    console = Console(soft_wrap=True)
    totals = report.totals
    console.print(
        f"{report.output}: {totals.shards} of {report.shards_planned} shards committed "
        f"({report.shards_failed} failed, {report.shards_left} left), {totals.samples} images, "
        f"{totals.annotated} annotations, {totals.rejected} rejections",
        markup=False,
        highlight=False,
    )
    if report.inputs_new is not None:
        console.print(f"{report.inputs_new} inputs are not in the plan", highlight=False)
    for owner in report.running:
        console.print(
            f"at work: {owner}; files in flight and the ledger were not judged",
            markup=False,
            highlight=False,
        )
    _print_findings(console, "mended", report.mended)
    _print_findings(console, "wrong", report.findings)
    if not report.findings:
        console.print("nothing is wrong" if not report.mended else "nothing else is wrong")


def _print_findings(console: Console, title: str, findings: Sequence[Finding]) -> None:
    """One line per kind of defect, however many there are; `--json` has them all."""
    if not findings:
        return
    by_defect: dict[Defect, list[Finding]] = defaultdict(list)
    for finding in findings:
        by_defect[finding.defect].append(finding)
    table = Table(title, "files", "rows", "for example", "what to do", show_lines=True)
    for defect, found in by_defect.items():
        first = found[0]
        table.add_row(
            defect,
            str(len(found)),
            str(sum(finding.rows for finding in found) or ""),
            Text(f"{first.name}: {first.message}"),  # names come from the data
            Text(first.remedy),
        )
    console.print(table)
