"""The bytes of a tar, decompressed within limits.

tarfile reads as much into memory as a header claims, and a decompressor expands without end;
neither input can be trusted.
"""

import io
import tarfile
from typing import Any, BinaryIO, cast

from pipeline.formats.decompression import decompressed
from pipeline.formats.limits import TAR_EXPANSION

# of one member, extensions included; real ones have some hundred bytes
MAX_HEADER_BYTES = 256 << 10
_SKIP_BYTES = 1 << 20  # at a time


class ArchiveTooLarge(Exception):
    """Raised when an archive exceeds a limit that no honest one reaches; the message names it."""


class _Forward:
    """A forward-only stream with the seeking that a tar needs.

    It seeks forwards, and back over the last block.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._position = 0
        self._last = b""  # what was read, up to the position
        self._next = b""  # what was read before, from the position on

    def read(self, size: int) -> bytes:
        again, self._next = self._next[:size], self._next[size:]
        data: bytes = again + self._stream.read(size - len(again))
        self._position += len(data)
        self._last = (self._last + data)[-tarfile.BLOCKSIZE :]
        return data

    def seek(self, position: int, whence: int = io.SEEK_SET) -> int:
        back = self._position - position
        if whence != io.SEEK_SET or back > len(self._last):
            raise io.UnsupportedOperation("a zstd stream can only be read forwards")
        if back > 0:
            self._next = self._last[-back:] + self._next
            self._last = self._last[:-back]
            self._position = position
        while self._position < position and self.read(min(position - self._position, _SKIP_BYTES)):
            pass
        return self._position

    def tell(self) -> int:
        return self._position


class ArchiveBytes:
    """The stream that tarfile reads instead of `file`, from its first byte.

    If `is_compressed`, positions here are not positions in `file`. `is_at_end` is True once a read
    returned less than it requested.
    """

    def __init__(self, file: BinaryIO) -> None:
        stream, size_bytes, self.is_compressed = decompressed(file)
        self.is_at_end = False
        self._file = cast(BinaryIO, stream if stream.seekable() else _Forward(stream))
        self._max_position = TAR_EXPANSION.limit(size_bytes) if self.is_compressed else None
        self._left = MAX_HEADER_BYTES

    def allow(self, size_bytes: int) -> None:
        """Allow this many bytes to be read until the next call; initially a header."""
        self._left = size_bytes

    def read(self, size: int) -> bytes:
        """Read bytes. Raises ArchiveTooLarge before it reads."""
        self._left -= size
        if self._left < 0:
            raise ArchiveTooLarge(f"the header at byte {self.tell()} claims {size} bytes")
        self._check_position(self.tell() + size)
        data = self._file.read(size)
        self.is_at_end |= len(data) < size
        return data

    def seek(self, position: int, whence: int = io.SEEK_SET) -> int:
        self._check_position(position)
        return self._file.seek(position, whence)

    def tell(self) -> int:
        return self._file.tell()

    def _check_position(self, position: int) -> None:
        if self._max_position is not None and position > self._max_position:
            raise ArchiveTooLarge(
                f"it expands to more than {self._max_position >> 20} MiB, which images never do"
            )
