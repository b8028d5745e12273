"""`kosmos2 verify`: find and mend the defects of a dataset."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from jobs.options.groups import AsJson, DatasetArgument, named_dataset, with_flags
from jobs.terminal import DataTable, counting_bar, print_json, print_results
from pipeline.exit_codes import ExitCode
from pipeline.spec.access import OutputAccess
from pipeline.verification.findings import Defect, Finding
from pipeline.verification.outputs import Report


@with_flags
def verify_command(
    output: DatasetArgument,
    /,
    *,
    input: str | None = None,
    fix: bool = False,
    json: AsJson = False,
    access: OutputAccess,
) -> int:
    """Read the whole dataset OUTPUT and list its defects.

    ```
    kosmos2 verify s3://bucket/out/ --input s3://bucket/shards/
    kosmos2 verify s3://bucket/out/ --fix
    ```

    Exit codes: 0 no defects are left; 1 unexpected error; 2 wrong usage; 4 another run is writing
    OUTPUT, so --fix changed nothing; 6 there are defects.

    Parameters
    ----------
    input
        Compare the plan with this input, too, and report what changed.
    fix
        Mend defects. This deletes orphaned rejects, partial files, outdated failures and
        unreadable commits, and rebuilds the ledger. Run `annotate` afterwards to annotate the
        shards of deleted commits again.
    """
    dataset = named_dataset(output, access)
    with counting_bar() as observe:
        report = dataset.verify(input=input, fix=fix, on_progress=observe)
    if json:
        print_json(_as_json(report))
    else:
        print_results(*_page(report))
    return ExitCode.DEFECTS if report.findings else ExitCode.DONE


def _as_json(report: Report) -> dict[str, object]:
    body = asdict(report)
    del body["commits"]
    for name in ("findings", "mended"):
        body[name] = [
            asdict(finding) | {"remedy": finding.remedy} for finding in getattr(report, name)
        ]
    return body


def _page(report: Report) -> Iterator[str | DataTable]:
    totals = report.totals
    yield (
        f"{report.output}: {totals.shards} of {report.shards_planned} shards committed "
        f"({report.shards_failed} failed, {report.shards_left} left), {totals.samples} images, "
        f"{totals.annotated} annotations, {totals.rejected} rejections"
    )
    if report.inputs_new is not None:
        yield f"{report.inputs_new} inputs are not in the plan"
    for owner in report.running:
        yield f"running: {owner}; files in flight and the ledger were not checked"
    if report.mended:
        yield _table("mended", report.mended)
    if report.findings:
        yield _table("defect", report.findings)
    else:
        yield "no defects" if not report.mended else "no other defects"


def _table(title: str, findings: Sequence[Finding]) -> DataTable:
    """One row per kind of defect; `--json` has every finding."""
    by_defect: dict[Defect, list[Finding]] = defaultdict(list)
    for finding in findings:
        by_defect[finding.defect].append(finding)
    table = DataTable(title, "files", "rows", "for example", "what to do", show_lines=True)
    for defect, found in by_defect.items():
        first = found[0]
        table.add_row(
            defect,
            str(len(found)),
            str(sum(finding.rows for finding in found) or ""),
            f"{first.name}: {first.message}",
            first.remedy,
        )
    return table
