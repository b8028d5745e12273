"""`kosmos2 export`: the dataset in another format."""

from typing import Annotated

from cyclopts import Parameter

from jobs.options.groups import DatasetArgument, named_dataset, with_flags
from jobs.terminal import LineTimer, print_message
from pipeline.exit_codes import ExitCode
from pipeline.exports.coverage import Coverage
from pipeline.exports.options import ExportOptions

_Dest = Annotated[
    str,
    Parameter(
        help="Directory, or s3://, gs:// or az:// prefix of the export: empty, or with an export "
        "made by the same command, to which new shards are added."
    ),
]
_WithNegatives = Parameter(negative=None, negative_iterable=())  # --no-... for flags


@with_flags
def export_command(
    output: DatasetArgument,
    dest: _Dest,
    /,
    *,
    options: Annotated[ExportOptions, _WithNegatives],
) -> int:
    """Write the committed annotations of the dataset OUTPUT to DEST in another format.

    ```
    kosmos2 export s3://bucket/out/ s3://bucket/coco/ --format coco --images embed
    ```

    DEST/_EXPORT.json is written last. It marks the export as complete and counts what it holds. To
    add shards that were committed since, run the same command again.
    """
    dataset = named_dataset(output, options)
    timer = LineTimer()

    def observe(coverage: Coverage) -> None:
        if timer.is_due():
            print_message(_amount(coverage))

    coverage = dataset.export(dest, on_progress=observe, **options.model_dump())
    _report(coverage, dest)
    return ExitCode.DONE


def _report(coverage: Coverage, dest: str) -> None:
    print_message(_amount(coverage))
    if coverage.shards_kept:
        new = coverage.shards_exported - coverage.shards_kept
        print_message(
            f"{coverage.shards_kept} of {coverage.shards_exported} shards were exported before; "
            f"{new} new"
        )
    if coverage.boxes_without_class:
        print_message(
            f"{coverage.boxes_without_class} boxes left out: the file of --categories has no class "
            'for their phrases; add a class for "*" to keep them'
        )
    if not coverage.is_complete:
        print_message(
            f"incomplete: {coverage.shards_planned - coverage.shards_exported} planned shards are "
            "not committed; see kosmos2 status, then run the same command again",
            style="yellow",
        )
    print_message(f"export: {dest}")


def _amount(coverage: Coverage) -> str:
    return (
        f"{coverage.shards_exported} of {coverage.shards_planned} shards: "
        f"{coverage.annotations} annotations, {coverage.boxes} boxes"
    )
