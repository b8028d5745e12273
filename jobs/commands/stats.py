"""`kosmos2 stats`: count what a dataset holds."""

from collections.abc import Iterator
from dataclasses import asdict

from rich.table import Table
from rich.text import Text

from jobs.options.groups import ACCESS_DEFAULTS, AccessFlags, AsJson, DatasetArgument
from jobs.terminal import counting_bar, pairs_table, print_json, print_results
from pipeline.dataset.dataset import open_dataset
from pipeline.exit_codes import ExitCode
from pipeline.report.statistics import QUANTILE_LEVELS, Statistics, statistics


def stats_command(
    output: DatasetArgument,
    /,
    *,
    json: AsJson = False,
    access: AccessFlags = ACCESS_DEFAULTS,
) -> int:
    """Count images, entities, boxes, scores, flags and phrases of the dataset OUTPUT.

    This reads all committed shards. `kosmos2 report` draws the same figures.

    ```
    kosmos2 stats s3://bucket/out/
    ```
    """
    dataset = open_dataset(output, access.output_storage)
    with counting_bar() as observe:
        found = statistics(dataset, observe)
    if json:
        print_json(asdict(found))
    else:
        print_results(found.output, *_tables(found))
    return ExitCode.DONE


def _tables(found: Statistics) -> Iterator[Table]:
    yield pairs_table(_counts(found))
    tasks = Table("task", "annotations", "unflagged", "entities", "boxes")
    for name, task in found.tasks.items():
        clean = _of(task.clean, task.annotations)
        tasks.add_row(
            Text(name), f"{task.annotations:,}", clean, f"{task.entities:,}", f"{task.boxes:,}"
        )
    yield tasks
    quantiles = Table("quantiles", *QUANTILE_LEVELS)
    for name, values in found.quantiles.items():
        quantiles.add_row(name, *(f"{value:.3g}" for value in values.values()))
    yield quantiles
    if found.issues:
        yield pairs_table(_rows(found.issues), "issue", "annotations")
    if found.phrases:
        yield pairs_table(_rows(found.phrases), "most frequent phrase", "times")


def _rows(counts: dict[str, int]) -> Iterator[tuple[str, str]]:
    return ((name, f"{count:,}") for name, count in counts.items())


def _counts(found: Statistics) -> Iterator[tuple[str, str]]:
    yield "shards committed", f"{found.shards_committed:,} of {found.shards_planned:,}"
    if found.shards_failed:
        yield "shards failed", f"{found.shards_failed:,}"
    yield "images", f"{found.images:,}"
    yield "annotations", f"{found.annotated:,}"
    yield "without a box", _of(found.without_box, found.annotated)
    yield "without a flag", _of(found.clean, found.annotated)
    yield "entities", f"{found.entities:,}"
    yield "boxes", f"{found.boxes:,}"
    if found.boxes_of_prompts:
        yield "boxes of prompts", f"{found.boxes_of_prompts:,}"
    yield "rejections", f"{found.rejected:,}"
    for reason, count in found.reject_reasons.items():
        yield f"  {reason}", f"{count:,}"


def _of(part: int, whole: int) -> str:
    return f"{part:,} ({part / whole:.1%})" if whole else "0"
