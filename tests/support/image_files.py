"""Image files of every kind, sound and odd, made where they are needed."""

import io
import struct
import zlib

from PIL import Image

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_FASTEST: dict[str, dict[str, int]] = {"AVIF": {"speed": 10}, "WEBP": {"method": 0}}


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **{**_FASTEST.get(kind, {}), **options})
    return file.getvalue()


def chunk(name: bytes, body: bytes) -> bytes:
    """One of a PNG."""
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png_file(*chunks: bytes) -> bytes:
    return b"".join([PNG_MAGIC, *chunks, chunk(b"IEND", b"")])


def with_chunks(png: bytes, *chunks: bytes) -> bytes:
    """After IHDR."""
    return b"".join([png[:33], *chunks, png[33:]])


FIRST_DIRECTORY = 8 + 8192


def tiff_file(*directories: dict[int, list[int]]) -> bytes:
    """Directories of LONGs behind 8 KiB of pixels at byte 8; the file begins with the last one."""
    data = bytearray(b"II*\0" + bytes(FIRST_DIRECTORY - 4))
    for directory in directories:
        data[4:8] = struct.pack("<L", len(data))
        at = len(data) + 2 + 12 * len(directory) + 4
        entries, more = b"", b""
        for tag, values in sorted(directory.items()):
            body = struct.pack(f"<{len(values)}L", *values)
            if len(body) > 4:
                body, more = struct.pack("<L", at + len(more)), more + body
            entries += struct.pack("<HHL", tag, 4, len(values)) + body
        data += struct.pack("<H", len(directory)) + entries + bytes(4) + more
    return bytes(data)
