"""Reasons of rejections, with a few examples of each."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from heapq import nsmallest
from typing import NamedTuple

import pyarrow as pa

EXAMPLES_PER_REASON = 3  # per reason

# The columns to read from a rejects file.
REASON_COLUMNS = ("index", "task", "key", "uri", "member", "stage", "error_type", "message")


class Reason(NamedTuple):
    stage: str
    error_type: str


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class RejectionExample:
    """A rejected sample. They are ordered by index, since an archive is read from the front."""

    index: int
    shard_id: str
    key: str
    uri: str
    message: str


@dataclass(slots=True, kw_only=True)
class Reasons:
    """Counts of rejections, one for each task of a sample, and examples."""

    counts: Counter[Reason] = field(default_factory=Counter)
    examples: defaultdict[Reason, list[RejectionExample]] = field(
        default_factory=lambda: defaultdict(list)
    )

    def add(self, rows: pa.RecordBatch, shard_id: str) -> None:
        found = defaultdict(list)
        for row in rows.to_pylist():
            found[Reason(row["stage"], row["error_type"])].append(
                RejectionExample(
                    index=row["index"],
                    shard_id=shard_id,
                    key=row["key"],
                    uri=row["uri"],
                    message=row["message"],
                )
            )
        for reason, some in found.items():
            self.counts[reason] += len(some)
            self._keep(reason, some)

    def merge(self, other: "Reasons") -> None:
        self.counts.update(other.counts)
        for reason, some in other.examples.items():
            self._keep(reason, some)

    def _keep(self, reason: Reason, some: Iterable[RejectionExample]) -> None:
        """Keep the first examples, each sample once, although it is rejected once per task."""
        by_sample = {(s.index, s.shard_id): s for s in [*some, *self.examples[reason]]}
        self.examples[reason] = nsmallest(EXAMPLES_PER_REASON, by_sample.values())
