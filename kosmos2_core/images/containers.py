"""Remove metadata from image files, and detect files that end too soon.

Metadata can be megabytes of text, a broken profile or wrong. Decoders fail on some of it or spend
memory on it, so they get files with the pixels alone. Each function reads one kind of container, in
time and memory proportional to the size of the file, and never raises.
"""

import re
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from kosmos2_core.images import tiff

_MAX_TEXT: Final = 1 << 20
"""Limit in bytes of a decompressed text. EXIF has at most 64 KiB, and XMP has its tags early."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """The parts of an image file."""

    image: bytes  # a file with the same pixels; for an animation, those of the first frame
    exif: bytes = b""
    xmp: bytes = b""
    size: tuple[int, int] | None = None  # pixels that the decoder allocates before it reports them
    is_cut: bool = False  # the file ends before its container


def contents(data: bytes, name: str) -> Contents:
    """Split a file of the format `name`, a key of `formats.DECODED` or `UNDECODED`."""
    take_apart = _CONTAINERS.get(name)
    return Contents(image=data) if take_apart is None else take_apart(data)


# PNG (W3C Portable Network Graphics, third edition)

_PNG_MAGIC: Final = b"\x89PNG\r\n\x1a\n"
_PNG_FIRST: Final = b"\0\0\0\x0dIHDR"
_PNG_TEXT: Final = (b"tEXt", b"zTXt", b"iTXt")
_PNG_XMP: Final = b"XML:com.adobe.xmp"
_PNG_EXIF: Final = b"Raw profile type exif"  # written by ImageMagick before eXIf existed


def _png(data: bytes) -> Contents:
    """Keep the critical chunks. The others do not change the colours that Pillow gives."""
    if not _PNG_FIRST.startswith(data[8:16]):
        return Contents(image=data)  # broken: the decoder raises the error
    image, at = bytearray(_PNG_MAGIC), len(_PNG_MAGIC)
    exif, texts, name = b"", dict[bytes, bytes](), b""
    while name != b"IEND":
        size, name = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        end = at + 12 + size
        is_cut = at + 8 > len(data) or (name.isalpha() and end > len(data))
        if not (is_cut or name.isalpha()):
            break  # not a chunk; decoders ignore data after the last pixel
        if name[:1].isupper():
            image += data[at:end]
        elif name == b"eXIf":
            exif = data[at + 8 : end - 4]
        elif name in _PNG_TEXT:
            keyword = data[at + 8 : at + 8 + 80].partition(b"\0")[0]
            if keyword in (_PNG_XMP, _PNG_EXIF) and keyword not in texts:
                texts[keyword] = _png_text(name, data[at + 9 + len(keyword) : end - 4])
        if is_cut:
            break
        at = end
    return Contents(
        image=data if len(image) == len(data) else bytes(image),
        exif=exif or _unhexed(texts.get(_PNG_EXIF, b"")),
        xmp=texts.get(_PNG_XMP, b""),
        is_cut=is_cut,
    )


def _png_text(name: bytes, body: bytes) -> bytes:
    """Return the text of a chunk, after its keyword."""
    if name == b"tEXt":
        return body
    if name == b"zTXt":
        return _inflated(body[1:])
    is_compressed = body[:1] == b"\1"
    text = body[2:].split(b"\0", 2)[-1]  # after the language and the translated keyword
    return _inflated(text) if is_compressed else text


def _inflated(text: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(text, _MAX_TEXT)
    except zlib.error:
        return b""


def _unhexed(profile: bytes) -> bytes:
    """Decode a raw profile: an empty line, its name, its size, then hexadecimal digits."""
    try:
        return bytes.fromhex(b"".join(profile[:_MAX_TEXT].split(b"\n")[3:]).decode("ascii"))
    except ValueError:
        return b""


# WebP (RFC 9649)

_WEBP_KEPT: Final = (b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF")
_WEBP_METADATA: Final = 0b00101100  # flags of VP8X: ICC profile, EXIF, XMP


def _webp(data: bytes) -> Contents:
    """Keep the pixels of the first frame."""
    kept, seen, size, at = bytearray(), dict[bytes, bytes](), None, 12
    riff_end = 8 + int.from_bytes(data[4:8], "little")
    while at + 8 <= min(riff_end, len(data)):
        name, length = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        body = data[at + 8 : at + 8 + length]
        is_later_frame = name == b"ANMF" and name in seen
        if name in _WEBP_KEPT and not is_later_frame:
            size = size or _webp_size(name, body)
            if name == b"VP8X":
                body = bytes([body[0] & ~_WEBP_METADATA]) + body[1:] if body else body
            kept += data[at : at + 8] + body + b"\0" * (length % 2)
        if name in (b"EXIF", b"XMP ", b"ANMF"):
            seen.setdefault(name, body)
        at += 8 + length + length % 2
    riff = b"RIFF" + (4 + len(kept)).to_bytes(4, "little") + b"WEBP"
    return Contents(
        image=riff + bytes(kept),
        exif=seen.get(b"EXIF", b""),
        xmp=seen.get(b"XMP ", b""),
        size=size,
        is_cut=riff_end > len(data),
    )


def _webp_size(name: bytes, body: bytes) -> tuple[int, int] | None:
    """Return width and height of the canvas."""
    if name == b"VP8X" and len(body) >= 10:
        width, height = (int.from_bytes(body[at : at + 3], "little") for at in (4, 7))
        return width + 1, height + 1
    if name == b"VP8L" and len(body) >= 5:
        bits = int.from_bytes(body[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if name == b"VP8 " and len(body) >= 10:
        width, height = (int.from_bytes(body[at : at + 2], "little") for at in (6, 8))
        return width & 0x3FFF, height & 0x3FFF
    return None


# GIF (version 89a)


def _gif(data: bytes) -> Contents:
    """Keep the whole file: Pillow reads the first frame only, and comments are harmless."""
    return Contents(image=data, is_cut=not _has_gif_trailer(data))


def _has_gif_trailer(data: bytes) -> bool:
    try:
        at = 13 + _gif_palette(data[10])
        while (introducer := data[at]) != 0x3B:
            at += 1
            if introducer == 0x21:
                at = _after_gif_blocks(data, at + 1)
            elif introducer == 0x2C:
                at = _after_gif_blocks(data, at + 10 + _gif_palette(data[at + 8]))
    except IndexError:
        return False
    return True


def _gif_palette(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _after_gif_blocks(data: bytes, at: int) -> int:
    while size := data[at]:
        at += 1 + size
    return at + 1


# Boxes (ISO/IEC 14496-12): AVIF, HEIC, JPEG 2000

# A file that ends within one of these boxes is cut. Other names can be junk after the file.
_BOXES: Final = (b"ftyp", b"meta", b"moov", b"mdat", b"free", b"uuid", b"jp2h", b"jp2c", b"xml ")
_EXIF_ITEM: Final = re.compile(rb"(infe[\2\3].{3}(?:.{4}|.{6}))Exif", re.DOTALL)
_EXTENT: Final = re.compile(rb"ispe.{4}(.{8})", re.DOTALL)  # size of an image or of a tile
_CODESTREAM: Final = b"\xff\x4f\xff\x51"  # JPEG 2000: start, then size
_END_OF_CODESTREAM: Final = b"\xff\xd9"


def _heif(data: bytes) -> Contents:
    """Rename the EXIF item so that no decoder applies it: properties turn the image, not EXIF."""
    image, size, is_cut = data, None, False
    for name, start, end in _boxes(data):
        is_cut |= end > len(data) and name in _BOXES
        if name == b"meta" and image is data:
            meta = _EXIF_ITEM.sub(rb"\1free", data[start:end])
            image = b"".join([data[:start], meta, data[start + len(meta) :]])
            sizes = (struct.unpack(">LL", found[1]) for found in _EXTENT.finditer(meta))
            size = max(sizes, key=lambda each: each[0] * each[1], default=None)
    return Contents(image=image, size=size, is_cut=is_cut)


def _jpeg2000(data: bytes) -> Contents:
    """Read the size from the codestream, as the decoder does. The boxes can claim another."""
    start = data.find(_CODESTREAM)
    if start < 0 or start + 24 > len(data):
        return Contents(image=data, is_cut=True)
    boxes = _boxes(data) if start else ()
    is_cut = data.find(_END_OF_CODESTREAM, start) < 0 or any(
        end > len(data) and name in _BOXES for name, _, end in boxes
    )
    right, bottom, left, top = struct.unpack_from(">4L", data, start + 8)
    return Contents(image=data, size=(right - left, bottom - top), is_cut=is_cut)


def _boxes(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, start and end of each box of the file. The last can reach past its end."""
    at = 0
    while at < len(data):
        size, name, start = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8], at + 8
        if size == 1:
            size, start = int.from_bytes(data[at + 8 : at + 16], "big"), at + 16
        end = len(data) if size == 0 else at + max(size, start - at)
        yield name, start, end
        at = end


# TIFF


def _tiff(data: bytes) -> Contents:
    return Contents(image=data, size=tiff.tile_size(data), is_cut=tiff.is_cut(data))


_CONTAINERS: Final[Mapping[str, Callable[[bytes], Contents]]] = {
    "PNG": _png,
    "WEBP": _webp,
    "GIF": _gif,
    "AVIF": _heif,
    "HEIC": _heif,
    "JPEG2000": _jpeg2000,
    "TIFF": _tiff,
}
