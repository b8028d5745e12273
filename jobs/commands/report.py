"""`kosmos2 report` and `view`: write HTML pages about a dataset."""

import os
from collections.abc import Iterable
from pathlib import Path

from jobs.options.groups import DatasetArgument, GpuHourCost, with_flags
from jobs.options.places import check_new_file
from jobs.terminal import counting_bar, print_message
from pipeline.dataset.dataset import open_dataset
from pipeline.exit_codes import ExitCode
from pipeline.report.contact_sheet import contact_sheet
from pipeline.report.run_report import report_page, run_report
from pipeline.spec.access import OutputAccess
from pipeline.storage import InputStore, StorageOptions


@with_flags
def report_command(
    output: DatasetArgument,
    /,
    *,
    html: Path = Path("report.html"),
    sheet: Path | None = None,
    count: int = 200,
    gpu_hour_cost: GpuHourCost = None,
    access: OutputAccess,
) -> int:
    """Write a report of the dataset OUTPUT as one HTML file, and the contact sheet it links to.

    The report shows totals, costs, throughput, reasons of rejections, scores, boxes, phrases and
    flags. It reads all committed shards. The pages work without a server.

    ```
    kosmos2 report s3://bucket/out/ --html report.html
    ```

    Parameters
    ----------
    html
        File to write the report to.
    sheet
        File to write the contact sheet to. Default: contact-sheet.html beside the report.
    count
        Number of annotations on the contact sheet, besides examples of each flag. 0: no sheet.
    """
    check_new_file(html)
    sheet = (sheet or html.with_name("contact-sheet.html")) if count else None
    check_new_file(sheet)
    dataset = open_dataset(output, access.output_storage)
    inputs = InputStore(dataset.record.spec.input_storage)
    with counting_bar() as observe:
        report = run_report(dataset, inputs, observe, gpu_hour_cost=gpu_hour_cost)
    if sheet is not None:
        pieces = contact_sheet(dataset, inputs, count=count, wanted=report.figures.wanted())
        write_html(sheet, pieces, name="contact sheet")
    link = None if sheet is None else os.path.relpath(sheet, html.parent)
    write_html(html, report_page(report, sheet=link), name="report")
    return ExitCode.DONE


@with_flags
def view_command(
    output: DatasetArgument,
    /,
    *,
    html: Path = Path("contact-sheet.html"),
    count: int = 60,
    access: OutputAccess,
) -> int:
    """Write a contact sheet of the dataset OUTPUT: one HTML file of images with their boxes.

    ```
    kosmos2 view s3://bucket/out/ --html sheet.html --count 100
    ```

    Parameters
    ----------
    html
        File to write the contact sheet to.
    count
        Number of annotations to show, spread evenly over the dataset.
    """
    check_new_file(html)
    write_contact_sheet(output, access.output_storage, html=html, count=count)
    return ExitCode.DONE


def write_contact_sheet(output: str, options: StorageOptions, *, html: Path, count: int) -> None:
    """Write the contact sheet. Images are read from the job's input."""
    dataset = open_dataset(output, options)
    inputs = InputStore(dataset.record.spec.input_storage)
    write_html(html, contact_sheet(dataset, inputs, count=count), name="contact sheet")


def write_html(path: Path, pieces: Iterable[str], *, name: str) -> None:
    """Write a page completely or not at all. After a failure, an earlier page is unchanged."""
    unfinished = path.with_name(f".{path.name}.part")
    try:
        with unfinished.open("w", encoding="utf-8") as file:
            file.writelines(pieces)
        unfinished.replace(path)
    except OSError as error:
        if error.filename is not None:
            error.filename = str(path)  # the user gave this name, not that of the .part file
        raise
    finally:
        unfinished.unlink(missing_ok=True)
    print_message(f"{name}: {path}")
