"""`kosmos2 demo`: annotate drawn scenes with the embedded model, and show the result."""

from pathlib import Path

from jobs.commands.annotate import annotate_and_report
from jobs.commands.report import write_contact_sheet
from jobs.options.places import check_new_folder
from jobs.terminal import DataTable, print_message, print_results
from pipeline.spec.job import JobSpec
from pipeline.storage import StorageOptions

_SEED = 7
_ROWS = 5


def demo_command(directory: Path = Path("demo"), /, *, shards: int = 2, images: int = 60) -> int:
    """Draw scenes, annotate them with the embedded model, and show the result.

    ```
    kosmos2 demo
    ```

    Parameters
    ----------
    directory
        Directory for the shards, the dataset and the contact sheet. Run it again to see it resume.
    shards
        Number of shards.
    images
        Number of images per shard.
    """
    from kosmos2_core.shapes.world.ranges import WIDE_WORLD
    from kosmos2_core.shapes.world.shards import write_shards

    check_new_folder(directory)
    inputs, output = directory / "shards", directory / "out"
    sheet = directory / "contact-sheet.html"
    if not inputs.exists():
        print_message(f"drawing {shards * images} scenes into {inputs}")
        write_shards(inputs, shards=shards, images=images, seed=_SEED, world=WIDE_WORLD)
    print_message(f"annotating them into {output}; Ray and the model start first")
    code = annotate_and_report(JobSpec(input=str(inputs), output=str(output)))
    write_contact_sheet(str(output), StorageOptions(), html=sheet, count=60)
    print_results(
        _captions(output),
        f"Parquet:       {output / 'annotations'}",
        f"contact sheet: {sheet}",
    )
    return code


def _captions(output: Path) -> DataTable:
    import pyarrow.dataset as ds

    table = DataTable("caption", "phrase", "x1   y1   x2   y2", "score", show_lines=True)
    dataset = ds.dataset(output / "annotations")
    for row in dataset.head(_ROWS, columns=["caption", "entities"]).to_pylist():
        boxes = [(entity["phrase"], box) for entity in row["entities"] for box in entity["boxes"]]
        table.add_row(
            row["caption"],
            "\n".join(phrase for phrase, _ in boxes),
            "\n".join(f"{b['x1']:.2f} {b['y1']:.2f} {b['x2']:.2f} {b['y2']:.2f}" for _, b in boxes),
            "\n".join(f"{b['score']:.2f}" for _, b in boxes),
        )
    return table
