"""Arrow files as `datasets.Dataset.save_to_disk` writes them: a stream of record batches."""

import struct
from collections.abc import Iterator
from typing import Any, BinaryIO

import pyarrow as pa

from pipeline.errors import InputUnreadable
from pipeline.files import PARQUET_ERRORS
from pipeline.readers.columns import columns_of, samples_of_batch
from pipeline.readers.limits import LEAST_ROW_BYTES, with_limited_metadata
from pipeline.readers.sample import BrokenArchive, Sample, Unreadable

_HEADER, _COMPRESSION = 2, 3  # numbers of fields in the tables Message and RecordBatch
_FORMAT_ERRORS = (*PARQUET_ERRORS, struct.error)
_END = b"\xff\xff\xff\xff\0\0\0\0"


class BoundedFile:
    """Reads no more than there is: a message may claim any length, and io would make room."""

    def __init__(self, file: BinaryIO, size_bytes: int) -> None:
        self._file = file
        self._size_bytes = size_bytes
        self._last = b""
        self.closed = False

    @property
    def is_at_end_marker(self) -> bool:
        return self._last == _END

    def read(self, size: int = -1) -> bytes:
        left = max(0, self._size_bytes - self._file.tell())
        data = self._file.read(left if size < 0 else min(size, left))
        self._last = (self._last + data[-len(_END) :])[-len(_END) :]
        return data

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def writable(self) -> bool:
        return False

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        self.closed = True


def read_batches(
    file: BinaryIO, uri: str, size_bytes: int, image_column: str | None
) -> Iterator[Sample | Unreadable]:
    """The samples of a stream, in order; `file` is read once, front to back.

    Raises InputUnreadable where it is none, or has no images, and BrokenArchive, after all that
    could be read, where it is damaged or ends too early.
    """
    return with_limited_metadata(_samples(file, uri, size_bytes, image_column))


def _samples(
    file: BinaryIO, uri: str, size_bytes: int, image_column: str | None
) -> Iterator[Sample | Unreadable]:
    bounded = BoundedFile(file, size_bytes)
    try:
        messages = pa.ipc.MessageReader.open_stream(pa.PythonFile(bounded, mode="r"))
        schema = pa.ipc.read_schema(messages.read_next_message())
        _ = schema.names  # which need not be text
    except (StopIteration, *_FORMAT_ERRORS) as error:
        raise InputUnreadable(f"{uri} is no stream of Arrow batches: {_reason(error)}") from error
    columns = columns_of(schema, image_column, uri)
    index = 0
    while True:
        try:
            batch = _batch(messages.read_next_message(), schema)
            if (index + batch.num_rows) * LEAST_ROW_BYTES > size_bytes:
                raise ValueError(f"a batch claims {batch.num_rows} rows")
        except StopIteration:
            # Arrow takes the end of the file for that of the stream, wherever it comes.
            if bounded.is_at_end_marker:
                return
            raise _broken(index, "it ends without its end marker") from None
        except _FORMAT_ERRORS as error:
            raise _broken(index, _reason(error)) from error
        yield from samples_of_batch(batch, columns, index=index, row=index)
        index += batch.num_rows


def _batch(message: Any, schema: pa.Schema) -> pa.RecordBatch:
    """As large as its message is. Raises one of _FORMAT_ERRORS."""
    if message.type != "record batch":
        raise ValueError(f"a {message.type}, which `datasets` does not write")
    if _is_compressed(message.metadata.to_pybytes()):
        raise ValueError("its batches are compressed, and may expand to anything: save it without")
    batch = pa.ipc.read_record_batch(message, schema)
    batch.validate(full=True)
    return batch


def _is_compressed(metadata: bytes) -> bool:
    """pyarrow does not tell; this is Message.header.compression of Arrow's flatbuffers."""

    def field(table: int, number: int) -> int:
        """Where it is; 0 where it is not set."""
        (back,) = struct.unpack_from("<i", metadata, table)
        offsets, place = table - back, 4 + 2 * number
        (size,) = struct.unpack_from("<H", metadata, offsets)
        if place >= size:
            return 0
        (offset,) = struct.unpack_from("<H", metadata, offsets + place)
        return table + offset if offset else 0

    (message,) = struct.unpack_from("<I", metadata, 0)
    header = field(message, _HEADER)
    (ahead,) = struct.unpack_from("<I", metadata, header)
    return field(header + ahead, _COMPRESSION) != 0


def _broken(index: int, reason: str) -> BrokenArchive:
    lost = Unreadable(
        index=index,
        key=str(index),
        member=None,
        error_type="corrupt_stream",
        message=f"the file cannot be read from here on: {reason}",
    )
    return BrokenArchive(reason, lost)


def _reason(error: Exception) -> str:
    return f"{str(error).partition(chr(10))[0] or type(error).__name__:.300}"
