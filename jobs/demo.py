"""`kosmos2 demo`: the main job on the embedded default, from nothing to a table of boxes."""

from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
from rich.console import Console
from rich.table import Table

from jobs.annotate import annotate_and_report
from jobs.view import write_contact_sheet
from kosmos2_core.shapes.world import write_shards
from pipeline.spec import JobSpec
from pipeline.storage import StorageOptions

_SEED = 7
_ROWS = 8


def run_demo(directory: Path, *, shards: int, images: int) -> int:
    """Makes the shards once; run again, it resumes. Returns the job's exit code."""
    inputs, output, sheet = (
        directory / "shards",
        directory / "out",
        directory / "contact-sheet.html",
    )
    if not inputs.exists():
        write_shards(inputs, shards=shards, images=images, seed=_SEED)
    code = annotate_and_report(JobSpec(input=str(inputs), output=str(output)))
    write_contact_sheet(str(output), StorageOptions(), html=sheet, count=60)
    _print_captions(output)
    console = Console()
    console.print(f"Parquet:       {output / 'annotations'}", highlight=False, soft_wrap=True)
    console.print(f"contact sheet: {sheet}", highlight=False, soft_wrap=True)
    return code


def _print_captions(output: Path) -> None:
    table = Table("key", "caption", "boxes (x1 y1 x2 y2, score)")
    dataset = ds.dataset(output / "annotations")
    for row in dataset.head(_ROWS, columns=["key", "caption", "entities"]).to_pylist():
        table.add_row(row["key"], row["caption"], "\n".join(_boxes(row["entities"])))
    Console().print(table)


def _boxes(entities: list[dict[str, Any]]) -> list[str]:
    return [
        f"{e['phrase']}: {b['x1']:.2f} {b['y1']:.2f} {b['x2']:.2f} {b['y2']:.2f}, {b['score']:.2f}"
        for e in entities
        for b in e["boxes"]
    ]
