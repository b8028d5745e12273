"""`kosmos2 stats` and `diff`: count what a dataset holds, and how two datasets differ."""

import math
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from jobs.commands.report import write_html
from jobs.options.groups import AsJson, DatasetArgument, with_flags
from jobs.options.places import check_new_file
from jobs.terminal import (
    DataTable,
    counting_bar,
    pairs_table,
    print_json,
    print_message,
    print_results,
)
from pipeline.comparison.diff import LEAST_IOU, Differences, diff
from pipeline.comparison.sheet import diff_page
from pipeline.comparison.shifts import Shift
from pipeline.dataset.dataset import open_dataset
from pipeline.exit_codes import ExitCode
from pipeline.report.statistics import QUANTILE_LEVELS, Statistics, statistics
from pipeline.spec.access import OutputAccess
from pipeline.storage import InputStore

_Share = Annotated[float, Parameter(validator=Number(gte=0, lte=1))]


@with_flags
def stats_command(
    output: DatasetArgument,
    /,
    *,
    json: AsJson = False,
    access: OutputAccess,
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


@with_flags
def diff_command(
    a: DatasetArgument,
    b: DatasetArgument,
    /,
    *,
    html: Path | None = None,
    count: int = 60,
    least_iou: _Share = LEAST_IOU,
    fail_above: _Share | None = None,
    json: AsJson = False,
    access: OutputAccess,
) -> int:
    """Compare the datasets A and B, such as those of two models: captions, boxes, scores, flags.

    Annotations are joined by the bytes of the image and the task, then by shard and index. Boxes
    are matched by IoU. Scores and flags are shown with their shift from A to B and its 95 %
    interval.

    ```
    kosmos2 diff s3://bucket/out/ s3://bucket/new/ --html diff.html
    kosmos2 diff golden/ out/ --fail-above 0.01
    ```

    Exit codes: 0 compared; 1 unexpected error; 2 wrong usage; 6 more differs than --fail-above.

    Parameters
    ----------
    html
        File to write the largest differences to: each image twice, with the boxes of A and of B.
    count
        Number of annotations in that file.
    least_iou
        Boxes with a smaller IoU are not matched: the one of A is lost, the one of B gained.
    fail_above
        Exit with code 6 if a larger share of the annotations differs, in [0, 1]. An annotation
        differs if its caption does, if a box is not the same, or if one dataset does not have it.
    """
    check_new_file(html)
    first, second = (open_dataset(each, access.output_storage) for each in (a, b))
    with counting_bar() as observe:
        found = diff(
            first, second, least_iou=least_iou, count=count if html else 0, observe=observe
        )
    if html is not None:
        inputs = InputStore(first.record.spec.input_storage)
        write_html(html, diff_page(found, first, second, inputs), name="differences")
    if json:
        print_json(asdict(found.figures))
    else:
        print_results(*_diff_tables(found.figures))
    if fail_above is not None and found.figures.share_different > fail_above:
        print_message(
            f"{found.figures.share_different:.2%} of the annotations differ, more than "
            f"{fail_above:.2%}",
            style="red",
        )
        return ExitCode.DEFECTS
    return ExitCode.DONE


def _diff_tables(found: Differences) -> Iterator[str | DataTable]:
    yield f"A: {found.a}"
    yield f"B: {found.b}"
    rows = {
        "in both": [task.joined for task in found.tasks.values()],
        "only in A": [task.only_in_a for task in found.tasks.values()],
        "only in B": [task.only_in_b for task in found.tasks.values()],
        "captions changed": [task.captions_changed for task in found.tasks.values()],
        "boxes the same": [task.boxes_same for task in found.tasks.values()],
        "boxes moved": [task.boxes_moved for task in found.tasks.values()],
        "boxes lost": [task.boxes_lost for task in found.tasks.values()],
        "boxes gained": [task.boxes_gained for task in found.tasks.values()],
        "boxes with another phrase": [task.boxes_renamed for task in found.tasks.values()],
    }
    amounts = DataTable("annotations", *found.tasks)
    for name, counts in rows.items():
        amounts.add_row(name, *(f"{number:,}" for number in counts))
    yield amounts
    shifts = DataTable("task", "figure", "A", "B", "shift", "95 % interval")
    for name, task in found.tasks.items():
        for figure, shift in {**task.shifts, **task.flags}.items():
            shifts.add_row(name, figure, *_shown(shift))
    yield shifts
    if found.joined_by_place:
        yield f"{found.joined_by_place:,} images have other bytes; joined by shard and index"
    yield f"{found.share_different:.2%} of the annotations differ"


def _shown(shift: Shift) -> tuple[str, str, str, str]:
    bounds = shift.shift
    interval = f"{bounds.low:+.4f} to {bounds.high:+.4f}"
    return (
        f"{shift.a:.4f}",
        f"{shift.b:.4f}",
        f"{bounds.value:+.4f}",
        "none: one image" if math.isinf(bounds.low) else interval,
    )


def _tables(found: Statistics) -> Iterator[DataTable]:
    yield pairs_table(_counts(found))
    tasks = DataTable("task", "annotations", "unflagged", "entities", "boxes")
    for name, task in found.tasks.items():
        clean = _of(task.clean, task.annotations)
        tasks.add_row(name, f"{task.annotations:,}", clean, f"{task.entities:,}", f"{task.boxes:,}")
    yield tasks
    quantiles = DataTable("quantiles", *QUANTILE_LEVELS)
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
