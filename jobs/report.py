"""`kosmos2 report`: the run report, and the contact sheet that it links to."""

import os
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console

from jobs.bars import shards_bar
from pipeline.job import open_job
from pipeline.report.contact_sheet import contact_sheet
from pipeline.report.run_report import report_page, run_report
from pipeline.storage import InputStore, StorageOptions


def write_report(
    output: str, options: StorageOptions, *, html: Path, sheet: Path | None, count: int
) -> None:
    """`sheet` None: no contact sheet. Pictures come from where the job read them."""
    job = open_job(output, options)
    inputs = InputStore(job.record.spec.input_storage)
    with shards_bar() as observe:
        report = run_report(job, inputs, observe)
    if sheet is not None:
        pieces = contact_sheet(job, inputs, count=count, wanted=report.figures.wanted())
        _write(sheet, pieces, "contact sheet")
    relative = None if sheet is None else os.path.relpath(sheet, html.parent)
    _write(html, report_page(report, sheet=relative), "report")


def _write(path: Path, pieces: Iterator[str], name: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(pieces)
    Console(stderr=True).print(f"{name}: {path}", highlight=False, soft_wrap=True)
