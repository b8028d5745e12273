"""A file over range requests."""

import io
from collections.abc import Callable

from pipeline.storage.objects import Data

_Fetch = Callable[[int, int], Data]  # (offset, size_bytes) -> exactly those bytes


class RangedFile(io.RawIOBase):
    """A file for pyarrow in which each read is one request.

    A buffer would be discarded at each step from one column to another.
    """

    def __init__(self, fetch: _Fetch, size_bytes: int) -> None:
        self._fetch = fetch
        self._size_bytes = size_bytes
        self._offset = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._offset

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._offset, io.SEEK_END: self._size_bytes}[whence]
        if base + offset < 0:
            raise ValueError(f"negative position {base + offset}")
        self._offset = base + offset
        return self._offset

    def read(self, size: int = -1) -> bytes:
        return bytes(self.read_buffer(size))

    def read_buffer(self, size: int = -1) -> Data:
        """Read without a copy; pyarrow prefers this method."""
        left = max(0, self._size_bytes - self._offset)
        size = left if size < 0 else min(size, left)
        data = self._fetch(self._offset, size) if size else b""
        self._offset += len(data)
        return data
