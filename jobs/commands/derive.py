"""`kosmos2 filter` and `dedup`: a dataset made of another, and what it lost."""

from collections.abc import Iterator
from typing import Annotated

from cyclopts import Parameter
from rich.table import Table

from jobs.options.groups import DatasetArgument, NewDatasetArgument
from jobs.terminal import counting_bar, pairs_table, print_results
from pipeline.dataset.dataset import open_dataset
from pipeline.derived.deriving import Derived
from pipeline.derived.filtering import filter_dataset
from pipeline.derived.options import DedupOptions, FilterOptions
from pipeline.exit_codes import ExitCode
from pipeline.storage import InputStore, open_output

_FILTER_DEFAULTS, _DEDUP_DEFAULTS = FilterOptions(), DedupOptions()
_FilterFlags = Annotated[
    FilterOptions, Parameter(name="*", negative=None, negative_iterable=())  # --no-... for flags
]


def filter_command(
    output: DatasetArgument,
    dest: NewDatasetArgument,
    /,
    *,
    options: _FilterFlags = _FILTER_DEFAULTS,
) -> int:
    """Make a dataset of what meets the conditions: fewer boxes, entities and annotations.

    Boxes come first, then entities, then annotations: --where sees what is left. An entity goes
    with its last box; an annotation goes only if a condition on annotations says so. What was
    dropped is a rejection in DEST, whose _DERIVED.json counts it. The same command resumes.

    ```
    kosmos2 filter s3://bucket/out/ s3://bucket/good/ --min-score 0.5 \\
        --without-issue truncated --where "box_count BETWEEN 1 AND 20"
    kosmos2 filter out/ good/ --where-box "score * exp(phrase_logprob) >= 0.4" \\
        --where-entity "phrase NOT ILIKE '%man%'" --where "metadata->>'license' = 'by'"
    ```
    """
    source = open_dataset(output, options.output_storage)
    with counting_bar() as observe:
        derived = filter_dataset(source, open_output(dest, options.dest_storage), options, observe)
    _report(derived, dest)
    return ExitCode.DONE


def dedup_command(
    output: DatasetArgument,
    dest: NewDatasetArgument,
    /,
    *,
    options: Annotated[DedupOptions, Parameter(name="*")] = _DEDUP_DEFAULTS,
) -> int:
    """Make a dataset with one of each image: copies go, and name the one that stays.

    What was dropped is a rejection in DEST, whose _DERIVED.json counts it. The same command
    resumes, as long as nothing was added to OUTPUT.

    ```
    kosmos2 dedup s3://bucket/out/ s3://bucket/unique/
    kosmos2 dedup s3://bucket/out/ s3://bucket/unique/ --near 4
    ```
    """
    from pipeline.derived.deduplicating import dedup_dataset

    source = open_dataset(output, options.output_storage)
    inputs = InputStore(source.record.spec.input_storage)
    place = open_output(dest, options.dest_storage)
    with counting_bar() as observe:
        derived = dedup_dataset(source, inputs, place, options, observe)
    _report(derived, dest)
    return ExitCode.DONE


def _report(derived: Derived, dest: str) -> None:
    before, after = derived.account.before, derived.account.after
    amounts = Table("", "before", "after")
    for name in ("annotations", "entities", "boxes"):
        amounts.add_row(name, f"{getattr(before, name):,}", f"{getattr(after, name):,}")
    print_results(amounts)
    if derived.account.dropped:
        dropped = ((f"{count:,}", label) for label, count in derived.account.dropped.most_common())
        print_results(pairs_table(dropped, "dropped", "by"))
    print_results(*_remarks(derived), f"dataset: {dest}")


def _remarks(derived: Derived) -> Iterator[str]:
    yield f"{derived.shards_new} shards made now, {derived.totals.shards} there"
    if not derived.is_complete:
        left = derived.shards_planned - derived.totals.shards
        yield f"incomplete: {left} planned shards are not committed yet; the same command goes on"
