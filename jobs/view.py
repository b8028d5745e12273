"""`kosmos2 view`: the contact sheet."""

from pathlib import Path

from rich.console import Console

from pipeline.job import open_job
from pipeline.report.contact_sheet import contact_sheet
from pipeline.storage import InputStore, StorageOptions


def write_contact_sheet(output: str, options: StorageOptions, *, html: Path, count: int) -> None:
    """Pictures come from where the job read them, with the job's own input options."""
    job = open_job(output, options)
    pieces = contact_sheet(job, InputStore(job.record.spec.input_storage), count=count)
    with html.open("w", encoding="utf-8") as file:
        file.writelines(pieces)
    Console(stderr=True).print(f"contact sheet: {html}", highlight=False, soft_wrap=True)
