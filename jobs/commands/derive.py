"""`kosmos2 filter` and `dedup`: a dataset made of another, and what it lost."""

from collections.abc import Iterator

from rich.console import Console
from rich.table import Table
from rich.text import Text

from jobs.terminal import shards_bar
from pipeline.dataset.dataset import open_dataset
from pipeline.derived.deduplicating import dedup_dataset
from pipeline.derived.deriving import Derived
from pipeline.derived.filtering import filter_dataset
from pipeline.derived.options import DedupOptions, FilterOptions
from pipeline.storage import InputStore, open_output


def filter_and_report(output: str, dest: str, options: FilterOptions) -> None:
    """Raises ObjectMissing where there is no dataset, and as `filter_dataset` does."""
    job = open_dataset(output, options.output_storage)
    with shards_bar() as observe:
        derived = filter_dataset(job, open_output(dest, options.dest_storage), options, observe)
    _report(derived, dest)


def dedup_and_report(output: str, dest: str, options: DedupOptions) -> None:
    """Pictures come from where the job read them. Raises as `dedup_dataset` does."""
    job = open_dataset(output, options.output_storage)
    inputs = InputStore(job.record.spec.input_storage)
    place = open_output(dest, options.dest_storage)
    with shards_bar() as observe:
        derived = dedup_dataset(job, inputs, place, options, observe)
    _report(derived, dest)


def _report(derived: Derived, dest: str) -> None:
    console = Console()
    before, after = derived.account.before, derived.account.after
    amounts = Table("", "before", "after")
    for name in ("annotations", "entities", "boxes"):
        amounts.add_row(name, f"{getattr(before, name):,}", f"{getattr(after, name):,}")
    console.print(amounts)
    if derived.account.dropped:
        dropped = Table("dropped", "by")
        for label, count in derived.account.dropped.most_common():
            dropped.add_row(f"{count:,}", Text(label))
        console.print(dropped)
    for line in _remarks(derived):
        console.print(line, highlight=False)
    console.print(f"dataset: {dest}", markup=False, highlight=False, soft_wrap=True)


def _remarks(derived: Derived) -> Iterator[str]:
    yield f"{derived.shards_new} shards made now, {derived.totals.shards} there"
    if not derived.is_complete:
        left = derived.shards_planned - derived.totals.shards
        yield f"incomplete: {left} planned shards are not committed yet; the same command goes on"
