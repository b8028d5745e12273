"""Parquet files of the dataset: verified bytes of tables, and their metadata."""

import io
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from kosmos2_core.errors import first_line
from pipeline.errors import CorruptOutput
from pipeline.storage import OutputStore

_PREFIX = "kosmos2."
# Errors of pyarrow for damaged files. ArrowInvalid is a ValueError, ArrowIOError an OSError.
PARQUET_ERRORS = (pa.ArrowException, OSError, ValueError, LookupError, OverflowError, MemoryError)


@dataclass(frozen=True, slots=True, kw_only=True)
class ParquetFile:
    """A file that was read back. `table` carries no metadata of its own."""

    table: pa.Table
    metadata: dict[str, str]  # the `kosmos2.` keys, without their prefix
    row_groups: int


class ParquetWriter:
    """The writer of all Parquet files: datasets, plans, exports.

    A table without rows adds no row group: Hugging Face `datasets` reads a file in batches of the
    size of its first group, and fails if that is 0.
    """

    def __init__(self, sink: BinaryIO, schema: pa.Schema) -> None:
        # Checksums reveal a flipped bit even if the values stay valid.
        self._writer = pq.ParquetWriter(sink, schema, compression="zstd", write_page_checksum=True)

    def write(self, table: pa.Table, rows_per_group: int | None = None) -> None:
        if table.num_rows:
            self._writer.write_table(table, rows_per_group)

    def close(self) -> None:
        self._writer.close()


def parquet_bytes(
    table: pa.Table,
    metadata: Mapping[str, object] | None = None,
    *,
    rows_per_group: int | None = None,
) -> bytes:
    """Return a finished Parquet file with `metadata` as `kosmos2.<name>` keys (strings, or JSON).

    The bytes are read back before they may be committed. Raises CorruptOutput.
    """
    entries = {
        f"{_PREFIX}{name}": value if isinstance(value, str) else json.dumps(value)
        for name, value in (metadata or {}).items()
    }
    given = table.replace_schema_metadata(entries or None)
    buffer = io.BytesIO()
    writer = ParquetWriter(buffer, given.schema)
    writer.write(given, rows_per_group)
    writer.close()
    data = buffer.getvalue()
    _verify(data, table)
    return data


def read_parquet(
    name: str, data: bytes, schema: pa.Schema | None = None, *, optional: str | None = None
) -> ParquetFile:
    """Read the whole file and verify its page checksums.

    `optional` names the last column of `schema` if earlier versions did not write it: it is null
    then.

    Raises CorruptOutput, naming the file, if it is damaged or does not have the given `schema`.
    """
    try:
        file = pq.ParquetFile(io.BytesIO(data), page_checksum_verification=True)
        table = file.read().replace_schema_metadata(None)
        table.validate(full=True)
        if schema is not None and optional is not None and optional not in table.column_names:
            column = schema.field(optional)
            table = table.append_column(column, pa.nulls(table.num_rows, column.type))
        found = ParquetFile(
            table=table,
            metadata=footer_metadata(file.metadata),
            row_groups=file.num_row_groups,
        )
    except PARQUET_ERRORS as error:
        raise _damaged(name, error) from error
    if schema is not None and not table.schema.equals(schema):
        raise CorruptOutput(
            f"{name} does not have the columns that this version writes; use the version that "
            "wrote it, or another output"
        )
    return found


@contextmanager
def opened(store: OutputStore, key: str) -> Iterator[BinaryIO]:
    """Open a file to read a part of it. Raises CorruptOutput if the part is damaged."""
    try:
        with store.open(key) as file:
            yield file
    except (pa.ArrowException, OSError) as error:
        raise _damaged(key, error) from error
    except LookupError as error:
        raise CorruptOutput(
            f"{key} has no {error} in its metadata, so another program wrote it; "
            f"run `kosmos2 verify {store.uri}`"
        ) from error


def file_metadata(data: bytes) -> dict[str, str]:
    """Return the `kosmos2.` keys of a file's footer, without their prefix."""
    return footer_metadata(pq.read_metadata(io.BytesIO(data)))


def footer_metadata(footer: pq.FileMetaData) -> dict[str, str]:
    return {
        key.decode().removeprefix(_PREFIX): value.decode()
        for key, value in (footer.metadata or {}).items()
        if key.decode().startswith(_PREFIX)
    }


def _damaged(name: str, error: BaseException) -> CorruptOutput:
    return CorruptOutput(f"{name} is damaged ({first_line(error)}); run `kosmos2 verify`")


def _verify(data: bytes, table: pa.Table) -> None:
    file = pq.ParquetFile(io.BytesIO(data))
    same_schema = file.schema_arrow.equals(table.schema, check_metadata=False)
    if file.metadata.num_rows != table.num_rows or not same_schema:
        raise CorruptOutput(
            "a Parquet file reads back differently from what was written, so it was not stored; "
            "check this machine's memory, then run the same command again"
        )
