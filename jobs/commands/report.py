"""`kosmos2 report`: the run report, and the contact sheet that it links to."""

import os
from pathlib import Path

from jobs.html_file import write_html
from jobs.terminal import shards_bar
from pipeline.dataset.dataset import open_dataset
from pipeline.report.contact_sheet import contact_sheet
from pipeline.report.run_report import report_page, run_report
from pipeline.storage import InputStore, StorageOptions


def write_report(
    output: str, options: StorageOptions, *, html: Path, sheet: Path | None, count: int
) -> None:
    """`sheet` None: no contact sheet. Pictures come from where the job read them."""
    job = open_dataset(output, options)
    inputs = InputStore(job.record.spec.input_storage)
    with shards_bar() as observe:
        report = run_report(job, inputs, observe)
    if sheet is not None:
        pieces = contact_sheet(job, inputs, count=count, wanted=report.figures.wanted())
        write_html(sheet, pieces, name="contact sheet")
    relative = None if sheet is None else os.path.relpath(sheet, html.parent)
    write_html(html, report_page(report, sheet=relative), name="report")
