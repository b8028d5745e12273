"""A committed shard whose rejected samples are tried again: what it was, and what it becomes."""

from dataclasses import dataclass

import pyarrow as pa

from pipeline.driver.assembly import Assembly
from pipeline.errors import InputChanged
from pipeline.parquet import read_parquet
from pipeline.schema import ANNOTATION, REJECTION
from pipeline.storage import OutputStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Of one shard, in order."""

    annotated: pa.Table
    rejected: pa.Table


@dataclass(frozen=True, slots=True, kw_only=True)
class FormerCommit:
    """A commit as it lies on storage; `etag` is what a rewrite has to find there."""

    key: str
    etag: str
    commit_id: str
    samples: int
    rows: Rows

    def with_answers(self, assembly: Assembly) -> Rows:
        """Answers take the place of rejected rows; no other row changes, whatever came for it.

        Raises InputChanged where the shard is not read as it was when it was committed.
        """
        old, answered, again = self.rows, assembly.annotated(), assembly.rejected()
        self._check_same_samples(assembly.samples, [answered, again])
        rejected = set(row_keys(old.rejected))
        answered, again = _rows(answered, rejected), _rows(again, rejected)
        left = rejected - set(row_keys(answered)) - set(row_keys(again))
        return Rows(
            annotated=sorted_rows([old.annotated, answered], assembly.schema, assembly.tasks),
            rejected=sorted_rows([_rows(old.rejected, left), again], REJECTION, assembly.tasks),
        )

    def _check_same_samples(self, samples: int, tables: list[pa.Table]) -> None:
        names = dict(_names(self.rows.rejected))
        found = {index: name for table in tables for index, name in _names(table)}
        moved = [i for i, name in found.items() if names.get(i, name) != name]
        if samples != self.samples or moved:
            raise InputChanged(
                f"{self.key}: the shard is read as {samples} samples where it had {self.samples}, "
                "or under other keys: delete that file, and `annotate` makes the shard anew"
            )


def read_commit(store: OutputStore, key: str, schema: pa.Schema = ANNOTATION) -> FormerCommit:
    """Raises ObjectMissing, CorruptOutput."""
    data, etag = store.get(key)
    file = read_parquet(key, data, schema)
    return FormerCommit(
        key=key,
        etag=etag,
        commit_id=file.metadata["commit_id"],
        samples=int(file.metadata["samples"]),
        rows=Rows(
            annotated=file.table,
            rejected=read_rejects(store, file.metadata["rejects"]),
        ),
    )


def read_rejects(store: OutputStore, key: str) -> pa.Table:
    """Of the file that a commit names; "" is none. Raises ObjectMissing, CorruptOutput."""
    if not key:
        return REJECTION.empty_table()
    return read_parquet(key, store.get(key).data, REJECTION).table


def _rows(table: pa.Table, keys: set[RowKey]) -> pa.Table:
    return table.filter(pa.array([key in keys for key in row_keys(table)], pa.bool_()))


def _names(table: pa.Table) -> list[tuple[int, str]]:
    return list(zip(table["index"].to_pylist(), table["key"].to_pylist(), strict=True))
