"""Arrow IPC as a stream of record batches; each message is checked before Arrow expands it.

A stream is a schema, dictionaries and batches. A file (Feather version 2) is the same stream
between a magic and an index, which is not needed.
"""

import struct
from collections.abc import Iterator
from typing import Any, BinaryIO

import pyarrow as pa

from kosmos2_core.errors import first_line
from pipeline.errors import InputUnreadable
from pipeline.formats.limits import IPC_EXPANSION
from pipeline.parquet import PARQUET_ERRORS

IPC_ERRORS = (*PARQUET_ERRORS, struct.error)
MAX_DICTIONARY_BYTES = 128 << 20  # per file, expanded: they stay in memory

_FILE_MAGIC = b"ARROW1\0\0"
_OTHER_MAGIC = {
    b"FEA1": "a Feather file of version 1; write it as version 2 (pyarrow.feather.write_feather)",
    b"PAR1": "a Parquet file; name it .parquet",
}
_END = b"\xff\xff\xff\xff\0\0\0\0"
_CONTINUES = 0xFFFFFFFF
_ALIGNMENT = 8
# Field numbers of Arrow's flatbuffers.
_MESSAGE_HEADER, _DICTIONARY_DATA = 2, 1
_BATCH_BUFFERS, _BATCH_COMPRESSION = 2, 3


class BatchReader:
    """The record batches of a stream or file, in order; `file` is read once, front to back."""

    def __init__(self, file: BinaryIO, uri: str, size_bytes: int) -> None:
        """Read the schema. Raises InputUnreadable if the file is not Arrow."""
        self._file = _BoundedFile(file, size_bytes)
        try:
            self._file.skip_magic()
            messages = pa.ipc.MessageReader.open_stream(pa.PythonFile(self._file, mode="r"))
            self._stream = pa.ipc.open_stream(pa.PythonFile(_Checked(messages), mode="r"))
            self.schema: pa.Schema = self._stream.schema
            _ = self.schema.names  # they need not be text
        except (StopIteration, *IPC_ERRORS) as error:
            raise InputUnreadable(
                f"{uri} cannot be read as Arrow batches: {first_line(error):.300}; write it again, "
                "or leave it out"
            ) from error

    def next_batch(self) -> pa.RecordBatch | None:
        """Return the next batch, validated; None at the end. Raises one of IPC_ERRORS."""
        try:
            batch = self._stream.read_next_batch()
        except StopIteration:
            # Arrow treats the end of the file as the end of the stream, wherever it comes.
            if self._file.is_at_end_marker:
                return None
            raise ValueError("the file ends without its end marker") from None
        batch.validate(full=True)
        return batch


class _Readable:
    """The methods of a Python file that pyarrow calls."""

    closed = False

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def writable(self) -> bool:
        return False

    def close(self) -> None:
        self.closed = True


class _BoundedFile(_Readable):
    """A file that reads no more than its size. A message may claim any length."""

    def __init__(self, file: BinaryIO, size_bytes: int) -> None:
        self._file = file
        self._size_bytes = size_bytes
        self._held = b""  # read already
        self._last = b""

    @property
    def is_at_end_marker(self) -> bool:
        return self._last == _END

    def skip_magic(self) -> None:
        """Skip the magic of a file. Raises ValueError for the magic of another format."""
        head = self._file.read(len(_FILE_MAGIC))
        for magic, name in _OTHER_MAGIC.items():
            if head.startswith(magic):
                raise ValueError(f"it is {name}")
        self._held = b"" if head == _FILE_MAGIC else head

    def read(self, size: int = -1) -> bytes:
        left = max(0, self._size_bytes - self._file.tell()) + len(self._held)
        size = left if size < 0 else min(size, left)
        data, self._held = self._held[:size], self._held[size:]
        if len(data) < size:
            data += self._file.read(size - len(data))
        self._last = (self._last + data[-len(_END) :])[-len(_END) :]
        return data

    def tell(self) -> int:
        return self._file.tell() - len(self._held)


class _Checked(_Readable):
    """The same stream, with a check that no message expands too far."""

    def __init__(self, messages: Any) -> None:
        self._messages = messages
        self._parts = list[memoryview]()  # still to be returned
        self._position = 0
        self._dictionary_bytes = 0

    def read(self, size: int) -> Any:
        """Read a prefix, the metadata or the body, as Arrow requests them, without a copy."""
        found = list[memoryview]()
        while size and (part := self._take(size)):
            found.append(part)
            size -= len(part)
        return found[0] if len(found) == 1 else b"".join(found)

    def tell(self) -> int:
        return self._position

    def _take(self, size: int) -> memoryview:
        if not self._parts:
            self._parts = list(self._next())
        if not self._parts:
            return memoryview(b"")
        first = self._parts[0]
        self._parts[:1] = [first[size:]] if size < len(first) else []
        self._position += min(size, len(first))
        return first[:size]

    def _next(self) -> Iterator[memoryview]:
        try:
            message = self._messages.read_next_message()
        except StopIteration:
            return
        metadata = message.metadata.to_pybytes()
        body = memoryview(message.body or b"")
        self._check(message.type, metadata, body)
        padding = bytes(-len(metadata) % _ALIGNMENT)
        yield memoryview(struct.pack("<Ii", _CONTINUES, len(metadata) + len(padding)))
        yield memoryview(metadata + padding)
        if len(body):
            yield body

    def _check(self, kind: str, metadata: bytes, body: memoryview) -> None:
        """Check the size of a message. Raises ValueError, struct.error."""
        if kind not in ("dictionary", "record batch"):
            return
        batch = _Table.of(metadata).table(_MESSAGE_HEADER)
        if kind == "dictionary":
            batch = batch.table(_DICTIONARY_DATA)
        expanded = _expanded_bytes(batch, body)
        most = IPC_EXPANSION.limit(len(body))
        if expanded > most:
            raise ValueError(
                f"a compressed batch expands to more than {most >> 20} MiB; write smaller batches, "
                "or write it without compression"
            )
        self._dictionary_bytes += expanded if kind == "dictionary" else 0
        if self._dictionary_bytes > MAX_DICTIONARY_BYTES:
            raise ValueError(
                f"the dictionaries have more than {MAX_DICTIONARY_BYTES >> 20} MiB; write it "
                "without dictionary encoding"
            )


def _expanded_bytes(batch: "_Table", body: memoryview) -> int:
    """Return the size of a batch's buffers in memory; a compressed one begins with its size."""
    if not batch.place(_BATCH_COMPRESSION):
        return len(body)
    total = 0
    for offset, size in batch.structs(_BATCH_BUFFERS, "<qq"):
        if size > 0:
            (expanded,) = struct.unpack_from("<q", body, offset)
            total += size if expanded < 0 else expanded
    return total


class _Table:
    """A table of flatbuffers. pyarrow does not expose the compression of a message."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data = data
        self._at = at

    @classmethod
    def of(cls, data: bytes) -> "_Table":
        (root,) = struct.unpack_from("<I", data, 0)
        return cls(data, root)

    def place(self, number: int) -> int:
        """Return the position of a field; 0 if it is not set."""
        (back,) = struct.unpack_from("<i", self._data, self._at)
        offsets, place = self._at - back, 4 + 2 * number
        (size,) = struct.unpack_from("<H", self._data, offsets)
        if place >= size:
            return 0
        (offset,) = struct.unpack_from("<H", self._data, offsets + place)
        return self._at + offset if offset else 0

    def table(self, number: int) -> "_Table":
        return _Table(self._data, self._follow(self.place(number)))

    def structs(self, number: int, form: str) -> Iterator[tuple[int, ...]]:
        if not (place := self.place(number)):
            return
        start = self._follow(place)
        (count,) = struct.unpack_from("<I", self._data, start)
        step = struct.calcsize(form)
        if count * step > len(self._data):
            raise ValueError("a message claims more buffers than it can hold")
        for i in range(count):
            yield struct.unpack_from(form, self._data, start + 4 + i * step)

    def _follow(self, place: int) -> int:
        (ahead,) = struct.unpack_from("<I", self._data, place)
        return place + int(ahead)
