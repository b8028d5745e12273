"""Parquet with the bytes of images, read by row groups, a row at a time.

A row group that cannot be read loses only its own rows, which the footer counts.
"""

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from kosmos2_core.errors import first_line
from pipeline.errors import InputUnreadable
from pipeline.formats.limits import LEAST_ROW_BYTES, PARQUET_EXPANSION
from pipeline.formats.sample import Sample, Unreadable, unreadable, with_limited_metadata
from pipeline.formats.table.arrow_types import has_dictionaries, holds_images
from pipeline.formats.table.batches import looked_at, samples_of_batch
from pipeline.formats.table.columns import (
    Columns,
    check_names,
    column_of_path,
    find_columns,
    surely_holds_images,
)
from pipeline.parquet import PARQUET_ERRORS
from pipeline.storage.ranged import RangedFile

READ_BYTES = 8 << 20  # of one column at a time; a larger page is read as a whole
MAX_FOOTER_BYTES = 64 << 20
# For a table of names: a dictionary can make thousands of large values from one.
_TABLE_ROWS = 16  # at a time
_JOINED_ROWS, _JOINED_BYTES = 1024, 1 << 20  # small ones are joined, for speed
_TAIL_BYTES = 8  # length of the footer, "PAR1"
_MAGIC = b"PAR1"
# Arrow's key for its own types in a footer, and a key that Arrow ignores.
_ARROW_TYPES, _NO_ARROW_TYPES = b"ARROW:schema", b"-----:schema"


@dataclass(frozen=True, slots=True, kw_only=True)
class RowGroup:
    rows: int
    size_bytes: int  # compressed


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageTable:
    column: str
    groups: Sequence[RowGroup]


def image_table(file: RangedFile, uri: str, image_column: str | None) -> ImageTable:
    """Find the images, by the footer and the first values.

    Raises InputUnreadable, also if no column holds images.
    """
    parquet, columns = _open_images(file, uri, image_column)
    return ImageTable(column=columns.image.path, groups=_row_groups(parquet))


def is_image_table(file: RangedFile, uri: str, asked: str | None) -> bool:
    """Return whether a file surely holds images, not only names of images.

    Raises InputUnreadable.
    """
    parquet = _open(file, uri)
    return surely_holds_images(parquet.schema_arrow, asked, partial(_first_values, parquet))


def holds_no_images(file: RangedFile, uri: str) -> bool:
    """Return whether a file can be read and no column of it could hold images."""
    try:
        schema = _open(file, uri).schema_arrow
        return not any(holds_images(field.type) for field in schema) and not is_image_table(
            file, uri, None
        )
    except InputUnreadable:
        return False


def table_rows(file: BinaryIO, uri: str, asked: str | None = None) -> Iterator[dict[str, Any]]:
    """Yield all rows, without images. `asked` may name a field beside an image.

    The footer's numbers are not trusted: a missing row is an error. Raises InputUnreadable,
    ValueError, and PARQUET_ERRORS.
    """
    parquet = _open(file, uri)
    schema = parquet.schema_arrow
    check_names(schema, uri)
    names = [field.name for field in schema if not holds_images(field.type)]
    column = column_of_path(schema, asked) if asked else None
    if column is not None and column.name not in names:
        names.append(column.path)
    done = 0
    for number in range(parquet.num_row_groups):
        _check_expansion(parquet, number, names)
        for table in _joined(_batches(parquet, number, names, rows=_TABLE_ROWS)):
            yield from table.to_pylist()
            done += table.num_rows
    if done != parquet.metadata.num_rows:
        raise ValueError(f"it has {done} rows, but its footer claims {parquet.metadata.num_rows}")


def _joined(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    held, rows, held_bytes = list[pa.RecordBatch](), 0, 0
    for batch in batches:
        held.append(batch)
        rows += batch.num_rows
        held_bytes += batch.nbytes
        if rows >= _JOINED_ROWS or held_bytes >= _JOINED_BYTES:
            yield pa.Table.from_batches(held).combine_chunks()
            held, rows, held_bytes = [], 0, 0
    if held:
        yield pa.Table.from_batches(held)


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
    """Yield the samples of the rows [first, first + count), which are whole row groups.

    Groups that end before the sample `start` are left out. `confirm` is called before rows are
    given up; it raises if the file has changed. Raises InputUnreadable if the file as a whole
    cannot be read. Errors of `file` pass if they are PipelineErrors.
    """
    try:
        parquet, columns = _open_images(file, uri, image_column)
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
    for number, group in enumerate(_row_groups(parquet)):
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
    """Yield as many samples as the footer counts; those after damage are unreadable."""
    done, reason = 0, "it has fewer rows than the footer says"
    try:
        _check_expansion(parquet, number, columns.read)
        for batch in _batches(parquet, number, columns.read, rows=1):
            taken = batch.slice(0, group.rows - done)
            yield from samples_of_batch(taken, columns, index=index + done, row=row + done)
            done += taken.num_rows
    except PARQUET_ERRORS as error:
        reason = first_line(error)
    if done < group.rows:
        confirm()
    said = f"row group {number} cannot be read from here on: {reason:.300}"
    for place in range(done, group.rows):
        yield unreadable(index + place, str(row + place), None, "corrupt_row_group", said)


def _batches(
    parquet: pq.ParquetFile, number: int, columns: list[str], *, rows: int
) -> Iterator[pa.RecordBatch]:
    """Yield batches of few rows: a dictionary can make thousands of large values from one."""
    for batch in parquet.iter_batches(
        batch_size=rows, row_groups=[number], columns=columns, use_threads=False
    ):
        batch.validate(full=True)
        yield batch


def _check_expansion(parquet: pq.ParquetFile, number: int, names: Sequence[str]) -> None:
    """Raise ValueError if a column to read would expand too far."""
    for column in _chunks(parquet, number):
        most = PARQUET_EXPANSION.limit(column.total_compressed_size)
        path = column.path_in_schema
        is_read = any(path == name or path.startswith(f"{name}.") for name in names)
        if is_read and column.total_uncompressed_size > most:
            raise ValueError(f"the column {path} expands to more than {most >> 20} MiB")


def _first_values(parquet: pq.ParquetFile, name: str) -> Iterator[pa.Scalar]:
    """Yield the values of a column, a row at a time. Skip row groups of nulls; stop at damage."""
    try:
        for number in range(parquet.num_row_groups):
            if not _is_null(parquet, number, name):
                _check_expansion(parquet, number, [name])
                for batch in _batches(parquet, number, [name], rows=1):
                    yield from looked_at([batch], name)
    except PARQUET_ERRORS:
        return


def _is_null(parquet: pq.ParquetFile, number: int, name: str) -> bool:
    """Return whether the statistics of a plain column say that all its values are null."""
    rows = parquet.metadata.row_group(number).num_rows
    return any(
        column.path_in_schema == name
        and column.statistics is not None
        and column.statistics.null_count == rows
        for column in _chunks(parquet, number)
    )


def _open_images(
    file: RangedFile, uri: str, image_column: str | None
) -> tuple[pq.ParquetFile, Columns]:
    """Open a table of images. Its rows count as samples, even if they cannot be read.

    Raises InputUnreadable.
    """
    parquet = _open(file, uri)
    rows = [group.rows for group in _row_groups(parquet)]
    size_bytes = file.seek(0, io.SEEK_END)
    if min(rows, default=0) < 0 or sum(rows) != parquet.metadata.num_rows:
        raise InputUnreadable(
            f"{uri}: the footer does not count the rows of its row groups; write the file again"
        )
    if sum(rows) * LEAST_ROW_BYTES > size_bytes:
        raise InputUnreadable(
            f"{uri}: the footer claims {sum(rows)} rows in {size_bytes} bytes; write the file again"
        )
    look = partial(_first_values, parquet)
    return parquet, find_columns(parquet.schema_arrow, image_column, uri, look)


def _open(file: BinaryIO | RangedFile, uri: str) -> pq.ParquetFile:
    try:
        footer = _footer(file)
        parquet = _parquet_file(file, footer)
        _ = parquet.schema_arrow.names  # they need not be text
        if has_dictionaries(parquet.schema_arrow):
            # Each batch would hold its whole dictionary: quadratic for small batches.
            parquet = _parquet_file(file, footer.replace(_ARROW_TYPES, _NO_ARROW_TYPES))
    except PARQUET_ERRORS as error:
        raise InputUnreadable(
            f"{uri} cannot be read as Parquet: {first_line(error):.300}; write the file again, or "
            "leave it out"
        ) from error
    return parquet


def _parquet_file(file: BinaryIO | RangedFile, footer: bytes) -> pq.ParquetFile:
    return pq.ParquetFile(
        file,
        metadata=pq.read_metadata(io.BytesIO(_MAGIC + footer)),
        buffer_size=READ_BYTES,
        pre_buffer=False,
        page_checksum_verification=True,
    )


def _footer(file: BinaryIO | RangedFile) -> bytes:
    """Return the last bytes of the file, from the beginning of its metadata. Raises ValueError."""
    size_bytes = file.seek(0, io.SEEK_END)
    file.seek(max(0, size_bytes - _TAIL_BYTES))
    tail = file.read(_TAIL_BYTES)
    if tail[4:] != _MAGIC:
        raise ValueError("it does not end like a Parquet file; it may be cut off")
    footer_bytes = int.from_bytes(tail[:4], "little")
    if footer_bytes > MAX_FOOTER_BYTES:
        raise ValueError(f"its footer has more than {MAX_FOOTER_BYTES >> 20} MiB")
    if footer_bytes + _TAIL_BYTES + len(_MAGIC) > size_bytes:
        raise ValueError("its footer is larger than the file")
    file.seek(size_bytes - _TAIL_BYTES - footer_bytes)
    footer = file.read(footer_bytes) + tail
    file.seek(0)
    return footer


def _row_groups(parquet: pq.ParquetFile) -> list[RowGroup]:
    return [
        RowGroup(
            rows=parquet.metadata.row_group(number).num_rows,
            size_bytes=sum(c.total_compressed_size for c in _chunks(parquet, number)),
        )
        for number in range(parquet.num_row_groups)
    ]


def _chunks(parquet: pq.ParquetFile, number: int) -> list[Any]:
    """Return the metadata of each column of a row group."""
    group = parquet.metadata.row_group(number)
    return [group.column(i) for i in range(group.num_columns)]
