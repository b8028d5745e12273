"""Arrow files with the bytes of images: from `datasets.Dataset.save_to_disk`, Feather, polars."""

from collections.abc import Iterator
from typing import BinaryIO

import pyarrow as pa

from kosmos2_core.errors import first_line
from pipeline.errors import InputUnreadable
from pipeline.formats.limits import LEAST_ROW_BYTES
from pipeline.formats.sample import (
    BrokenArchive,
    Sample,
    Unreadable,
    unreadable,
    with_limited_metadata,
)
from pipeline.formats.table.batches import looked_at, samples_of_batch
from pipeline.formats.table.columns import LOOK_ROWS, Columns, find_columns
from pipeline.formats.table.ipc import IPC_ERRORS, BatchReader


def check_readable(file: BinaryIO, uri: str, size_bytes: int, image_column: str | None) -> None:
    """Check the beginning of a file before a run.

    Raises InputUnreadable if it is not an Arrow file, its first batch cannot be read, or no column
    holds images.
    """
    reader = _Reader(file, uri, size_bytes, image_column)
    reader.columns()
    try:
        reader.next_batch()
    except BrokenArchive as error:
        raise InputUnreadable(
            f"{uri}: the first batch cannot be read: {error}; write the file again, or leave it out"
        ) from error


def read_batches(
    file: BinaryIO, uri: str, size_bytes: int, image_column: str | None
) -> Iterator[Sample | Unreadable]:
    """Yield the samples of a stream or file, in order; `file` is read once, front to back.

    Raises InputUnreadable if it is not one, or has no images. Raises BrokenArchive, after all that
    could be read, if it is damaged or ends too early.
    """
    return with_limited_metadata(_samples(file, uri, size_bytes, image_column))


def _samples(
    file: BinaryIO, uri: str, size_bytes: int, image_column: str | None
) -> Iterator[Sample | Unreadable]:
    reader = _Reader(file, uri, size_bytes, image_column)
    columns = reader.columns()
    index = 0
    while (batch := reader.next_batch()) is not None:
        yield from samples_of_batch(batch, columns, index=index, row=index)
        index += batch.num_rows


class _Reader:
    """Counted batches. The first ones are held if their values are needed to choose the columns."""

    def __init__(self, file: BinaryIO, uri: str, size_bytes: int, image_column: str | None) -> None:
        self._batches = BatchReader(file, uri, size_bytes)
        self._uri = uri
        self._size_bytes = size_bytes
        self._image_column = image_column
        self._held = list[pa.RecordBatch]()
        self._error: BrokenArchive | None = None  # found in the first batches
        self._rows = 0

    def columns(self) -> Columns:
        """Choose the columns. Raises InputUnreadable."""
        schema = self._batches.schema
        return find_columns(schema, self._image_column, self._uri, self._first_values)

    def next_batch(self) -> pa.RecordBatch | None:
        """Return the next batch. Raises BrokenArchive, after all that could be read."""
        if self._held:
            return self._held.pop(0)
        if self._error is not None:
            raise self._error
        return self._read()

    def _first_values(self, name: str) -> Iterator[pa.Scalar]:
        """Yield the values of a column, reading as many batches as needed."""
        number = 0
        while number < len(self._held) or self._hold():
            yield from looked_at(self._held[number : number + 1], name)
            number += 1

    def _hold(self) -> bool:
        if self._error is not None or self._rows >= LOOK_ROWS:
            return False
        try:
            batch = self._read()
        except BrokenArchive as error:
            self._error = error
            return False
        if batch is not None:
            self._held.append(batch)
        return batch is not None

    def _read(self) -> pa.RecordBatch | None:
        try:
            batch = self._batches.next_batch()
            rows = 0 if batch is None else batch.num_rows
            if (self._rows + rows) * LEAST_ROW_BYTES > self._size_bytes:
                raise ValueError(f"a batch claims {rows} rows, more than the file can hold")
        except IPC_ERRORS as error:
            reason, row = f"{first_line(error):.300}", self._rows
            said = f"the file cannot be read from here on: {reason}"
            lost = unreadable(row, str(row), None, "corrupt_stream", said)
            raise BrokenArchive(reason, lost) from error
        self._rows += rows
        return batch
