"""The commands that write a page to look at."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from jobs.options.places import check_new_file
from pipeline.exit_codes import ExitCode
from pipeline.spec.access import OutputAccess

_ACCESS = Annotated[OutputAccess, Parameter(name="*")]


def report(
    output: str,
    /,
    *,
    html: Path = Path("report.html"),
    sheet: Path | None = None,
    count: int = 200,
    access: _ACCESS = OutputAccess(),  # noqa: B008
) -> int:
    """Write a report of OUTPUT: one HTML file of figures, and the contact sheet that it links to.

    Totals, throughput, why samples were rejected, scores, boxes, phrases, flags. All that is
    committed is read once. No server is needed to look at it.

    ```
    kosmos2 report s3://bucket/out/ --html report.html
    ```

    Parameters
    ----------
    output
        Directory or s3:// prefix of the dataset; finished or not.
    html
        Where to write the report.
    sheet
        Where to write the contact sheet. Default: contact-sheet.html beside the report.
    count
        How many annotations the contact sheet shows, besides some with each flag. 0: no sheet.
    """
    from jobs.commands.report import write_report

    check_new_file(html)
    sheet = (sheet or html.with_name("contact-sheet.html")) if count else None
    check_new_file(sheet)
    write_report(output, access.output_storage, html=html, sheet=sheet, count=count)
    return ExitCode.DONE
