"""The bytes of a tar, decompressed, within limits.

tarfile takes a header's word for how much to read into memory, and a decompressor goes on for as
long as there is something to expand; neither has to be true, or to end.
"""

import bz2
import gzip
import io
import lzma
from collections.abc import Callable
from typing import Any, BinaryIO, cast

# Of one member, extensions included; real ones have some hundred bytes.
MAX_HEADER_BYTES = 256 << 10
# Pictures hardly compress, and their metadata about tenfold; zeros do 1,000-fold and more.
MAX_EXPANSION = 100
MIN_EXPANDED_BYTES = 256 << 20  # allowed whatever the ratio

_DECOMPRESSORS: dict[bytes, Callable[[Any], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
}


class ArchiveTooLarge(Exception):
    """More than an honest archive asks for; the message says of what."""


class ArchiveBytes:
    """What tarfile reads instead of `file`, from its first byte.

    `is_compressed`: positions here are not those in `file`. `is_at_end`: a read got less than it
    asked for.
    """

    def __init__(self, file: BinaryIO) -> None:
        head = file.read(6)
        size_bytes = file.seek(0, io.SEEK_END)
        file.seek(0)
        openers = (one for magic, one in _DECOMPRESSORS.items() if head.startswith(magic))
        self.is_compressed = (opener := next(openers, None)) is not None
        self.is_at_end = False
        self._file = cast(BinaryIO, opener(file)) if opener is not None else file
        self._max_position = (
            max(MIN_EXPANDED_BYTES, MAX_EXPANSION * size_bytes) if self.is_compressed else None
        )
        self._left = MAX_HEADER_BYTES

    def allow(self, size_bytes: int) -> None:
        """So much may be read until the next call; at first, a header."""
        self._left = size_bytes

    def read(self, size: int) -> bytes:
        """Raises ArchiveTooLarge before it reads."""
        self._left -= size
        if self._left < 0:
            raise ArchiveTooLarge(f"the header at byte {self.tell()} asks for {size} bytes")
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
                f"it expands to more than {self._max_position >> 20} MiB, which no pictures do"
            )
