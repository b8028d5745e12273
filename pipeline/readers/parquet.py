"""Parquet with the bytes of images: by row groups, a row at a time.

A row group that cannot be read costs its own rows: how many there are, the footer says.
"""

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import InputUnreadable
from pipeline.files import PARQUET_ERRORS
from pipeline.readers.columns import Columns, columns_of, holds_images, samples_of_batch
from pipeline.readers.limits import LEAST_ROW_BYTES, with_limited_metadata
from pipeline.readers.sample import Sample, Unreadable
from pipeline.storage.ranged import RangedFile

READ_BYTES = 8 << 20  # of one column at a time; a page that is larger is read whole
MAX_FOOTER_BYTES = 64 << 20
# Pictures hardly compress. A page may claim 2 GiB, whatever this says: so the format has it.
MAX_EXPANSION = 100
MIN_EXPANDED_BYTES = 256 << 20  # allowed whatever the ratio
_TABLE_ROWS = 16  # of a table without images, at a time
_TAIL_BYTES = 8  # length of the footer, "PAR1"


@dataclass(frozen=True, slots=True, kw_only=True)
class RowGroup:
    rows: int
    size_bytes: int  # compressed


def row_groups(file: RangedFile, uri: str) -> list[RowGroup]:
    """As the footer has them. Raises InputUnreadable."""
    return list(map(_group, _groups_of(_open(file, uri))))


def schema_of(file: RangedFile, uri: str) -> pa.Schema:
    """Raises InputUnreadable."""
    return _open(file, uri).schema_arrow


def table_rows(file: RangedFile, uri: str) -> Iterator[dict[str, Any]]:
    """All rows as they are, without images. Raises InputUnreadable, and PARQUET_ERRORS."""
    parquet = _open(file, uri)
    names = [field.name for field in parquet.schema_arrow if not holds_images(field.type)]
    for number in range(parquet.num_row_groups):
        _check_expansion(parquet, number)
        for batch in _batches(parquet, number, names, rows=_TABLE_ROWS):
            yield from batch.to_pylist()


def read_rows(
    file: RangedFile,
    uri: str,
    *,
    first: int,
    count: int | None,
    image_column: str | None,
    confirm: Callable[[], None],
    start: int = 0,
) -> Iterator[Sample | Unreadable]:
    """The samples of the rows [first, first + count), which are whole row groups; those of groups
    that end before the sample `start` are left out.

    `confirm` is called before rows are given up, and raises where the file is another by now.
    Raises InputUnreadable where the file as a whole cannot be read; errors of `file` pass, as long
    as they are PipelineErrors.
    """
    try:
        parquet = _open(file, uri)
        columns = columns_of(parquet.schema_arrow, image_column, uri)
    except InputUnreadable:
        confirm()
        raise
    found = _read(parquet, columns, first, count, start, confirm)
    return with_limited_metadata(found)


def _read(
    parquet: pq.ParquetFile,
    columns: Columns,
    first: int,
    count: int | None,
    start: int,
    confirm: Callable[[], None],
) -> Iterator[Sample | Unreadable]:
    index = before = 0
    end = parquet.metadata.num_rows if count is None else first + count
    for number, group in enumerate(map(_group, _groups_of(parquet))):
        if first <= before < end:
            if index + group.rows > start:
                yield from _read_group(parquet, number, group, columns, index, before, confirm)
            index += group.rows
        before += group.rows


def _read_group(
    parquet: pq.ParquetFile,
    number: int,
    group: RowGroup,
    columns: Columns,
    index: int,
    row: int,
    confirm: Callable[[], None],
) -> Iterator[Sample | Unreadable]:
    """As many as the footer says, whatever is there; those after a damage are lost."""
    done, reason = 0, "it has fewer rows than the footer says"
    try:
        _check_expansion(parquet, number)
        for batch in _batches(parquet, number, columns.read, rows=1):
            taken = batch.slice(0, group.rows - done)
            yield from samples_of_batch(taken, columns, index=index + done, row=row + done)
            done += taken.num_rows
    except PARQUET_ERRORS as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
    if done < group.rows:
        confirm()
    for place in range(done, group.rows):
        yield Unreadable(
            index=index + place,
            key=str(row + place),
            member=None,
            error_type="corrupt_row_group",
            message=f"row group {number} cannot be read from here on: {reason:.300}",
        )


def _batches(
    parquet: pq.ParquetFile, number: int, columns: list[str], *, rows: int
) -> Iterator[pa.RecordBatch]:
    """Few rows each: a dictionary can make thousands of large values from one."""
    for batch in parquet.iter_batches(
        batch_size=rows, row_groups=[number], columns=columns, use_threads=False
    ):
        batch.validate(full=True)
        yield batch


def _check_expansion(parquet: pq.ParquetFile, number: int) -> None:
    group = parquet.metadata.row_group(number)
    for i in range(group.num_columns):
        column = group.column(i)
        most = max(MIN_EXPANDED_BYTES, MAX_EXPANSION * column.total_compressed_size)
        if column.total_uncompressed_size > most:
            raise ValueError(f"{column.path_in_schema} expands to more than {most >> 20} MiB")


def _open(file: RangedFile, uri: str) -> pq.ParquetFile:
    try:
        _check_footer(file)
        parquet = pq.ParquetFile(
            file, buffer_size=READ_BYTES, pre_buffer=False, page_checksum_verification=True
        )
        _ = parquet.schema_arrow.names  # which need not be text
        rows = [group.rows for group in map(_group, _groups_of(parquet))]
    except PARQUET_ERRORS as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise InputUnreadable(
            f"{uri} is no Parquet file that can be read: {reason:.300}"
        ) from error
    size_bytes = file.seek(0, io.SEEK_END)
    if min(rows, default=0) < 0 or sum(rows) != parquet.metadata.num_rows:
        raise InputUnreadable(f"{uri}: its footer does not count the rows of its row groups")
    if sum(rows) * LEAST_ROW_BYTES > size_bytes:
        raise InputUnreadable(f"{uri}: its footer claims {sum(rows)} rows in {size_bytes} bytes")
    return parquet


def _check_footer(file: RangedFile) -> None:
    size_bytes = file.seek(0, io.SEEK_END)
    file.seek(max(0, size_bytes - _TAIL_BYTES))
    tail = file.read(_TAIL_BYTES)
    file.seek(0)
    if int.from_bytes(tail[:4], "little") > MAX_FOOTER_BYTES:
        raise ValueError(f"a footer of more than {MAX_FOOTER_BYTES >> 20} MiB")


def _groups_of(parquet: pq.ParquetFile) -> Sequence[Any]:
    return [parquet.metadata.row_group(i) for i in range(parquet.num_row_groups)]


def _group(group: Any) -> RowGroup:
    columns = (group.column(i) for i in range(group.num_columns))
    return RowGroup(rows=group.num_rows, size_bytes=sum(c.total_compressed_size for c in columns))
