"""Rows of one shard, gathered until they are complete."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.dataset.shards import Shard
from pipeline.schema import ANNOTATION, REJECTION, ShardEnd

RowKey: TypeAlias = tuple[int, str]  # position and task: what names a row within its shard


@dataclass(slots=True, kw_only=True)
class Assembly:
    """What has arrived of a shard. A (index, task) counts once, whoever sends it again."""

    shard: Shard
    tasks: tuple[str, ...]
    schema: pa.Schema = ANNOTATION  # of the annotations
    end: ShardEnd | None = None
    _seen: set[RowKey] = field(default_factory=set)
    _annotated: list[pa.Table] = field(default_factory=list)
    _rejected: list[pa.Table] = field(default_factory=list)

    def add(self, rows: pa.Table) -> int:
        """Take in rows of `schema.ANNOTATED`, all of this shard; returns how many are new."""
        before = len(self._seen)
        self._annotated.append(self._unseen(rows["annotated"], self.schema))
        self._rejected.append(self._unseen(rows["rejected"], REJECTION))
        for end in rows["end"].drop_null().to_pylist():
            self.end = ShardEnd(**end)
        return len(self._seen) - before

    @property
    def is_complete(self) -> bool:
        """Every sample annotated or rejected for every task."""
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

    def annotated(self) -> pa.Table:
        return in_order(self._annotated, self.schema, self.tasks)

    def rejected(self) -> pa.Table:
        return in_order(self._rejected, REJECTION, self.tasks)

    def rejected_samples(self) -> int:
        return len(set(self.rejected()["index"].to_pylist()))

    def top_reasons(self, count: int = 3) -> list[tuple[str, int]]:
        return Counter(self.rejected()["error_type"].to_pylist()).most_common(count)

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


def row_keys(table: pa.Table) -> list[RowKey]:
    return list(zip(table["index"].to_pylist(), table["task"].to_pylist(), strict=True))


def in_order(tables: Sequence[pa.Table], schema: pa.Schema, tasks: Sequence[str]) -> pa.Table:
    """One table, by position and then in the order of `tasks`."""
    table = pa.concat_tables([schema.empty_table(), *tables])
    order = pc.index_in(table["task"], pa.array(tasks, pa.string()))
    by = table.append_column("order", order).sort_by(
        [("index", "ascending"), ("order", "ascending")]
    )
    return by.drop_columns(["order"]).combine_chunks()
