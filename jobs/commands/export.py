"""`kosmos2 export`: the dataset in another format."""

import time

from rich.console import Console

from jobs.commands.annotate import LINE_EVERY_S
from pipeline.dataset.dataset import open_dataset
from pipeline.exports.coverage import Coverage
from pipeline.exports.exporting import export_dataset
from pipeline.exports.options import ExportOptions
from pipeline.exports.sections import RunSections, in_turn
from pipeline.storage import InputStore, open_output


def export_and_report(output: str, dest: str, options: ExportOptions) -> None:
    """Pictures come from where the job read them, with the job's own input options."""
    job = open_dataset(output, options.output_storage)
    console = Console(stderr=True)
    coverage = export_dataset(
        job,
        InputStore(job.record.spec.input_storage),
        open_output(dest, options.dest_storage),
        options,
        _Lines(console),
        _run(options),
    )
    _report(console, coverage, dest)


def _run(options: ExportOptions) -> RunSections:
    if options.parallel == 1:
        return in_turn
    from pipeline.exports.parallel import on_ray  # Ray takes a second to import

    return on_ray


class _Lines:
    """A line every 30 s."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._last = time.monotonic()

    def __call__(self, coverage: Coverage) -> None:
        if time.monotonic() - self._last >= LINE_EVERY_S:
            self._last = time.monotonic()
            self._console.print(_amount(coverage), highlight=False)


def _report(console: Console, coverage: Coverage, dest: str) -> None:
    console.print(_amount(coverage), highlight=False)
    if coverage.boxes_without_class:
        console.print(
            f"{coverage.boxes_without_class} boxes left out: --categories has no class for their "
            'phrase; give "*" one to keep them',
            highlight=False,
        )
    if not coverage.is_complete:
        console.print(
            f"incomplete: {coverage.shards_planned - coverage.shards_exported} planned shards are "
            "not committed; kosmos2 status tells why, and --overwrite exports again",
            style="yellow",
            highlight=False,
        )
    console.print(f"export: {dest}", markup=False, highlight=False, soft_wrap=True)


def _amount(coverage: Coverage) -> str:
    return (
        f"{coverage.shards_exported} of {coverage.shards_planned} shards: "
        f"{coverage.annotations} annotations, {coverage.boxes} boxes"
    )
