"""Which compression a file has, by its first bytes, and how it is read."""

import bz2
import gzip
import lzma
from collections.abc import Callable
from typing import Any, BinaryIO

import pyarrow as pa

COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")
"""The extensions of what `decompressor_of` knows."""

MAGIC_BYTES = 6

_DECOMPRESSORS: dict[bytes, Callable[[BinaryIO], Any]] = {
    b"\x1f\x8b": lambda file: gzip.GzipFile(fileobj=file),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\0": lzma.LZMAFile,
    b"\x28\xb5\x2f\xfd": lambda file: pa.CompressedInputStream(
        pa.PythonFile(file, mode="r"), "zstd"
    ),
}


def decompressor_of(head: bytes) -> Callable[[BinaryIO], Any] | None:
    """Return what makes a readable stream of a file that begins so; None if it is not compressed.

    A zstd stream cannot be sought in, the others can, slowly where it is backwards.
    """
    return next((one for magic, one in _DECOMPRESSORS.items() if head.startswith(magic)), None)
