"""Pictures as nobody should send them: files of every kind, and seeded ways to spoil them."""

import io
import re
import struct
import zlib
from functools import cache

import numpy as np
import pillow_heif
from PIL import Image

from kosmos2_core.images.decode import MAX_PIXELS
from tests.hostile.spoiling import Spoil, cut, flip

pillow_heif.register_heif_opener()  # to write files of it

_ORIENTATION = 0x0112


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def noise(size: tuple[int, int] = (61, 47)) -> Image.Image:
    width, height = size
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


@cache
def files() -> dict[str, bytes]:
    """Sound files, by a name with an extension."""
    image, other = noise(), noise((47, 61))
    exif = Image.Exif()
    exif[_ORIENTATION] = 6
    deep = np.random.default_rng(1).integers(0, 65536, (47, 61)).astype(np.uint16)
    more = {"save_all": True, "append_images": [image, image]}
    return {
        "plain.jpg": encoded(image, "JPEG", exif=exif, icc_profile=b"profile" * 99),
        "progressive.jpg": encoded(image, "JPEG", progressive=True),
        "cmyk.jpg": encoded(image.convert("CMYK"), "JPEG"),
        "grey.jpg": encoded(image.convert("L"), "JPEG"),
        "plain.png": encoded(image, "PNG", exif=exif, icc_profile=b"profile" * 99),
        "deep.png": encoded(Image.fromarray(deep), "PNG"),
        "palette.png": encoded(image.convert("P"), "PNG", transparency=bytes(range(200))),
        "bilevel.png": encoded(image.convert("1"), "PNG"),
        "animated.png": encoded(image, "PNG", **more),
        "plain.webp": encoded(image, "WEBP", exif=exif, icc_profile=b"profile" * 99),
        "lossless.webp": encoded(image.convert("RGBA"), "WEBP", lossless=True),
        "animated.webp": encoded(image, "WEBP", **more),
        "plain.gif": encoded(image, "GIF"),
        "animated.gif": encoded(image, "GIF", **more),
        "plain.tiff": encoded(image, "TIFF", exif=exif, icc_profile=b"profile" * 99),
        "lzw.tiff": encoded(image.convert("CMYK"), "TIFF", compression="tiff_lzw"),
        "deep.tiff": encoded(Image.fromarray(deep), "TIFF", compression="tiff_deflate"),
        "pages.tiff": encoded(image, "TIFF", save_all=True, append_images=[other]),
        "row.png": encoded(noise((3000, 1)), "PNG"),
        "column.jpg": encoded(noise((1, 3000)), "JPEG"),
        "pixel.gif": encoded(noise((1, 1)), "GIF"),
        "plain.jp2": encoded(image, "JPEG2000"),
        "tiles.jp2": encoded(image.convert("RGBA"), "JPEG2000", tile_size=(32, 32)),
        "codestream.j2k": encoded(image, "JPEG2000", no_jp2=True),
        "plain.avif": encoded(image, "AVIF", exif=exif, icc_profile=b"profile" * 99),
        "animated.avif": encoded(image, "AVIF", **more),
        "plain.heic": encoded(image, "HEIF", exif=exif.tobytes()),
        "plain.ppm": encoded(image, "PPM"),
        "deep.pgm": encoded(Image.fromarray(deep), "PPM"),
        "text.ppm": b"P3\n# a comment\n3 2 255\n" + b"\n1 2 3 4 5 6 7 8 9" * 2,
        "bilevel.pbm": encoded(image.convert("1"), "PPM"),
        "plain.bmp": encoded(image, "BMP"),
        "palette.bmp": encoded(image.convert("P"), "BMP"),
        "plain.dib": encoded(image, "DIB"),
        "jpeg.tiff": encoded(image, "TIFF", compression="jpeg"),
        "fax.tiff": encoded(image.convert("1"), "TIFF", compression="group4"),
    }


# ---- ways to spoil a file


def flipped(rng: np.random.Generator, data: bytes) -> bytes:
    return flip(rng, data, most=11)


def flipped_head(rng: np.random.Generator, data: bytes) -> bytes:
    """Headers lie: sizes, depths, offsets, lengths of chunks."""
    head = min(len(data), 80)
    return flipped(rng, data[:head]) + data[head:]


_EXTREMES = (b"\xff" * 4, bytes(4), b"\x7f\xff\xff\xff", b"\x80\0\0\0")


def extreme_numbers(rng: np.random.Generator, data: bytes) -> bytes:
    spoilt = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        at = int(rng.integers(min(len(data), 200)))
        spoilt[at : at + 4] = _EXTREMES[rng.integers(len(_EXTREMES))]
    return bytes(spoilt)


def zeroed(rng: np.random.Generator, data: bytes) -> bytes:
    start, end = sorted(rng.integers(len(data) + 1, size=2))
    return data[:start] + bytes(end - start) + data[end:]


def doubled(rng: np.random.Generator, data: bytes) -> bytes:
    """A stretch twice: chunks and markers where none belong."""
    start, end = sorted(rng.integers(len(data) + 1, size=2))
    return data[:end] + data[start:]


def spliced(rng: np.random.Generator, data: bytes) -> bytes:
    """The head of one format, the tail of another."""
    other = files()[rng.choice(sorted(files()))]
    return data[: rng.integers(len(data))] + other[rng.integers(len(other)) :]


def with_broken_metadata(rng: np.random.Generator, data: bytes) -> bytes:
    """EXIF and ICC are small; what is spoilt near them is mostly theirs."""
    places = [
        at for mark in (b"Exif", b"MM\0*", b"II*\0", b"profile") if (at := data.find(mark)) > 0
    ]
    if not places:
        return flipped(rng, data)
    at = places[rng.integers(len(places))]
    spoilt = bytearray(data)
    for _ in range(rng.integers(1, 8)):
        spoilt[min(at + int(rng.integers(60)), len(data) - 1)] = int(rng.integers(256))
    return bytes(spoilt)


def untouched(rng: np.random.Generator, data: bytes) -> bytes:
    """Under another name, perhaps: extensions lie too."""
    return data


SPOILS: tuple[Spoil, ...] = (
    *(cut, flipped, flipped_head, extreme_numbers, zeroed, doubled, spliced),
    *(with_broken_metadata, untouched),
)


# ---- files that no accident makes


def png(width: int, height: int, *, colour: int = 2, more: bytes = b"", rows: bytes = b"") -> bytes:
    """A PNG that says what it is told to, with `more` chunks before its compressed `rows`."""
    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    pixels = _chunk(b"IDAT", zlib.compress(rows, level=1))
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + more + pixels + _chunk(b"IEND", b"")


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def _claiming(extension: str, side: int) -> bytes:
    """A file of `noise` that says it is `side` pixels wide and high, wherever it says so."""
    data = next(data for name, data in files().items() if name.endswith(extension))
    claimed = struct.pack(">LL", side, side)
    for size in ((61, 47), (47, 61)):
        data = data.replace(struct.pack(">LL", *size), claimed)
    # An encoder may have rounded the size up, for the decoder to cut off again.
    return re.sub(rb"(ispe.{4}).{8}", lambda found: found[1] + claimed, data, flags=re.DOTALL)


def bombs() -> dict[str, tuple[bytes, set[str]]]:
    """Small files that ask for much, and the rejection that each ends in, if any."""
    large = int(MAX_PIXELS**0.5)
    huge_text = b"k\0\0" + zlib.compress(bytes(100_000_000))
    huge_exif = b"Raw profile type exif\0" + huge_text[2:]
    screen = b"\xff\xff\xff\xff"
    return {
        "empty.jpg": (b"", {"empty_image"}),
        "page.jpg": (b"<html>404 Not Found</html>", {"unknown_format"}),
        "zeros.png": (bytes(5000), {"unknown_format"}),
        "script.png": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", {"unknown_format"}),
        "square.png": (png(2**31 - 1, 2**31 - 1), {"image_too_large"}),
        "bomb.png": (png(50_000, 50_000, rows=bytes(10_000_000)), {"image_too_large"}),
        "line.png": (png(2**31 - 1, 1), {"image_too_large"}),
        "largest.png": (png(large, large, colour=0, rows=bytes(large * (large + 1))), set()),
        "liar.png": (png(4000, 4000, rows=bytes(1000)), {"truncated_image"}),
        "flat.png": (png(0, 5), {"corrupt_image"}),
        "text.png": (png(1, 1, more=_chunk(b"zTXt", huge_text), rows=bytes(4)), set()),
        "icc.png": (png(1, 1, more=_chunk(b"iCCP", huge_text), rows=bytes(4)), set()),
        "texts.png": (png(1, 1, more=_chunk(b"zTXt", huge_text) * 50, rows=bytes(4)), set()),
        "exif.png": (png(1, 1, more=_chunk(b"zTXt", huge_exif), rows=bytes(4)), set()),
        "bomb-ppm.jpg": (b"P6 20000 20000 255\n", {"image_too_large"}),
        "bomb-pgm.jpg": (b"P2 20000 20000 255\n1 2 3", {"image_too_large"}),
        "liar-ppm.jpg": (b"P6 4000 4000 255\n" + bytes(999), {"truncated_image"}),
        "bomb-jp2.jpg": (_claiming(".jp2", 30_000), {"image_too_large"}),
        "void-jp2.jpg": (_claiming(".jp2", 1000), set()),  # blocks that are not there are black
        "bomb-j2k.jpg": (_claiming(".j2k", 30_000), {"image_too_large"}),
        "bomb-avif.jpg": (_claiming(".avif", 30_000), {"image_too_large"}),
        # libavif scales it to what it claims
        "stretched-avif.jpg": (_claiming(".avif", 1000), set()),
        "bomb-heic.jpg": (_claiming(".heic", 30_000), {"image_too_large"}),
        "liar-heic.jpg": (_claiming(".heic", 4000), {"corrupt_image"}),
        "bomb.gif": (
            b"GIF89a" + screen + b"\0\0\0,\0\0\0\0" + screen + b"\0\x02\0;",
            {"image_too_large"},
        ),
    }
