"""Filtering: keep what meets the conditions, boxes first, then entities, then annotations.

A condition on an entity sees the remaining boxes. A condition on an annotation sees the row as it
will be written, with its flags recomputed.
"""

import math
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import nullcontext
from functools import partial

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.dataset.commit import open_commit
from pipeline.dataset.dataset import StoredDataset
from pipeline.dataset.ledger import Ledger
from pipeline.dataset.shards import Shard
from pipeline.derived.account import Account
from pipeline.derived.conditions import Condition
from pipeline.derived.deriving import Derived, Pruned, PruneStep, derive
from pipeline.derived.options import FilterOptions
from pipeline.derived.pruning import amount, rejections, without_boxes, without_entities
from pipeline.derived.querying import Conditions
from pipeline.errors import SpecError
from pipeline.progress import ObserveShards
from pipeline.review.judgements import curve_of
from pipeline.schema import ANNOTATION
from pipeline.spec.identity import Derivation
from pipeline.storage import OutputStore

_STAGE = "filter"
ERROR_TYPE = "filtered"
BOXLESS = "entity: its last box was dropped"


def filter_dataset(
    dataset: StoredDataset,
    destination: OutputStore,
    options: FilterOptions,
    observe: ObserveShards = lambda done, of: None,
) -> Derived:
    """Write what meets `options` of all commits of `dataset` to a dataset in `destination`.

    Raises SpecError for a condition that cannot be evaluated, and for a destination that holds
    something else; PipelineError if storage fails.
    """
    conditions = (*_by_precision(dataset, options), *options.conditions)
    if not conditions:
        raise SpecError(
            f"{dataset.store.uri} cannot be filtered without a condition; give at least one: "
            "--where, --min-score, --without-issue, ..."
        )
    if options.min_consistency is not None and not dataset.record.identity.verify_boxes:
        raise SpecError(
            f"{dataset.store.uri} has no consistencies, so --min-consistency cannot be used; leave "
            "it out, or annotate with --verify-boxes"
        )
    derivation = Derivation(
        operation="filter",
        source_fingerprint=dataset.record.fingerprint,
        parameters=tuple(condition.option for condition in conditions),
    )
    commits = Ledger(dataset.store).summaries()
    keeps = Filter(conditions, _schema(dataset, commits))
    step = PruneStep(commits=commits, prepare=lambda: nullcontext(keeps))
    access = options.dest_storage
    return derive(dataset, destination, access, derivation, lambda done: [step], observe)


def _by_precision(dataset: StoredDataset, options: FilterOptions) -> Iterator[Condition]:
    """Yield the condition of --min-precision, with the score and the judgements it rests on."""
    if options.min_precision is None:
        return
    curve = curve_of(dataset.store)
    score, precision = curve.threshold(options.min_precision)
    if score is None:
        raise SpecError(
            f"no score of {dataset.store.uri} gives a precision of {options.min_precision}; by "
            f"{curve.judgements} judgements, the best is {precision:.3f}: ask for less"
        )
    least = math.floor(score * 1e6) / 1e6  # scores are stored in single precision
    yield Condition(
        level="box",
        option=f"--min-precision {options.min_precision} (score >= {least}, by "
        f"{curve.judgements} judgements)",
        sql=f"coalesce(score >= {least}, true)",
    )


def _schema(dataset: StoredDataset, commits: Collection[str]) -> pa.Schema:
    """Return the schema that all annotations files share."""
    if not commits:
        return ANNOTATION
    with open_commit(dataset.store, min(commits)) as commit:
        return commit.parquet.schema_arrow


class Filter:
    """Prune tables by conditions. Any thread may call it."""

    def __init__(self, conditions: Sequence[Condition], schema: pa.Schema = ANNOTATION) -> None:
        """Prepare the conditions. Raises SpecError for one that does not fit rows of `schema`."""
        of_level = partial(Conditions, conditions, schema=schema)
        self._boxes, self._entities = of_level("box"), of_level("entity")
        self._annotations = of_level("annotation")

    def __call__(self, shard: Shard, rows: pa.Table) -> Pruned:
        dropped = Counter[str]()
        left = rows
        if self._boxes.conditions:
            unmet = _counted(self._boxes, left, dropped)
            left, boxless = without_boxes(left, unmet < 0)
            dropped[BOXLESS] += boxless
        if self._entities.conditions:
            unmet = _counted(self._entities, left, dropped)
            left = without_entities(left, unmet < 0)
        unmet = _counted(self._annotations, left, dropped)
        kept = left.filter(pa.array(unmet < 0))
        conditions = self._annotations.conditions
        return Pruned(
            annotated=kept,
            rejected=rejections(
                rows.filter(pa.array(unmet >= 0)),
                stage=_STAGE,
                error_types=[ERROR_TYPE] * int(np.count_nonzero(unmet >= 0)),
                messages=[conditions[number].option for number in unmet[unmet >= 0]],
            ),
            account=Account(before=amount(rows), after=amount(kept), dropped=+dropped),
        )


def _counted(
    conditions: Conditions, rows: pa.Table, dropped: Counter[str]
) -> npt.NDArray[np.int64]:
    unmet = conditions.first_unmet(rows)
    for number, condition in enumerate(conditions.conditions):
        dropped[condition.label] += int(np.count_nonzero(unmet == number))
    return unmet
