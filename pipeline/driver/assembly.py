"""Collection of the rows of one shard until they are complete."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.dataset.commit import FormerCommit, RowKey, Rows, row_keys, sorted_rows
from pipeline.dataset.shards import Shard
from pipeline.errors import InputChanged
from pipeline.schema import ANNOTATION, REJECTION, Original, ShardEnd


def by_shard(table: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    """Split rows of `schema.ANNOTATED` by shard, without a copy if each shard's are together."""
    ids = table["shard_id"].combine_chunks().dictionary_encode()
    names, codes = ids.dictionary.to_pylist(), ids.indices.to_numpy()
    if np.any(codes[1:] < codes[:-1]):
        order = np.argsort(codes, kind="stable")
        table, codes = table.take(order), codes[order]
    bounds = np.searchsorted(codes, np.arange(len(names) + 1))
    for name, start, end in zip(names, bounds, bounds[1:], strict=False):
        yield name, table.slice(start, end - start)


class _Keys:
    """The (index, task) of rows, as numbers. A task that the job does not have is the last one."""

    def __init__(self, tasks: tuple[str, ...]) -> None:
        self._tasks = pa.array(tasks, pa.string())
        self._width = len(tasks) + 1
        self._seen = np.zeros(0, bool)
        self.count = 0  # of all keys seen

    def take_new(self, structs: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
        """Add the keys of the rows that are not null.

        Returns the index of each of them, and which of them had not been seen.
        """
        index = pc.struct_field(structs, "index").drop_null().to_numpy()
        task = pc.index_in(pc.struct_field(structs, "task").drop_null(), self._tasks)
        keys = index.astype(np.int64) * self._width + task.fill_null(self._width - 1).to_numpy()
        is_new = np.zeros(len(keys), bool)
        is_new[np.unique(keys, return_index=True)[1]] = True
        if len(keys) and (short := int(keys.max()) + 1 - len(self._seen)) > 0:
            self._seen = np.concatenate([self._seen, np.zeros(max(short, len(self._seen)), bool)])
        is_new &= ~self._seen[keys]
        self._seen[keys] = True
        self.count += int(np.count_nonzero(is_new))
        return index, is_new

    def are(self, wanted: "range | tuple[int, ...]") -> bool:
        """Return whether the keys are those of each of these samples with each task."""
        tasks = self._width - 1
        if self.count != len(wanted) * tasks:
            return False
        keys = np.asarray(wanted, np.int64)[:, None] * self._width + np.arange(tasks)
        return not keys.size or (keys.max() < len(self._seen) and bool(self._seen[keys].all()))


@dataclass(frozen=True, slots=True)
class _Part:
    """Rows in a column of structs; null is no row. `is_new` tells which rows count."""

    structs: pa.ChunkedArray
    is_new: np.ndarray

    def new(self, name: str) -> list[str]:
        """Return a field of the rows that count."""
        values = pc.struct_field(self.structs, name).drop_null()
        return list(values.filter(self.is_new).to_pylist())

    def rows(self, schema: pa.Schema) -> pa.Table:
        structs = self.structs.drop_null() if self.structs.null_count else self.structs
        fields = [pc.struct_field(structs, [i]) for i in range(len(schema))]
        table = pa.Table.from_arrays(fields, schema=schema)
        return table if self.is_new.all() else table.filter(pa.array(self.is_new))


@dataclass(kw_only=True)
class Assembly:
    """The rows of a shard that have arrived. An (index, task) counts once.

    Rows may be their keys only (see `StoredTable`): all but `rows` and `copies` can be asked then.
    """

    shard: Shard
    tasks: tuple[str, ...]
    schema: pa.Schema = ANNOTATION  # schema of the annotations
    end: ShardEnd | None = None
    copies: dict[int, Original] = field(default_factory=dict)  # of whole rows only
    _annotated: list[_Part] = field(default_factory=list)
    _rejected: list[_Part] = field(default_factory=list)
    _rejected_samples: set[int] = field(default_factory=set)

    @cached_property
    def _keys(self) -> _Keys:
        return _Keys(self.tasks)

    def add(self, rows: pa.Table) -> int:
        """Add rows of `schema.ANNOTATED`, all of this shard; return how many are new."""
        before = self._keys.count
        for name, parts in (("annotated", self._annotated), ("rejected", self._rejected)):
            if rows[name].null_count < rows.num_rows:
                index, is_new = self._keys.take_new(rows[name])
                parts.append(_Part(rows[name], is_new))
                if name == "rejected":
                    self._rejected_samples.update(index[is_new].tolist())
        if "copy" in rows.column_names:
            notes = rows["copy"].drop_null().to_pylist()
            self.copies |= {note["index"]: Original(**note["original"]) for note in notes}
        if rows["end"].null_count < rows.num_rows:
            self.end = ShardEnd(**rows["end"].drop_null()[-1].as_py())
        return self._keys.count - before

    @property
    def is_complete(self) -> bool:
        """Return whether every sample is annotated or rejected for every task."""
        if self.end is None or self.end.error_type is not None:
            return False
        return self._keys.are(
            range(self.end.samples) if self.shard.only is None else self.shard.only
        )

    @property
    def samples(self) -> int:
        assert self.end is not None
        return self.end.samples

    def rows(self) -> Rows:
        return Rows(
            annotated=self._sorted(self._annotated, self.schema),
            rejected=self._sorted(self._rejected, REJECTION),
        )

    def rejected_samples(self) -> int:
        return len(self._rejected_samples)

    def top_reasons(self, count: int = 3) -> list[tuple[str, int]]:
        reasons = (reason for part in self._rejected for reason in part.new("error_type"))
        return Counter(reasons).most_common(count)

    def _sorted(self, parts: list[_Part], schema: pa.Schema) -> pa.Table:
        return sorted_rows([part.rows(schema) for part in parts], schema, self.tasks)


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
