"""`kosmos2 export`: the dataset in another format."""

from typing import Annotated

from cyclopts import Parameter

from jobs.options.groups import DatasetArgument
from jobs.terminal import LineTimer, print_message
from pipeline.dataset.dataset import open_dataset
from pipeline.exit_codes import ExitCode
from pipeline.exports.coverage import Coverage
from pipeline.exports.exporting import export_dataset
from pipeline.exports.options import ExportOptions
from pipeline.exports.sections import RunSections, in_turn
from pipeline.storage import InputStore, open_output

_Dest = Annotated[
    str,
    Parameter(
        help="Directory or s3:// prefix of the export; empty, or an earlier export to --overwrite."
    ),
]
_ExportFlags = Annotated[
    ExportOptions, Parameter(name="*", negative=None, negative_iterable=())  # --no-... for flags
]


def export_command(output: DatasetArgument, dest: _Dest, /, *, options: _ExportFlags) -> int:
    """Write the committed annotations under OUTPUT in another format, for another tool.

    ```
    kosmos2 export s3://bucket/out/ s3://bucket/coco/ --format coco --images embed
    ```

    DEST/_EXPORT.json says, in the end, that the export is complete and what it holds.
    """
    dataset = open_dataset(output, options.output_storage)
    timer = LineTimer()

    def observe(coverage: Coverage) -> None:
        if timer.is_due():
            print_message(_amount(coverage))

    coverage = export_dataset(
        dataset,
        InputStore(dataset.record.spec.input_storage),
        open_output(dest, options.dest_storage),
        options,
        observe,
        _run(options),
    )
    _report(coverage, dest)
    return ExitCode.DONE


def _run(options: ExportOptions) -> RunSections:
    if options.parallel == 1:
        return in_turn
    from pipeline.exports.parallel import on_ray  # Ray takes a second to import

    return on_ray


def _report(coverage: Coverage, dest: str) -> None:
    print_message(_amount(coverage))
    if coverage.boxes_without_class:
        print_message(
            f"{coverage.boxes_without_class} boxes left out: --categories has no class for their "
            'phrase; give "*" one to keep them'
        )
    if not coverage.is_complete:
        print_message(
            f"incomplete: {coverage.shards_planned - coverage.shards_exported} planned shards are "
            "not committed; kosmos2 status tells why, and --overwrite exports again",
            style="yellow",
        )
    print_message(f"export: {dest}")


def _amount(coverage: Coverage) -> str:
    return (
        f"{coverage.shards_exported} of {coverage.shards_planned} shards: "
        f"{coverage.annotations} annotations, {coverage.boxes} boxes"
    )
