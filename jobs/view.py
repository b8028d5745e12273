"""`kosmos2 view`: the contact sheet."""

from pathlib import Path

from jobs.html_file import write_html
from pipeline.dataset.dataset import open_dataset
from pipeline.report.contact_sheet import contact_sheet
from pipeline.storage import InputStore, StorageOptions


def write_contact_sheet(output: str, options: StorageOptions, *, html: Path, count: int) -> None:
    """Pictures come from where the job read them, with the job's own input options."""
    job = open_dataset(output, options)
    pieces = contact_sheet(job, InputStore(job.record.spec.input_storage), count=count)
    write_html(html, pieces, name="contact sheet")
