"""Lists of single-image objects, frozen beside the plan.

A plan of a million images has a thousand shards. Their images are listed in
`listings/<digest>.parquet`, one row group per shard, so that a reader reads only its own rows.
"""

from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.dataset.layout import listing_key
from pipeline.dataset.shards import Shard
from pipeline.errors import AlreadyExists, CorruptOutput
from pipeline.parquet import PARQUET_ERRORS, parquet_bytes, read_parquet
from pipeline.schema import LISTING
from pipeline.storage import OutputStore


class Listings(Protocol):
    def keep(self, table: pa.Table, rows_per_group: int) -> str:
        """Store rows of `schema.LISTING` and return the key to find them by."""

    def rows(self, shard: Shard) -> pa.Table:
        """Read the rows of a shard. Raises ObjectMissing, CorruptOutput, StorageError."""

    def whole(self, key: str) -> pa.Table:
        """Read all rows stored under a key. Raises as `rows` does."""


@dataclass(frozen=True, slots=True)
class StoredListings:
    """Listings in the output."""

    store: OutputStore

    def keep(self, table: pa.Table, rows_per_group: int) -> str:
        data = parquet_bytes(table, rows_per_group=rows_per_group)
        key = listing_key(data)
        with suppress(AlreadyExists):
            self.store.create(key, data)
        return key

    def rows(self, shard: Shard) -> pa.Table:
        assert shard.listing is not None
        assert shard.count is not None
        try:
            with self.store.open(shard.listing) as file:
                table = _rows(file, shard.first, shard.count)
        except PARQUET_ERRORS as error:
            raise CorruptOutput(
                f"{self.store.uri}/{shard.listing} is damaged ({error}); restore it from a backup, "
                "or use another output"
            ) from error
        if table.num_rows != shard.count or not table.schema.equals(LISTING):
            raise CorruptOutput(
                f"{self.store.uri}/{shard.listing} is not the list that the plan names; restore it "
                "from a backup, or use another output"
            )
        return table

    def whole(self, key: str) -> pa.Table:
        return read_parquet(key, self.store.get(key).data, LISTING).table


def _rows(file: object, first: int, count: int) -> pa.Table:
    with pq.ParquetFile(file, page_checksum_verification=True) as parquet:
        groups, before, start = list[int](), 0, 0
        for group in range(parquet.num_row_groups):
            rows = parquet.metadata.row_group(group).num_rows
            if before + rows > first and before < first + count:
                start = before if not groups else start
                groups.append(group)
            before += rows
        return parquet.read_row_groups(groups).slice(first - start, count)


@dataclass(frozen=True, slots=True)
class HeldListings:
    """Listings in memory, for a plan that is not stored."""

    tables: dict[str, pa.Table] = field(default_factory=dict)

    def keep(self, table: pa.Table, rows_per_group: int) -> str:
        key = str(len(self.tables))
        self.tables[key] = table
        return key

    def rows(self, shard: Shard) -> pa.Table:
        assert shard.listing is not None
        assert shard.count is not None
        return self.tables[shard.listing].slice(shard.first, shard.count)

    def whole(self, key: str) -> pa.Table:
        return self.tables[key]
