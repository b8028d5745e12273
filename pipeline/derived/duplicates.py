"""A search for copies of images in a DuckDB database. Only the copies' ranks are in memory.

Images have a rank: first those that earlier rounds kept, then the others, the best first. A copy
has the same bytes as a better image, or looks similar to an image that is kept. So each dropped
image has a twin that is kept, within the requested distance.
Similarity is not transitive: it is never passed on from one image to the next.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, pairwise
from pathlib import Path
from typing import Literal

import duckdb
import numpy as np
import pyarrow as pa

from pipeline.derived.perceptual import BITS

Keep = Literal["largest", "first"]

_RANK = """
CREATE TABLE ranked AS SELECT shard, index, sha256, is_kept,
    row_number() OVER (ORDER BY is_kept DESC, {}) AS rank FROM images
"""
_ORDER: dict[Keep, str] = {"largest": "area DESC, shard, index", "first": "shard, index"}
_PAIRS = 100_000  # pairs of images held as Python objects at a time
_FEW = 8  # images that may agree under a mask by chance
_MOST_AGREEING = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagePosition:
    """The position of an image: the ordinal of its shard in the plan, and its index there."""

    shard: int
    index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Twin:
    """The image that is kept. `distance` counts the bits in which the hashes differ.

    It is None if both images have the same bytes.
    """

    place: ImagePosition
    distance: int | None


class Duplicates:
    """Images are added, then ranked; their hashes are added, then compared.

    `file` is created; it may grow to some 100 bytes per image.
    """

    def __init__(self, file: Path, *, keep: Keep) -> None:
        self._database = duckdb.connect(
            str(file), config={"temp_directory": str(file.with_suffix(".tmp"))}
        )
        self._keep = keep
        self._run(
            "CREATE TABLE images (shard INT, index INT, sha256 BLOB, area BIGINT, is_kept BOOLEAN)"
        )
        self._run("CREATE TABLE looks (rank BIGINT, looks UBIGINT)")
        self._run("CREATE TABLE kinds (looks UBIGINT, rank BIGINT)")  # the best of equal hashes
        self._run("CREATE TABLE copies (rank BIGINT, twin BIGINT)")

    def add_images(self, shard: int, rows: pa.Table, *, is_kept: bool = False) -> None:
        """Add images; `rows` have index, image_sha256, width and height, and may repeat images.

        Images that an earlier round kept are kept again; none of them is a copy of another.
        """
        width, height = (rows[side].to_numpy().astype(np.int64) for side in ("width", "height"))
        _, first = np.unique(rows["index"].to_numpy(), return_index=True)
        table = pa.table(
            {
                "shard": pa.repeat(shard, rows.num_rows),
                "index": rows["index"],
                "sha256": rows["image_sha256"],
                "area": width * height,
                "is_kept": pa.repeat(is_kept, rows.num_rows),
            }
        )
        self._insert("images", table.take(first))

    def rank(self) -> None:
        """Rank all images. Call it once, after all images are added."""
        self._run(_RANK.format(_ORDER[self._keep]))
        self._run(
            "CREATE TABLE exact AS SELECT rank, min(rank) OVER (PARTITION BY sha256) AS twin "
            "FROM ranked"
        )

    def different(self, shard: int) -> list[int]:
        """Return the indices of a shard's images whose bytes no better image has, in order."""
        found = self._run(
            "SELECT index FROM ranked JOIN exact USING (rank) "
            "WHERE rank = twin AND shard = ? ORDER BY index",
            [shard],
        ).fetchall()
        return [index for (index,) in found]

    def add_looks(self, shard: int, looks: dict[int, int]) -> None:
        """Add the perceptual hashes of a shard's images, by index."""
        if looks:
            table = pa.table(
                {
                    "index": pa.array(looks.keys(), pa.int32()),
                    "looks": pa.array(looks.values(), pa.uint64()),
                }
            )
            self._database.register("given", table)
            self._run(
                "INSERT INTO looks SELECT rank, given.looks FROM given JOIN ranked USING (index) "
                "WHERE shard = ?",
                [shard],
            )
            self._database.unregister("given")

    def compare(self, *, near: int) -> None:
        """Find images that differ in at most `near` bits. Call it once, after `add_looks`."""
        self._run("INSERT INTO kinds SELECT looks, min(rank) FROM looks GROUP BY looks")
        self._run("CREATE TABLE pairs (better BIGINT, worse BIGINT)")
        ((count,),) = self._run("SELECT count(*) FROM kinds").fetchall()
        ((kept,),) = self._run("SELECT count(*) FROM ranked WHERE is_kept").fetchall()
        for mask in masks(near=near, count=count):
            self._run(_COMPARE, [mask, near, kept])
        copies = dict(self._copies())
        self._insert(
            "copies",
            pa.table(
                {
                    "rank": pa.array(copies.keys(), pa.int64()),
                    "twin": pa.array(copies.values(), pa.int64()),
                }
            ),
        )

    def of_shard(self, shard: int) -> dict[int, Twin]:
        """Return the copies in a shard, by index. Any thread may call it after `compare`."""
        with self._database.cursor() as connection:
            found = connection.execute(_TWINS, [shard]).fetchall()
        return {
            index: Twin(place=ImagePosition(shard=twin_shard, index=twin_index), distance=distance)
            for index, twin_shard, twin_index, distance in found
        }

    def close(self) -> None:
        self._database.close()

    def _copies(self) -> Iterator[tuple[int, int]]:
        """Yield the rank of each near copy, and of the image that is kept."""
        dropped: set[int] = set()
        pairs = self._run("SELECT DISTINCT better, worse FROM pairs ORDER BY better, worse")
        while some := pairs.fetchmany(_PAIRS):
            for better, worse in some:
                # All pairs in which `better` is the worse one came earlier.
                if better not in dropped and worse not in dropped:
                    dropped.add(worse)
                    yield worse, better

    def _insert(self, table: str, rows: pa.Table) -> None:
        self._database.register("given", rows)
        self._run(f"INSERT INTO {table} SELECT * FROM given")  # noqa: S608 - the name is a constant
        self._database.unregister("given")

    def _run(self, sql: str, parameters: list[int] | None = None) -> duckdb.DuckDBPyConnection:
        return self._database.execute(sql, parameters)


_COMPARE = """
INSERT INTO pairs
WITH masked AS (SELECT *, looks & $1::UBIGINT AS key FROM kinds)
SELECT a.rank, b.rank FROM masked a JOIN masked b USING (key)
WHERE a.rank < b.rank AND b.rank > $3 AND bit_count(xor(a.looks, b.looks)) <= $2
"""

# From an image to the best one with the same bytes, from that to the best one with the same hash,
# from that to the one that it is near to.
_TWINS = """
WITH alike AS (
    SELECT looks.rank, looks.looks, coalesce(copies.twin, kinds.rank) AS twin
    FROM looks JOIN kinds USING (looks) LEFT JOIN copies ON copies.rank = kinds.rank
)
SELECT p.index, t.shard, t.index,
    CASE WHEN p.sha256 = t.sha256 THEN NULL
    ELSE bit_count(xor(alike.looks, twins.looks)) END
FROM ranked p
JOIN exact USING (rank)
LEFT JOIN alike ON alike.rank = exact.twin
LEFT JOIN looks twins ON twins.rank = alike.twin
JOIN ranked t ON t.rank = coalesce(alike.twin, exact.twin)
WHERE p.shard = ? AND p.rank <> t.rank
"""


def masks(*, near: int, count: int) -> list[int]:
    """Return masks: hashes that differ in at most `near` bits agree under at least one of them.

    Of `near` + k runs of bits, they agree in k. A larger k means fewer chance matches among `count`
    images, but more masks.
    """
    for agreeing in range(1, _MOST_AGREEING + 1):
        runs = near + agreeing
        by_chance = count >> (BITS // runs * agreeing)
        if by_chance <= _FEW:
            break
    edges = [BITS * at // runs for at in range(runs + 1)]
    each = [(1 << high) - (1 << low) for low, high in pairwise(edges)]
    return [sum(chosen) for chosen in combinations(each, agreeing)]
