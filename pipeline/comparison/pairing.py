"""A join of the rows of two datasets by sample and task.

Rows at the same place of the same shard with the same bytes are joined shard by shard. The others
are kept in a DuckDB database on disk. They are joined by their bytes first, then by their place.
They are few if both datasets have the same plan.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import duckdb
import pyarrow as pa

from pipeline.report.cards import CARD_COLUMNS
from pipeline.schema import ANNOTATION

Side = Literal["a", "b"]

COMPARED = pa.schema([ANNOTATION.field(name) for name in CARD_COLUMNS])
_ROWS = 2048  # rows held as Python objects at a time

# A sample that occurs several times is joined copy by copy, in order.
_JOIN = """
CREATE TABLE keys AS SELECT id, side, shard_id, index, task, image_sha256, row_number() OVER (
    PARTITION BY side, image_sha256, task ORDER BY shard_id, index) AS copy FROM rest;
CREATE TABLE joined AS SELECT a.id AS id_a, b.id AS id_b
    FROM keys a JOIN keys b USING (image_sha256, task, copy) WHERE a.side = 'a' AND b.side = 'b';
CREATE TABLE alone AS SELECT * FROM keys
    WHERE id NOT IN (SELECT id_a FROM joined) AND id NOT IN (SELECT id_b FROM joined);
INSERT INTO joined SELECT a.id, b.id
    FROM alone a JOIN alone b USING (shard_id, index, task) WHERE a.side = 'a' AND b.side = 'b';
"""
_JOINED = """
SELECT a, b FROM joined JOIN rest a ON a.id = id_a JOIN rest b ON b.id = id_b
ORDER BY a.shard_id, a.index, a.task
"""
_ALONE = """
SELECT task, count(*) FROM rest WHERE side = ?
AND id NOT IN (SELECT id_a FROM joined) AND id NOT IN (SELECT id_b FROM joined) GROUP BY task
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A row of each dataset, for the same sample and task. Both have the columns `COMPARED`."""

    a: Mapping[str, Any]
    b: Mapping[str, Any]

    @property
    def has_same_bytes(self) -> bool:
        return bool(self.a["image_sha256"] == self.b["image_sha256"])


class Pairing:
    """Shards are added by `of_shard`; then `rest` joins what is left, and `alone` counts.

    `file` is created. It holds the rows that `of_shard` does not join.
    """

    def __init__(self, file: Path) -> None:
        self._database = duckdb.connect(
            str(file), config={"temp_directory": str(file.with_suffix(".tmp"))}
        )
        self._database.execute("CREATE SEQUENCE ids")
        self._database.register("given", COMPARED.empty_table())
        self._database.execute(
            "CREATE TABLE rest AS SELECT nextval('ids') AS id, '' AS side, * FROM given"
        )

    def of_shard(self, a: pa.Table, b: pa.Table) -> Iterator[Pair]:
        """Yield the pairs within one shard; `a` and `b` are its rows in each dataset."""
        places = {key: i for i, key in enumerate(_keys(b))}
        found = [(i, places.pop(key)) for i, key in enumerate(_keys(a)) if key in places]
        both = zip(
            *(
                table.take(pa.array(numbers, pa.int64())).to_pylist()
                for table, numbers in zip((a, b), _columns(found), strict=True)
            ),
            strict=True,
        )
        yield from (Pair(a=row, b=other) for row, other in both)
        joined = {i for i, _ in found}
        self._keep("a", a, [i for i in range(a.num_rows) if i not in joined])
        self._keep("b", b, sorted(places.values()))

    def rest(self) -> Iterator[Pair]:
        """Join what `of_shard` left, and yield the pairs by the place of `a`. Call it once."""
        self._database.execute(_JOIN)
        for batch in self._database.sql(_JOINED).to_arrow_reader(_ROWS):
            yield from (Pair(a=row["a"], b=row["b"]) for row in batch.to_pylist())

    def alone(self, side: Side) -> dict[str, int]:
        """Count the rows of one dataset that have no partner, by task. Call it after `rest`."""
        return dict(self._database.execute(_ALONE, [side]).fetchall())

    def close(self) -> None:
        self._database.close()

    def _keep(self, side: Side, table: pa.Table, rows: list[int]) -> None:
        if rows:
            self._database.register("given", table.take(pa.array(rows, pa.int64())))
            self._database.execute(
                "INSERT INTO rest SELECT nextval('ids'), ?, * FROM given", [side]
            )


def _keys(table: pa.Table) -> Iterator[tuple[int, str, bytes]]:
    names = ("index", "task", "image_sha256")
    return zip(*(table[name].to_pylist() for name in names), strict=True)


def _columns(pairs: list[tuple[int, int]]) -> tuple[list[int], list[int]]:
    return [a for a, _ in pairs], [b for _, b in pairs]
