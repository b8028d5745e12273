"""`kosmos2 demo`: the main job on the embedded default, from nothing to a table of boxes."""

from pathlib import Path

import pyarrow.dataset as ds
from rich.console import Console
from rich.table import Table

from jobs.commands.annotate import annotate_and_report
from jobs.view import write_contact_sheet
from kosmos2_core.shapes.world.ranges import WIDE_WORLD
from kosmos2_core.shapes.world.shards import write_shards
from pipeline.spec.job import JobSpec
from pipeline.storage import StorageOptions

_SEED = 7
_ROWS = 5


def run_demo(directory: Path, *, shards: int, images: int) -> int:
    """Makes the shards once; run again, it resumes. Returns the job's exit code."""
    inputs, output, sheet = (
        directory / "shards",
        directory / "out",
        directory / "contact-sheet.html",
    )
    if not inputs.exists():
        write_shards(inputs, shards=shards, images=images, seed=_SEED, world=WIDE_WORLD)
    code = annotate_and_report(JobSpec(input=str(inputs), output=str(output)))
    write_contact_sheet(str(output), StorageOptions(), html=sheet, count=60)
    _print_captions(output)
    console = Console()
    console.print(f"Parquet:       {output / 'annotations'}", highlight=False, soft_wrap=True)
    console.print(f"contact sheet: {sheet}", highlight=False, soft_wrap=True)
    return code


def _print_captions(output: Path) -> None:
    table = Table("caption", "phrase", "x1   y1   x2   y2", "score", show_lines=True)
    dataset = ds.dataset(output / "annotations")
    for row in dataset.head(_ROWS, columns=["caption", "entities"]).to_pylist():
        boxes = [(entity["phrase"], box) for entity in row["entities"] for box in entity["boxes"]]
        table.add_row(
            row["caption"],
            "\n".join(phrase for phrase, _ in boxes),
            "\n".join(f"{b['x1']:.2f} {b['y1']:.2f} {b['x2']:.2f} {b['y2']:.2f}" for _, b in boxes),
            "\n".join(f"{b['score']:.2f}" for _, b in boxes),
        )
    Console().print(table)
