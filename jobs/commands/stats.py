"""`kosmos2 stats`: what is in a dataset."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict

from rich.console import Console
from rich.table import Table
from rich.text import Text

from jobs.terminal import shards_bar
from pipeline.dataset.dataset import open_dataset
from pipeline.report.statistics import QUANTILE_LEVELS, Statistics, statistics
from pipeline.storage import StorageOptions

_ISSUES = ("issue", "annotations")
_PHRASES = ("most frequent phrase", "times")


def print_stats(output: str, options: StorageOptions, *, as_json: bool) -> None:
    """Raises ObjectMissing where there is no dataset."""
    job = open_dataset(output, options)
    with shards_bar() as observe:
        found = statistics(job, observe)
    if as_json:
        print(json.dumps(asdict(found), indent=2))
        return
    console = Console()
    console.print(found.output, markup=False, highlight=False, soft_wrap=True)
    console.print(*_tables(found), sep="\n")


def _tables(found: Statistics) -> Iterator[Table]:
    yield _pairs(("", ""), _counts(found))
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
    for header, counts in ((_ISSUES, found.issues), (_PHRASES, found.phrases)):
        if counts:
            yield _pairs(header, ((name, f"{count:,}") for name, count in counts.items()))


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


def _pairs(header: tuple[str, str], rows: Iterable[tuple[str, str]]) -> Table:
    table = Table(*header, show_header=any(header))
    for name, value in rows:
        table.add_row(Text(name), value)  # names come from the data
    return table
