"""The text of a file, decompressed within limits."""

import io
import lzma
import zlib
from typing import Any, BinaryIO

from pipeline.formats.decompression import decompressed
from pipeline.formats.limits import TEXT_EXPANSION

# Errors of damaged files; gzip's own is an OSError.
EXPANDING_ERRORS = (EOFError, OSError, zlib.error, lzma.LZMAError)

_BUFFER_BYTES = 1 << 20
_BYTE_ORDER_MARKS = {
    b"\xff\xfe\0\0": "utf-32",
    b"\0\0\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}


def text_of(file: BinaryIO) -> io.TextIOWrapper:
    """Open the text of a file from its beginning, in UTF-8 unless a byte order mark differs.

    Its first bytes, not its name, tell whether it is compressed. Line ends are kept. Raises
    ValueError if it is not text; reading raises UnicodeDecodeError and EXPANDING_ERRORS.
    """
    buffer = io.BufferedReader(_Expanded(file), _BUFFER_BYTES)
    head = buffer.peek(4)
    marks = (name for mark, name in _BYTE_ORDER_MARKS.items() if head.startswith(mark))
    encoding = next(marks, "utf-8-sig")
    if encoding == "utf-8-sig" and b"\0" in head[:4096]:
        raise ValueError(
            "it is not text, or it is UTF-16 without a byte order mark; convert it to UTF-8"
        )
    return io.TextIOWrapper(buffer, encoding=encoding, newline="")


class _Expanded(io.RawIOBase):
    """A stream that raises ValueError once it expands too far."""

    def __init__(self, file: BinaryIO) -> None:
        file.seek(0)
        self._stream, size_bytes, is_compressed = decompressed(file)
        self._left = TEXT_EXPANSION.limit(size_bytes) if is_compressed else size_bytes

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(len(buffer))
        self._left -= len(data)
        if self._left < 0:
            raise ValueError("it expands far beyond its size; check that its content fits its name")
        buffer[: len(data)] = data
        return len(data)
