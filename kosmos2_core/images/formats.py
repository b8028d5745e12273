"""Tell image formats by file name and by first bytes. Loads no decoder.

All inputs use this list, so every input finds the files that `images` can decode. Formats of
photographs that cannot be decoded are listed, too: such a file is rejected and not overlooked.
"""

import re
from collections.abc import Mapping
from typing import Final

DECODED: Final[Mapping[str, tuple[str, ...]]] = {
    "JPEG": ("jpg", "jpeg", "jpe", "jfif", "jif", "mpo"),
    "PNG": ("png", "apng"),
    "WEBP": ("webp",),
    "GIF": ("gif",),
    "BMP": ("bmp",),
    "DIB": ("dib",),
    "TIFF": ("tif", "tiff"),
    "PPM": ("ppm", "pgm", "pbm", "pnm"),
    "AVIF": ("avif", "avifs"),
    "JPEG2000": ("jp2", "j2k", "jpc", "jpf", "jpx", "j2c"),
}
"""Formats that `decode_image` opens without an extra, by Pillow's names, with their extensions.

Only raster formats are listed, because a format such as EPS can contain a script. An MPO is opened
as a JPEG."""

UNDECODED: Final[Mapping[str, tuple[str, ...]]] = {
    "HEIC": ("heic", "heif", "hif"),
    "JPEG XL": ("jxl",),
    "camera raw": (*("cr2", "cr3", "nef", "nrw", "arw", "dng", "orf", "rw2", "raf", "pef", "srw"),),
    "PSD": ("psd",),
}
"""Formats of photographs that Pillow does not decode, with their extensions."""

EXTRAS: Final[Mapping[str, str]] = {"HEIC": "heif"}
"""Names of the optional dependencies (extras), by the format that they decode."""

IMAGE_EXTENSIONS: Final = frozenset(
    extension for names in (DECODED, UNDECODED) for group in names.values() for extension in group
)
"""Extensions in lower case, without the dot. A file with one of them is a sample."""

HEAD_BYTES: Final = 64
"""Number of first bytes that `format_of` needs."""

TEXT_BYTES: Final = 1024
"""Number of first bytes that `content_of` uses."""

_MAGIC: Final[Mapping[str, tuple[bytes, ...]]] = {
    "JPEG": (b"\xff\xd8\xff",),
    "PNG": (b"\x89PNG\r\n\x1a\n",),
    "GIF": (b"GIF87a", b"GIF89a"),
    "camera raw": (
        *(b"II*\0\x10\0\0\0CR", b"IIRO", b"IIRS", b"MMOR", b"IIU\0", b"II\x1a\0\0\0HEAPCCDR"),
        *(b"FUJIFILMCCD-RAW", b"FOVb", b"\0MRM"),
    ),
    "JPEG XR": (b"II\xbc",),
    # The two in the middle are wrong but in use, and decoders read them. The last two are BigTIFF.
    "TIFF": (b"II*\0", b"MM\0*", b"II\0*", b"MM*\0", b"II+\0", b"MM\0+"),
    "JPEG XL": (b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n"),
    "JPEG2000": (b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51"),
    "PSD": (b"8BPS\0",),
    "ICO": (b"\0\0\1\0",),
    "CUR": (b"\0\0\2\0",),
    "DDS": (b"DDS ",),
    "QOI": (b"qoif",),
    "FLIF": (b"FLIF",),
    "BPG": (b"BPG\xfb",),
    "XCF": (b"gimp xcf ",),
    "OpenEXR": (b"v/1\1",),
    "Radiance HDR": (b"#?RADIANCE",),
    "FITS": (b"SIMPLE  =",),
    "DjVu": (b"AT&TFORM",),
    "PAM": (b"P7\n",),
    "PFM": (b"PF\n",),
}
"""First bytes of each format. The first match counts, so camera raw comes before TIFF."""

# Brands of the ISO base media format. The first of a file's brands that is listed decides. General
# brands ("mif1") do not tell the coding, so the compatible brands after them are checked.
_BRANDS: Final = {
    **dict.fromkeys((b"avif", b"avis"), "AVIF"),
    **dict.fromkeys(
        (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"), "HEIC"
    ),
    **dict.fromkeys((b"avci", b"avcs", b"jpeg", b"jpgs", b"vvic", b"vvis"), "HEIF without HEVC"),
    b"crx ": "camera raw",
}
_GENERAL_BRANDS: Final = (b"mif1", b"msf1", b"mif2", b"miaf", b"heif")

_BMP_HEADERS: Final = (12, 40, 52, 56, 64, 108, 124)  # bytes, by version
_PNM: Final = re.compile(rb"(?:P[1-6]|Pf)\s+[0-9#]")

_INNER: Final = re.compile(rb"<svg|<html")

# Other content of files with the name of an image, by first bytes (text: lower case, stripped).
_FOREIGN: Final[Mapping[str, tuple[bytes, ...]]] = {
    "a Git LFS pointer": (b"version https://git-lfs",),
    "a git-annex pointer": (b"/annex/objects/",),
    "an HTML page": (b"<!doctype html", b"<html", b"<head", b"<body"),
    "an SVG drawing": (b"<svg", b"<!doctype svg"),
    "an XML document": (b"<?xml", b"<error"),
    "a PDF document": (b"%pdf-",),
    "a PostScript document": (b"%!ps", b"\xc5\xd0\xd3\xc6"),
    "a data: URL": (b"data:image/",),
    "base64 text of a JPEG": (b"/9j/",),
    "base64 text of a PNG": (b"ivborw0kggo",),
    "a ZIP archive": (b"pk\3\4",),
    "gzip data": (b"\x1f\x8b",),
    "bzip2 data": (b"bzh",),
    "xz data": (b"\xfd7zxz",),
    "Zstandard data": (b"\x28\xb5\x2f\xfd",),
    "a 7z archive": (b"7z\xbc\xaf",),
    "a RAR archive": (b"rar!",),
    "a Parquet file": (b"par1",),
    "an Arrow file": (b"arrow1",),
    "a NumPy array": (b"\x93numpy",),
    "an HDF5 file": (b"\x89hdf",),
    "a Matroska or WebM video": (b"\x1a\x45\xdf\xa3",),
    "a RIFF file that is no WebP (AVI or WAV)": (b"riff",),
    "a Flash video": (b"flv\1",),
    "an MP3 recording": (b"id3",),
    "an Ogg recording": (b"oggs",),
    "a program": (b"\x7felf",),
}

_REMEDIES: Final = {
    "a Git LFS pointer": "fetch its file with git lfs pull",
    "a git-annex pointer": "fetch its file with git annex get",
    "an SVG drawing": "convert it to PNG",
    "a data: URL": "decode its base64",
    "base64 text of a JPEG": "decode it",
    "base64 text of a PNG": "decode it",
}


def format_of(head: bytes) -> str | None:
    """Return the name of the image format that begins with these bytes, or None.

    The name is a key of `DECODED` or `UNDECODED`, or a format without an entry because
    photographs are not stored in it (ICO, DDS, ...). A camera raw file with the first bytes of a
    TIFF gives "TIFF"; `tiff.is_camera_raw` tells them apart.

    >>> format_of(b"\\xff\\xd8\\xff\\xe0")
    'JPEG'
    """
    if head[4:8] == b"ftyp":
        return _brand_format(head)
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "WEBP"
    if name := _first_match(head, _MAGIC):
        return name
    if head.startswith(b"BM") and int.from_bytes(head[14:18], "little") in _BMP_HEADERS:
        return "BMP"
    if _is_dib(head):
        return "DIB"
    return "PPM" if _PNM.match(head) else None


def content_of(head: bytes) -> str | None:
    """Return what a file contains that is not an image, by its first `TEXT_BYTES`, and a remedy.

    None if the content is not known.

    >>> content_of(b"<!DOCTYPE html><html>")
    'an HTML page, not an image: download the image again'
    """
    content = _content_of(head)
    if content is None:
        return None
    remedy = _REMEDIES.get(content, "download the image again")
    return f"{content}, not an image: {remedy}"


def is_image_name(name: str) -> bool:
    """Return whether a file name has the extension of an image format, in any case."""
    return name.rpartition(".")[2].lower() in IMAGE_EXTENSIONS and "." in name


def _first_match(head: bytes, magic: Mapping[str, tuple[bytes, ...]]) -> str | None:
    return next((name for name, starts in magic.items() if head.startswith(starts)), None)


def _brand_format(head: bytes) -> str | None:
    end = min(int.from_bytes(head[:4], "big"), len(head))
    brands = [head[8:12], *(head[at : at + 4] for at in range(16, end, 4))]
    if brands[0] not in (*_BRANDS, *_GENERAL_BRANDS):
        return None  # a video, whatever its compatible brands
    return next((_BRANDS[brand] for brand in brands if brand in _BRANDS), "HEIC")


def _is_dib(head: bytes) -> bool:
    """Return whether the bytes begin a bitmap without a file header (one plane, known depth)."""
    if len(head) < 16 or int.from_bytes(head[:4], "little") not in _BMP_HEADERS:
        return False
    at = 8 if head[0] == 12 else 12
    planes, depth = head[at : at + 2], int.from_bytes(head[at + 2 : at + 4], "little")
    return planes == b"\1\0" and depth in (1, 4, 8, 16, 24, 32)


def _is_text(head: bytes) -> bool:
    try:
        text = head.decode()
    except UnicodeDecodeError as error:
        if error.reason != "unexpected end of data":  # where `head` ends within a character
            return False
        text = head[: error.start].decode()
    return all(character.isprintable() or character.isspace() for character in text)


def _content_of(head: bytes) -> str | None:
    if not head.strip(b"\0"):
        return "nothing but zero bytes"
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide"):
        return "an MP4 or QuickTime video"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<?xml", b"<!--")) and (inner := _INNER.search(text)):
        return {b"<svg": "an SVG drawing", b"<html": "an HTML page"}[inner[0]]
    if name := _first_match(text, _FOREIGN):
        return name
    if not _is_text(head):
        return None
    return "JSON" if text.startswith((b"{", b"[")) else "text"
