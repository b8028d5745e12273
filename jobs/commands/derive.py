"""`kosmos2 filter` and `dedup`: make a dataset from another, and show what was dropped."""

from collections.abc import Iterator

from jobs.options.groups import DatasetArgument, NewDatasetArgument, named_dataset, with_flags
from jobs.terminal import DataTable, counting_bar, pairs_table, print_results
from pipeline.derived.deriving import Derived
from pipeline.derived.options import DedupOptions, FilterOptions
from pipeline.exit_codes import ExitCode


@with_flags
def filter_command(
    output: DatasetArgument, dest: NewDatasetArgument, /, *, options: FilterOptions
) -> int:
    """Make a dataset of the boxes, entities and annotations that meet all conditions.

    Boxes are filtered first, then entities, then annotations. An entity is dropped with its last
    box. An annotation is dropped only by a condition on annotations (--where, --with-issue,
    --without-issue). Dropped annotations are rejects in DEST, and DEST/_DERIVED.json counts them.
    To resume, run the same command again.

    ```
    kosmos2 filter s3://bucket/out/ s3://bucket/good/ --min-score 0.5 \\
        --without-issue truncated --where "box_count BETWEEN 1 AND 20"
    kosmos2 filter out/ good/ --where-box "score * exp(phrase_logprob) >= 0.4" \\
        --where-entity "phrase NOT ILIKE '%man%'" --where "metadata->>'license' = 'by'"
    ```
    """
    dataset = named_dataset(output, options)
    with counting_bar() as observe:
        derived = dataset.filter(dest, on_progress=observe, **options.model_dump())
    _report(derived, dest)
    return ExitCode.DONE


@with_flags
def dedup_command(
    output: DatasetArgument, dest: NewDatasetArgument, /, *, options: DedupOptions
) -> int:
    """Make a dataset with one copy of each image.

    Each dropped copy is a reject in DEST that names the copy which was kept, and DEST/_DERIVED.json
    counts them. To resume, or to add what OUTPUT has annotated since, run the same command again.
    Images that DEST keeps stay; only new images are read, and compared with them and among
    themselves.

    ```
    kosmos2 dedup s3://bucket/out/ s3://bucket/unique/
    kosmos2 dedup s3://bucket/out/ s3://bucket/unique/ --near 4
    ```
    """
    dataset = named_dataset(output, options)
    with counting_bar() as observe:
        derived = dataset.dedup(dest, on_progress=observe, **options.model_dump())
    _report(derived, dest)
    return ExitCode.DONE


def _report(derived: Derived, dest: str) -> None:
    before, after = derived.account.before, derived.account.after
    amounts = DataTable("", "before", "after")
    for name in ("annotations", "entities", "boxes"):
        amounts.add_row(name, f"{getattr(before, name):,}", f"{getattr(after, name):,}")
    print_results(amounts)
    if derived.account.dropped:
        dropped = ((f"{count:,}", label) for label, count in derived.account.dropped.most_common())
        print_results(pairs_table(dropped, "dropped", "by"))
    print_results(*_remarks(derived), f"dataset: {dest}")


def _remarks(derived: Derived) -> Iterator[str]:
    yield from (each for each in derived.parameters if each.startswith("--min-precision"))
    new = derived.account_new
    yield (
        f"new shards: {derived.shards_new:,}, annotations kept in them: "
        f"{new.after.annotations:,} of {new.before.annotations:,}; shards in total: "
        f"{derived.totals.shards:,}"
    )
    if not derived.is_complete:
        left = derived.shards_planned - derived.totals.shards
        yield (
            f"incomplete: {left} planned shards are not committed yet; annotate them, then run the "
            "same command again"
        )
