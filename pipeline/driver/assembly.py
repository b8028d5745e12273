"""Collection of the rows of one shard until they are complete."""

from collections import Counter
from dataclasses import dataclass, field
from itertools import product

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.dataset.commit import FormerCommit, RowKey, Rows, row_keys, sorted_rows
from pipeline.dataset.shards import Shard
from pipeline.errors import InputChanged
from pipeline.schema import ANNOTATION, REJECTION, ShardEnd


@dataclass(slots=True, kw_only=True)
class Assembly:
    """The rows of a shard that have arrived. An (index, task) counts once."""

    shard: Shard
    tasks: tuple[str, ...]
    schema: pa.Schema = ANNOTATION  # schema of the annotations
    end: ShardEnd | None = None
    _seen: set[RowKey] = field(default_factory=set)
    _annotated: list[pa.Table] = field(default_factory=list)
    _rejected: list[pa.Table] = field(default_factory=list)

    def add(self, rows: pa.Table) -> int:
        """Add rows of `schema.ANNOTATED`, all of this shard; return how many are new."""
        before = len(self._seen)
        self._annotated.append(self._unseen(rows["annotated"], self.schema))
        self._rejected.append(self._unseen(rows["rejected"], REJECTION))
        for end in rows["end"].drop_null().to_pylist():
            self.end = ShardEnd(**end)
        return len(self._seen) - before

    @property
    def is_complete(self) -> bool:
        """Return whether every sample is annotated or rejected for every task."""
        if self.end is None or self.end.error_type is not None:
            return False
        wanted = range(self.end.samples) if self.shard.only is None else self.shard.only
        if len(self._seen) != len(wanted) * len(self.tasks):
            return False
        return self._seen == set(product(wanted, self.tasks))

    @property
    def samples(self) -> int:
        assert self.end is not None
        return self.end.samples

    def rows(self) -> Rows:
        return Rows(
            annotated=sorted_rows(self._annotated, self.schema, self.tasks),
            rejected=sorted_rows(self._rejected, REJECTION, self.tasks),
        )

    def rejected_samples(self) -> int:
        return len(set(self.rows().rejected["index"].to_pylist()))

    def top_reasons(self, count: int = 3) -> list[tuple[str, int]]:
        return Counter(self.rows().rejected["error_type"].to_pylist()).most_common(count)

    def _unseen(self, column: pa.ChunkedArray, schema: pa.Schema) -> pa.Table:
        structs = column.drop_null()
        table = pa.Table.from_arrays(
            [pc.struct_field(structs, [i]) for i in range(len(schema))], schema=schema
        )
        return table.filter(pa.array([self._is_new(key) for key in row_keys(table)], pa.bool_()))

    def _is_new(self, key: RowKey) -> bool:
        if key in self._seen:
            return False
        self._seen.add(key)
        return True


def with_answers(former: FormerCommit, assembly: Assembly) -> Rows:
    """Replace rejected rows by their answers; no other row changes.

    Raises InputChanged if the shard no longer reads as it did when it was committed.
    """
    old, new = former.rows, assembly.rows()
    _check_same_samples(former, assembly.samples, new)
    rejected = set(row_keys(old.rejected))
    answered, again = _of_keys(new.annotated, rejected), _of_keys(new.rejected, rejected)
    left = rejected - set(row_keys(answered)) - set(row_keys(again))
    kept = _of_keys(old.rejected, left)
    return Rows(
        annotated=sorted_rows([old.annotated, answered], assembly.schema, assembly.tasks),
        rejected=sorted_rows([kept, again], REJECTION, assembly.tasks),
    )


def _check_same_samples(former: FormerCommit, samples: int, rows: Rows) -> None:
    before, names = former.committed.samples, dict(_names(former.rows.rejected))
    found = dict(_names(rows.annotated) + _names(rows.rejected))
    if samples != before or any(names.get(i, name) != name for i, name in found.items()):
        raise InputChanged(
            f"{former.key}: the shard now reads as {samples} samples instead of {before}, or under "
            "other keys; restore the input, or delete this file and run `annotate` again"
        )


def _of_keys(table: pa.Table, keys: set[RowKey]) -> pa.Table:
    return table.filter(pa.array([key in keys for key in row_keys(table)], pa.bool_()))


def _names(table: pa.Table) -> list[tuple[int, str]]:
    return list(zip(table["index"].to_pylist(), table["key"].to_pylist(), strict=True))
