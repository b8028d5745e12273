"""Metadata of image files: it never rejects an image, and it takes no memory."""

import io
import os
import struct
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image

from kosmos2_core.images.decode import decode_image, upright_image
from tests.support.image_files import chunk, encoded, png_file, with_chunks

RGB = Image.fromarray(np.random.default_rng(0).integers(0, 256, (37, 53, 3), np.uint8))
PNG = encoded(RGB, "PNG")
PIXELS = decode_image(PNG).pixels
MIB = 1 << 20
LONG = os.urandom(2 * MIB)
EXIF = b"MM\0*\0\0\0\x08\0\x01" + struct.pack(">HHLHHL", 0x0112, 3, 1, 6, 0, 0)
XMP = b'<x tiff:Orientation="8"/>'


def z(text):
    return zlib.compress(text, level=1)


def itxt(keyword, text, *, is_compressed=False):
    body = z(text) if is_compressed else text
    return chunk(b"iTXt", keyword + b"\0" + bytes([is_compressed, 0]) + b"en\0\0" + body)


TEXT_1MB = z(b"x" * MIB)
BURDENED = {
    "a text of 2 MB": with_chunks(PNG, chunk(b"tEXt", b"prompt\0" + LONG.hex().encode())),
    "a compressed text of 2 MB": with_chunks(PNG, chunk(b"zTXt", b"k\0\0" + z(LONG))),
    "an international text of 2 MB": with_chunks(PNG, itxt(b"prompt", b"x" * 2 * MIB)),
    "compressed XMP of 2 MB": with_chunks(
        PNG, itxt(b"XML:com.adobe.xmp", b"x" * 2 * MIB, is_compressed=True)
    ),
    "a raw profile of 2 MB": with_chunks(
        PNG, chunk(b"zTXt", b"Raw profile type xmp\0\0" + z(LONG.hex().encode()))
    ),
    "a profile of 2 MB": with_chunks(PNG, chunk(b"iCCP", b"printer\0\0" + z(LONG))),
    "a profile that is broken": with_chunks(PNG, chunk(b"iCCP", b"printer\0\7junk")),
    "a hundred texts of 1 MB": with_chunks(
        PNG, *(chunk(b"zTXt", b"k%d\0\0" % number + TEXT_1MB) for number in range(100))
    ),
    "a text behind the pixels": PNG[:-12] + chunk(b"zTXt", b"k\0\0" + z(LONG)) + PNG[-12:],
    "a checksum of a text that is wrong": with_chunks(PNG, chunk(b"tEXt", b"k\0v")[:-1] + b"?"),
    "a text without a keyword": with_chunks(PNG, chunk(b"zTXt", b"\0\0" + LONG)),
    "times and sizes that are too short": with_chunks(
        PNG, *(chunk(name, b"") for name in (b"tIME", b"pHYs", b"gAMA", b"cHRM", b"sRGB", b"tRNS"))
    ),
    "frames that are out of order": with_chunks(
        PNG, chunk(b"acTL", b"\0" * 8), chunk(b"fcTL", b"")
    ),
}


@pytest.mark.parametrize("name", BURDENED)
def test_a_png_with_large_metadata_is_read(name):
    result = decode_image(BURDENED[name])
    assert np.array_equal(result.pixels, PIXELS)
    assert (result.issues, result.exif_orientation) == ((), 1)


def test_a_text_that_is_a_bomb_is_not_unpacked():
    bomb = z(bytes(100 * MIB))
    data = with_chunks(
        PNG,
        chunk(b"zTXt", b"Raw profile type exif\0\0" + bomb),
        itxt(b"XML:com.adobe.xmp", bytes(100 * MIB), is_compressed=True),
        chunk(b"iCCP", b"p\0\0" + bomb),
    )
    tracemalloc.start()
    result = decode_image(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert np.array_equal(result.pixels, PIXELS)
    assert peak < 8 * MIB


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {"icc_profile": LONG}),
        ("JPEG", {"comment": LONG[:65_000]}),
        ("WEBP", {"icc_profile": LONG}),
        ("WEBP", {"xmp": LONG}),
        ("WEBP", {"exif": b"Exif\0\0" + LONG}),
        ("AVIF", {"icc_profile": LONG}),
        ("AVIF", {"xmp": LONG}),
        ("TIFF", {"icc_profile": LONG}),
        ("TIFF", {"tiffinfo": {700: LONG, 270: LONG.hex()}}),
        ("GIF", {"comment": LONG}),
        ("JPEG2000", {"comment": LONG[:65_000]}),
    ],
)
def test_a_file_of_another_format_with_large_metadata_is_read(kind, options):
    result = decode_image(encoded(RGB, kind, **options))
    assert np.array_equal(result.pixels, decode_image(encoded(RGB, kind)).pixels)
    assert result.issues == ()


def test_a_jpeg_with_thousands_of_segments_is_read():
    data = encoded(RGB, "JPEG")
    segment = b"\xff\xec" + struct.pack(">H", 65_535) + bytes(65_533)
    result = decode_image(data[:2] + segment * 100 + b"\xff\xfe\0\2" * 5000 + data[2:])
    assert np.array_equal(result.pixels, decode_image(data).pixels)


RAW = b"Raw profile type exif\0"
PROFILE = b"\nexif\n%8d\n" % len(EXIF) + EXIF.hex().encode()
PREFIXED = b"\nexif\n%8d\n" % (6 + len(EXIF)) + (b"Exif\0\0" + EXIF).hex().encode()
ORIENTED = {
    "eXIf": (with_chunks(PNG, chunk(b"eXIf", EXIF)), 6),
    "eXIf behind the pixels": (PNG[:-12] + chunk(b"eXIf", EXIF) + PNG[-12:], 6),
    "XMP": (with_chunks(PNG, itxt(b"XML:com.adobe.xmp", XMP)), 8),
    "compressed XMP": (with_chunks(PNG, itxt(b"XML:com.adobe.xmp", XMP, is_compressed=True)), 8),
    "XMP behind the pixels": (PNG[:-12] + itxt(b"XML:com.adobe.xmp", XMP) + PNG[-12:], 8),
    "eXIf before XMP": (with_chunks(PNG, itxt(b"XML:com.adobe.xmp", XMP), chunk(b"eXIf", EXIF)), 6),
    "a raw profile": (with_chunks(PNG, chunk(b"tEXt", RAW + PROFILE)), 6),
    "a compressed raw profile": (
        with_chunks(PNG, chunk(b"zTXt", RAW + b"\0" + z(PROFILE))), 6,
    ),
    "a raw profile with its prefix": (with_chunks(PNG, chunk(b"tEXt", RAW + PREFIXED)), 6),
    "a raw profile that is no hexadecimal": (
        with_chunks(PNG, chunk(b"tEXt", RAW + b"\n\n\nxyz")), 1,
    ),
    "behind a text of 2 MB": (
        with_chunks(PNG, chunk(b"zTXt", b"k\0\0" + z(LONG)), chunk(b"eXIf", EXIF)), 6,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ORIENTED)
def test_a_png_is_turned_by_the_same_metadata_as_in_pillow(name):
    data, orientation = ORIENTED[name]
    result = decode_image(data)
    assert result.exif_orientation == orientation
    if "no hexadecimal" not in name and "2 MB" not in name:  # those Pillow refuses
        assert Image.open(io.BytesIO(data)).getexif().get(0x0112, 1) == orientation
    assert upright_image(data).size == ((37, 53) if orientation > 4 else (53, 37))


def test_exif_that_is_broken_does_not_reject_an_avif():
    exif = Image.Exif()
    exif.update({0x0112: 6, 0x010E: "a description"})
    data = encoded(RGB, "AVIF", exif=exif)
    at = data.index(b"MM\0*\0\0\0\x08", data.index(b"mdat"))
    broken = data[:at] + b"garbage!" + data[at + 8 :]
    assert np.array_equal(decode_image(broken).pixels, decode_image(data).pixels)
    assert decode_image(broken).exif_orientation == 6  # from the property that turns it


def test_a_palette_and_its_transparency_are_of_the_pixels():
    palette = encoded(RGB.convert("P"), "PNG", transparency=3)
    expected = np.asarray(Image.open(io.BytesIO(palette)).convert("RGB"))
    assert np.array_equal(np.asarray(upright_image(palette)), expected)


def test_an_empty_chunk_of_pixels_is_no_end():
    at = PNG.index(b"IDAT") - 4
    data = PNG[:at] + chunk(b"IDAT", b"") + PNG[at:]
    assert np.array_equal(decode_image(data).pixels, PIXELS)
    assert png_file(chunk(b"IHDR", PNG[16:29])) != data
