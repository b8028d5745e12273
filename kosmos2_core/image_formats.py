"""The image formats there are, by file name and by first bytes; loads no decoder.

One list for all inputs: what `images` can decode, every input finds. Formats that hold photographs
but cannot be decoded here are listed too, so that such a file is rejected by its name and not lost.
"""

from collections.abc import Mapping
from typing import Final

DECODED: Final[Mapping[str, tuple[str, ...]]] = {
    "JPEG": ("jpg", "jpeg", "jpe", "jfif", "jif", "mpo"),
    "PNG": ("png", "apng"),
    "WEBP": ("webp",),
    "GIF": ("gif",),
    "BMP": ("bmp", "dib"),
    "TIFF": ("tif", "tiff"),
    "PPM": ("ppm", "pgm", "pbm", "pnm"),
    "AVIF": ("avif", "avifs"),
    "JPEG2000": ("jp2", "j2k", "jpc", "jpf", "jpx", "j2c"),
}
"""Pillow's names of the formats that `images.decode_image` reads, and the extensions of each."""

UNDECODED: Final[Mapping[str, tuple[str, ...]]] = {
    "HEIC": ("heic", "heif", "hif"),
    "JPEG XL": ("jxl",),
    "camera raw": (*("cr2", "cr3", "nef", "nrw", "arw", "dng", "orf", "rw2", "raf", "pef", "srw"),),
    "PSD": ("psd",),
}
"""Formats of photographs that are not decoded, and the extensions of each."""

IMAGE_EXTENSIONS: Final = frozenset(
    extension for names in (DECODED, UNDECODED) for group in names.values() for extension in group
)
"""Lower case, without the dot. A file of such a name is a sample: annotated, or rejected."""

HEAD_BYTES: Final = 32
"""How many first bytes `format_of` needs."""

_MAGIC: Final = (
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (0, b"GIF87a", "GIF"),
    (0, b"GIF89a", "GIF"),
    (8, b"WEBP", "WEBP"),
    (0, b"II*\0\x10\0\0\0CR", "camera raw"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (0, b"IIRO", "camera raw"),
    (0, b"IIU\0", "camera raw"),
    (0, b"FUJIFILMCCD-RAW", "camera raw"),
    (4, b"ftypcrx ", "camera raw"),
    (4, b"ftypavif", "AVIF"),
    (4, b"ftypavis", "AVIF"),
    (4, b"ftyphei", "HEIC"),
    (4, b"ftyphev", "HEIC"),
    (4, b"ftypmif1", "HEIC"),
    (4, b"ftypmsf1", "HEIC"),
    (0, b"\xff\x0a", "JPEG XL"),
    (0, b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    (0, b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG2000"),
    (0, b"8BPS\0\x01", "PSD"),
)


def format_of(head: bytes) -> str | None:
    """Name the image format that these first bytes begin, or None.

    Only signatures that other data hardly have: BMP ("BM") and PPM ("P6") are not told this way.

    >>> format_of(b"\\xff\\xd8\\xff\\xe0")
    'JPEG'
    """
    return next((name for at, magic, name in _MAGIC if head.startswith(magic, at)), None)


def is_image_name(name: str) -> bool:
    """Return whether the extension of `name` is one of an image format; case does not matter."""
    return name.rpartition(".")[2].lower() in IMAGE_EXTENSIONS and "." in name
