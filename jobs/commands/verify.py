"""`kosmos2 verify`: what is wrong with a dataset, and mending it."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from rich.table import Table
from rich.text import Text

from jobs.options.groups import ACCESS_DEFAULTS, AccessFlags, AsJson, DatasetArgument
from jobs.terminal import counting_bar, print_json, print_results
from pipeline.dataset.dataset import known_record
from pipeline.dataset.leases import writing_to
from pipeline.exit_codes import ExitCode
from pipeline.spec.identity import JobRecord
from pipeline.storage import OutputStore, open_output
from pipeline.verification.findings import Defect, Finding
from pipeline.verification.mending import mend
from pipeline.verification.outputs import Drift, Report, drift_from, owners, verify_dataset


def verify_command(
    output: DatasetArgument,
    /,
    *,
    input: str | None = None,
    fix: bool = False,
    json: AsJson = False,
    access: AccessFlags = ACCESS_DEFAULTS,
) -> int:
    """Read the whole dataset under OUTPUT and say what is wrong with it.

    ```
    kosmos2 verify s3://bucket/out/ --input s3://bucket/shards/
    kosmos2 verify s3://bucket/out/ --fix
    ```

    Exit codes: 0 nothing is wrong, 6 something is (and --fix did not mend it), 4 another run is
    at work on OUTPUT and --fix leaves it alone, 2 wrong usage, 1 anything else.

    Parameters
    ----------
    input
        Compare the plan with what is there now, too.
    fix
        Delete what nobody needs (orphaned rejects, partial files, outdated failures) and commits
        that cannot be read, which `annotate` then makes again; make the ledger again.
    """
    store = open_output(output, access.output_storage)
    record = known_record(store)
    drift = drift_from(store, record.spec, input) if input is not None else None
    report = (_mended if fix else _verified)(store, record, drift)
    if json:
        print_json(_as_json(report))
    else:
        print_results(*_page(report))
    return ExitCode.DEFECTS if report.findings else ExitCode.DONE


def _verified(store: OutputStore, record: JobRecord, drift: Drift | None) -> Report:
    with counting_bar() as observe:
        return verify_dataset(store, record, running=owners(store), drift=drift, observe=observe)


def _mended(store: OutputStore, record: JobRecord, drift: Drift | None) -> Report:
    """Verify and mend the dataset. Raises LeaseHeld if a run is writing to it."""
    with writing_to(store):
        with counting_bar() as observe:
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


def _page(report: Report) -> Iterator[str | Table]:
    totals = report.totals
    yield (
        f"{report.output}: {totals.shards} of {report.shards_planned} shards committed "
        f"({report.shards_failed} failed, {report.shards_left} left), {totals.samples} images, "
        f"{totals.annotated} annotations, {totals.rejected} rejections"
    )
    if report.inputs_new is not None:
        yield f"{report.inputs_new} inputs are not in the plan"
    for owner in report.running:
        yield f"at work: {owner}; files in flight and the ledger were not judged"
    if report.mended:
        yield _table("mended", report.mended)
    if report.findings:
        yield _table("wrong", report.findings)
    else:
        yield "nothing is wrong" if not report.mended else "nothing else is wrong"


def _table(title: str, findings: Sequence[Finding]) -> Table:
    """One row per kind of defect; `--json` has every finding."""
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
    return table
