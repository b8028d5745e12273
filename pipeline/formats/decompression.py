"""Compressed files as streams; the first bytes identify the compression."""

import bz2
import gzip
import io
import lzma
from collections.abc import Callable
from typing import Any, BinaryIO

import pyarrow as pa

COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")
"""The extensions of the compressions that `decompressed` supports."""

_MAGIC_BYTES = 6

_DECOMPRESSORS: dict[bytes, Callable[[BinaryIO], Any]] = {
    b"\x1f\x8b": lambda file: gzip.GzipFile(fileobj=file),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\0": lzma.LZMAFile,
    b"\x28\xb5\x2f\xfd": lambda file: pa.CompressedInputStream(
        pa.PythonFile(file, mode="r"), "zstd"
    ),
}


def decompressed(file: BinaryIO) -> tuple[Any, int, bool]:
    """Return the content of `file` as a stream, the size of `file`, and whether it is compressed.

    `file` is at its beginning. A zstd stream cannot seek. The others can; seeking backwards is
    slow.
    """
    head = file.read(_MAGIC_BYTES)
    size_bytes = file.seek(0, io.SEEK_END)
    file.seek(0)
    opens = next((opens for magic, opens in _DECOMPRESSORS.items() if head.startswith(magic)), None)
    return (file, size_bytes, False) if opens is None else (opens(file), size_bytes, True)
