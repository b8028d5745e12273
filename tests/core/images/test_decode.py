import io
import random
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
import simplejpeg
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from skimage import data as skimage_data
from sklearn.datasets import load_sample_images
from transformers import AutoProcessor

import kosmos2_core
from kosmos2_core.annotation import Issue
from kosmos2_core.errors import (
    CorruptImage,
    EmptyImage,
    ImageError,
    ImageTooLarge,
    TruncatedImage,
    UnknownFormat,
)
from kosmos2_core.images import decode as images
from kosmos2_core.images import resize
from kosmos2_core.images.decode import decode_image, square_pixels, upright_image
from tests.support.image_files import chunk, encoded, png_file, tiff_file, with_chunks

pillow_heif.register_heif_opener()  # to write files of it

CHECKPOINT = Path(kosmos2_core.__file__).parent / "shapes" / "checkpoint"
ORIENTATION = 0x0112
NOISE = np.random.default_rng(0).normal(0, 12, (256, 256, 3))


@cache
def processor():
    return AutoProcessor.from_pretrained(CHECKPOINT).image_processor


def reference(image):
    """Return uint8 [3, 224, 224] from the reference, the processor of transformers."""
    batch = processor()(image, do_rescale=False, do_normalize=False)
    return np.asarray(batch["pixel_values"][0])


def assert_close(pixels, expected):
    assert (pixels.shape, pixels.dtype) == ((3, 224, 224), np.uint8)
    assert pixels.flags.c_contiguous
    difference = np.abs(pixels.astype(int) - expected)
    assert difference.max() <= 2
    assert np.mean(difference <= 1) >= 0.999


@cache
def photo(name="astronaut", width=200, height=150):
    """A photograph with grain: smooth images hide errors of the resize."""
    named = dict(zip(("china", "flower"), load_sample_images().images, strict=True))
    array = named[name] if name in named else getattr(skimage_data, name)()
    small = np.asarray(Image.fromarray(array).resize((width, height)))
    grain = np.tile(NOISE, (height // 256 + 1, width // 256 + 1, 1))[:height, :width]
    return Image.fromarray(np.clip(small + grain, 0, 255).astype(np.uint8))


def exif_of(orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif


def opened(data):
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def tifffile_of(values, **options):
    file = io.BytesIO()
    tifffile.imwrite(file, values, **options)
    return file.getvalue()


def deep_grey(values):
    return Image.fromarray(np.broadcast_to(values, (8, len(values))).copy())


def middle_row(pixels, count):
    """The first channel at the centres of `count` equal columns."""
    step = 224 // count
    return pixels[0, 112, step // 2 :: step].astype(int)


# The square


@pytest.mark.parametrize("name", ["astronaut", "coffee", "china", "flower"])
def test_a_jpeg_photograph_equals_the_reference(name):
    data = encoded(photo(name, 1024, 768), "JPEG", quality=85)
    assert_close(decode_image(data).pixels, reference(opened(data)))


@pytest.mark.parametrize(
    ("width", "height"),
    [
        (1024, 768), (768, 1024), (300, 600), (300, 1000), (1000, 300), (640, 480), (481, 640),
        (224, 224), (224, 500), (500, 224), (100, 50), (50, 100), (223, 225), (225, 223),
        (225, 226), (225, 227), (300, 376), (300, 377), (600, 976), (600, 977),
        (1, 1), (1, 3), (3, 1), (2, 3), (3, 2), (1, 300), (300, 1), (1, 5000), (5000, 1),
        (64, 4000), (4000, 64), (10, 20000), (20000, 10), (3, 65535), (65535, 3),
    ],
)  # fmt: skip
def test_every_size_equals_the_reference(width, height):
    image = photo("astronaut", width, height)
    assert_close(square_pixels(image), reference(image))


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "PA", "RGBA", "CMYK", "YCbCr", "HSV"])
def test_every_mode_equals_the_reference(mode):
    image = photo().convert(mode)
    assert_close(square_pixels(image), reference(image))


@pytest.mark.parametrize("width", [223, 224, 225, 300, 500])
def test_the_order_of_resize_passes_is_that_of_pillow(width):
    for height in (224, 225, 2 * width - 224, 2 * width - 223):
        image = photo("coffee", width, height)
        columns_first = image.resize((width, 224), Image.Resampling.BICUBIC)
        expected = resize._is_vertical_first(height, width)
        is_equal = columns_first.resize((224, 224), Image.Resampling.BICUBIC) == image.resize(
            (224, 224), Image.Resampling.BICUBIC
        )
        assert is_equal or not expected
        if 224 not in (width, height):  # there, one pass is all
            assert is_equal == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([0, 255, 32768, 65535], np.uint16), [0, 1, 128, 255]),
        (np.array([0, 10, 128, 255], np.int32), [0, 10, 128, 255]),
        (np.array([-5, 257, 32768, 65535], np.int32), [0, 1, 128, 255]),
        (np.array([0, 2**29, 2**30, 2**31 - 1], np.int32), [0, 64, 128, 255]),
        (np.array([0, 0.25, 0.5, 1], np.float32), [0, 64, 128, 255]),
        (np.array([0, 10, 128, 255], np.float32), [0, 10, 128, 255]),
        (np.array([np.nan, -1, 500, np.inf], np.float32), [0, 0, 2, 255]),
    ],
)
def test_deep_grey_is_scaled_and_not_clipped(values, expected):
    wide = deep_grey(np.repeat(values, 56))
    np.testing.assert_allclose(middle_row(square_pixels(wide), 4), expected, atol=1)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_16_bit_grey_files_are_scaled(kind):
    grey = photo().convert("L")
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    assert_close(decode_image(encoded(deep, kind)).pixels, reference(grey))


def test_16_bit_colour_keeps_its_high_byte():
    samples = np.full((8, 8, 3), 0x80FF, ">u2")
    header = struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0)
    rows = b"".join(b"\0" + row.tobytes() for row in samples)
    data = png_file(chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)))
    assert np.all(decode_image(data).pixels == 0x80)


def test_an_image_without_pixels_is_empty():
    with pytest.raises(EmptyImage):
        square_pixels(Image.new("RGB", (0, 5)))


# Files

# 200x150 of RGB (10, 20, 30), interlaced: seven passes of rows, each with its filter.
PNG_INTERLACED = png_file(
    chunk(b"IHDR", struct.pack(">IIBBBBB", 200, 150, 8, 2, 0, 0, 1)),
    chunk(
        b"IDAT",
        zlib.compress(
            b"".join(
                (b"\0" + b"\x0a\x14\x1e" * len(range(left, 200, across)))
                * len(range(top, 150, down))
                for left, top, across, down in (
                    (0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4),
                    (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2),
                )
            )
        ),
    ),
)  # fmt: skip

RGB, OTHER = photo(), photo("coffee")
FILES = {
    "jpeg": encoded(RGB, "JPEG"),
    "jpeg exif": encoded(RGB, "JPEG", exif=exif_of(6)),
    "jpeg progressive": encoded(RGB, "JPEG", progressive=True),
    "jpeg 4:4:4": encoded(RGB, "JPEG", subsampling=0),
    "jpeg 4:2:2": encoded(RGB, "JPEG", subsampling=1),
    "jpeg 4:4:0": simplejpeg.encode_jpeg(np.array(RGB), colorsubsampling="440"),
    "jpeg rgb": encoded(RGB, "JPEG", keep_rgb=True),
    "jpeg grey": encoded(RGB.convert("L"), "JPEG"),
    "jpeg cmyk": encoded(RGB.convert("CMYK"), "JPEG"),
    "jpeg cmyk without adobe": encoded(RGB.convert("CMYK"), "JPEG").replace(b"Adobe", b"Nobod"),
    "mpo": encoded(RGB, "MPO", save_all=True, append_images=[OTHER]),
    "png": encoded(RGB, "PNG"),
    "png rgba": encoded(RGB.convert("RGBA"), "PNG"),
    "png palette": encoded(RGB.convert("P"), "PNG"),
    "png palette alpha": encoded(RGB.convert("P"), "PNG", transparency=7),
    "png bilevel": encoded(RGB.convert("1"), "PNG"),
    "png animated": encoded(RGB, "PNG", save_all=True, append_images=[OTHER]),
    "webp": encoded(RGB, "WEBP"),
    "webp lossless": encoded(RGB, "WEBP", lossless=True),
    "webp animated": encoded(RGB, "WEBP", save_all=True, append_images=[OTHER]),
    "gif": encoded(RGB, "GIF"),
    "gif animated": encoded(RGB, "GIF", save_all=True, append_images=[OTHER]),
    "bmp": encoded(RGB, "BMP"),
    "tiff": encoded(RGB, "TIFF"),
    "tiff lzw": encoded(RGB, "TIFF", compression="tiff_lzw"),
    "tiff cmyk": encoded(RGB.convert("CMYK"), "TIFF"),
    "ppm": encoded(RGB, "PPM"),
    "avif": encoded(RGB, "AVIF"),
    "jpeg2000": encoded(RGB, "JPEG2000"),
    "jpeg2000 tiles": encoded(RGB, "JPEG2000", tile_size=(64, 64)),
    "jpeg2000 codestream": encoded(RGB, "JPEG2000", no_jp2=True),
    "jpeg2000 rgba": encoded(RGB.convert("RGBA"), "JPEG2000"),
    "dib": encoded(RGB, "DIB"),
    "bmp palette": encoded(RGB.convert("P"), "BMP"),
    "bmp rgba": encoded(RGB.convert("RGBA"), "BMP"),
    "pgm": encoded(RGB.convert("L"), "PPM"),
    "pbm": encoded(RGB.convert("1"), "PPM"),
    "tiff group4": encoded(RGB.convert("1"), "TIFF", compression="group4"),
    "tiff jpeg": encoded(RGB, "TIFF", compression="jpeg"),
    "tiff lab": encoded(RGB.convert("LAB"), "TIFF"),
    "tiff big": encoded(RGB, "TIFF", big_tiff=True),
    "png interlaced": PNG_INTERLACED,
}


@pytest.mark.parametrize("name", FILES)
def test_every_file_equals_the_reference(name):
    result = decode_image(FILES[name], exif="ignore")
    assert_close(result.pixels, reference(opened(FILES[name])))
    assert (result.width, result.height) == RGB.size


def test_palette_alpha_as_bytes_is_dropped_without_a_warning():
    data = encoded(RGB.convert("P"), "PNG", transparency=bytes(range(200)))
    assert_close(decode_image(data).pixels, reference(RGB.convert("P")))


@pytest.mark.parametrize("junk", [b"\0", b"garbage" * 99, FILES["jpeg"]])
def test_a_jpeg_with_trailing_bytes_is_read_as_pillow_reads_it(junk):
    assert_close(decode_image(FILES["jpeg"] + junk).pixels, reference(opened(FILES["jpeg"])))


def test_a_jpeg_with_a_recoverable_warning_is_read_as_pillow_reads_it():
    data = FILES["jpeg"].replace(b"\xff\xda", b"junk\xff\xda")
    with pytest.raises(ValueError, match="extraneous"):
        simplejpeg.decode_jpeg(data)
    assert_close(decode_image(data).pixels, reference(opened(data)))


def test_an_upright_image_has_all_the_pixels_as_rgb():
    image = upright_image(FILES["jpeg exif"])
    expected = ImageOps.exif_transpose(opened(FILES["jpeg exif"]))
    assert (image.mode, image.size) == ("RGB", (150, 200))
    assert image.tobytes() == expected.tobytes()
    assert upright_image(FILES["jpeg exif"], exif="ignore").size == (200, 150)


@pytest.mark.parametrize("name", ["png", "png palette alpha", "jpeg cmyk", "tiff lab"])
def test_pixels_do_not_depend_on_how_many_are_converted_at_a_time(monkeypatch, name):
    whole = upright_image(FILES[name])
    monkeypatch.setattr(images, "_STRIP_PIXELS", 1999)  # some rows, which leave a remainder
    assert upright_image(FILES[name]).tobytes() == whole.tobytes()


def test_threads_do_not_disturb_each_other():
    names = [*FILES] * 3
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda name: decode_image(FILES[name]).pixels, names))
    for name, pixels in zip(names, results, strict=True):
        assert np.array_equal(pixels, decode_image(FILES[name]).pixels)


# Odd files, as people have them


def deflated(*rows):
    return chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))


TEXT_1MB = zlib.compress(b"x" * 1_000_000)
HEX_2MB = random.Random(0).randbytes(2**20).hex().encode()
TWO = {"save_all": True, "append_images": [OTHER]}
SMALL = RGB.quantize(8)
WHOLE = "as the reference"  # the pixels of Pillow's own reading, within 2/255
ODD = {
    # metadata beyond Pillow's limits
    "ztxt_2mb.png": (
        with_chunks(FILES["png"], chunk(b"zTXt", b"XMP\0\0" + zlib.compress(HEX_2MB, level=1))),
        FILES["png"],
    ),
    "iccp_2mb.png": (
        with_chunks(FILES["png"], chunk(b"iCCP", b"printer\0\0" + zlib.compress(HEX_2MB, level=1))),
        FILES["png"],
    ),
    "text_many.png": (
        with_chunks(
            FILES["png"],
            *(chunk(b"zTXt", b"k%d\0\0" % i + TEXT_1MB) for i in range(70)),
        ),
        FILES["png"],
    ),
    "itxt_2mb.png": (
        with_chunks(
            FILES["png"],
            chunk(b"iTXt", b"prompt\0\1\0\0\0" + zlib.compress(b'{"nodes": [1,2]}' * 130_000)),
        ),
        FILES["png"],
    ),
    # ends
    "no_iend.png": (FILES["png"][:-12], (FILES["png"], Issue.MISSING_END)),
    "trailing.png": (FILES["png"] + bytes(100), FILES["png"]),
    "no_eoi.jpg": (FILES["jpeg"][:-2], (FILES["jpeg"], Issue.MISSING_END)),
    "cut_tail.jpg": (FILES["jpeg"][:-40], TruncatedImage),
    "trailing.jpg": (FILES["jpeg"] + b"garbage" * 50, FILES["jpeg"]),
    "lead_newline.jpg": (b"\n" + FILES["jpeg"], CorruptImage),
    "fill.jpg": (FILES["jpeg"][:2] + b"\xff\xff" + FILES["jpeg"][2:], FILES["jpeg"]),
    # first images, colours and depths
    "apng.png": (encoded(RGB, "PNG", duration=50, **TWO), FILES["png"]),
    "anim.webp": (encoded(RGB, "WEBP", duration=50, **TWO), WHOLE),
    "anim.gif": (
        encoded(SMALL, "GIF", transparency=0, save_all=True, append_images=[OTHER.quantize(8)]),
        encoded(SMALL, "GIF"),
    ),
    "anim.avif": (encoded(RGB, "AVIF", duration=50, **TWO), WHOLE),
    "mpo.jpg": (encoded(RGB, "MPO", **TWO), FILES["jpeg"]),
    "mono_multi.tif": (
        encoded(
            RGB.convert("1"),
            "TIFF",
            save_all=True,
            append_images=[OTHER.convert("1")],
            compression="group4",
        ),
        FILES["png bilevel"],
    ),
    "la.png": (encoded(RGB.convert("LA"), "PNG"), WHOLE),
    "pal_trns.png": (encoded(SMALL, "PNG", transparency=0), encoded(SMALL, "PNG")),
    "rgb_trns.png": (encoded(RGB, "PNG", transparency=(1, 2, 3)), FILES["png"]),
    "la16.png": (
        png_file(
            chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, 16, 4, 0, 0, 0)),
            deflated(b"\x40\0\xff\xff\x40\0\0\0"),
        ),
        png_file(
            chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, 8, 0, 0, 0, 0)), deflated(b"\x40\x40")
        ),
    ),
    "grey2.png": (
        png_file(chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 1, 2, 0, 0, 0, 0)), deflated(b"\x1b")),
        png_file(
            chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 1, 8, 0, 0, 0, 0)),
            deflated(b"\0\x55\xaa\xff"),
        ),
    ),
    "progressive.jpg": (FILES["jpeg progressive"], WHOLE),
    "cmyk_adobe.jpg": (FILES["jpeg cmyk"], WHOLE),
    "cmyk_plain.jpg": (FILES["jpeg cmyk without adobe"], WHOLE),
    "grey.jpg": (FILES["jpeg grey"], WHOLE),
    "jpeg_in.tif": (FILES["tiff jpeg"], WHOLE),
    "lab.tif": (FILES["tiff lab"], WHOLE),
    "cmyk.tif": (FILES["tiff cmyk"], WHOLE),
    "float.tif": (encoded(RGB.convert("F"), "TIFF"), encoded(RGB.convert("L"), "TIFF")),
    "rgb16.tif": (
        tifffile_of(np.asarray(RGB).astype(np.uint16) * 257, photometric="rgb"),
        FILES["png"],
    ),
    "planes.tif": (
        tifffile_of(np.asarray(RGB).transpose(2, 0, 1), photometric="rgb", planarconfig="separate"),
        FILES["png"],
    ),
    "big_tiles.tif": (
        tifffile_of(np.asarray(RGB), photometric="rgb", bigtiff=True, tile=(64, 64)),
        FILES["png"],
    ),
    "white_is_zero.tif": (
        tifffile_of(255 - np.asarray(RGB.convert("L")), photometric="miniswhite"),
        encoded(RGB.convert("L"), "PNG"),
    ),
    "rgba.bmp": (FILES["bmp rgba"], FILES["png"]),
    "offset.gif": (  # a frame of 2x1 at (1, 0) on a screen of 4x2
        b"GIF89a\4\0\2\0\x80\0\0\0\0\0\xff\xff\xff,\1\0\0\0\2\0\1\0\0\2\2\x4c\x0a\0;",
        WHOLE,
    ),
    # under another name
    "is_jp2.jpg": (FILES["jpeg2000"], FILES["png"]),
    "is_ico.png": (encoded(RGB.resize((64, 64)), "ICO"), UnknownFormat),
    "is_svg.png": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', UnknownFormat),
    "is_heic.jpg": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(300), CorruptImage),
    "is_jxl.jpg": (b"\xff\x0a" + bytes(300), UnknownFormat),
    "is_html.jpg": (b"<!DOCTYPE html><html>429 Too Many Requests", UnknownFormat),
    # what no decoder here reads
    "two_inks.jpg": (FILES["jpeg grey"].replace(b"\1\1\x11\0", b"\2\1\x11\0", 1), CorruptImage),
    "no_height.jpg": (
        FILES["jpeg"].replace(struct.pack(">HH", 150, 200), struct.pack(">HH", 0, 200)),
        CorruptImage,
    ),
    "float_rgb.tif": (
        tifffile_of(np.zeros((4, 4, 3), np.float32), photometric="rgb"),
        CorruptImage,
    ),
}


@pytest.mark.parametrize("name", ODD)
def test_an_odd_file_ends_as_it_should(name):
    data, expected = ODD[name]
    if isinstance(expected, type):
        with pytest.raises(expected) as caught:
            decode_image(data)
        assert caught.type is expected
        return
    expected, *issues = expected if isinstance(expected, tuple) else (expected,)
    same = data if expected is WHOLE else expected
    result = decode_image(data)
    image = opened(same)
    assert_close(result.pixels, reference(image))
    assert (result.width, result.height) == image.size
    assert result.issues == tuple(issues)


# Orientation


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("kind", "size"),
    [
        ("JPEG", (300, 600)),
        ("JPEG", (600, 300)),
        ("PNG", (200, 150)),
        ("WEBP", (200, 150)),
        ("AVIF", (200, 150)),
        ("TIFF", (200, 150)),
    ],
)
def test_apply_equals_exif_transpose_then_the_reference(kind, size, orientation):
    data = encoded(photo("chelsea", *size), kind, exif=exif_of(orientation))
    upright = ImageOps.exif_transpose(opened(data))
    result = decode_image(data)
    assert_close(result.pixels, reference(upright))
    assert (result.width, result.height) == upright.size
    assert result.exif_orientation == orientation


@pytest.mark.parametrize("orientation", range(1, 9))
def test_ignore_leaves_the_image_as_stored(orientation):
    data = encoded(RGB, "JPEG", exif=exif_of(orientation))
    result = decode_image(data, exif="ignore")
    assert np.array_equal(result.pixels, decode_image(encoded(RGB, "JPEG")).pixels)
    assert (result.width, result.height, result.exif_orientation) == (200, 150, orientation)


def entry(kind=3, count=1, value=6, tag=ORIENTATION):
    return struct.pack(">HHLHH", tag, kind, count, value, 0)


@pytest.mark.parametrize(
    ("exif", "orientation"),
    [
        (b"MM\0*\0\0\0\x08\0\x01" + entry(), 6),
        (b"MM\0*\0\0\0\x08\0\x09" + entry(), 6),  # cut after the tag that matters
        (b"MM\0*\0\0\0\x08\0\x02" + entry(kind=5, tag=0x011A) + entry(), 6),  # a broken rational
        (b"MM\0*\0\0\0\x08\0\x01" + entry(value=0), 1),
        (b"MM\0*\0\0\0\x08\0\x01" + entry(value=9), 1),
        (b"MM\0*\0\0\0\x08\0\x01" + entry(kind=2), 1),
        (b"MM\0*\0\0\0\x08\0\x01" + entry(count=7), 1),
        (b"MM\0*\0\0\0\x08\0\x01" + entry()[:9], 1),
        (b"MM\0*\xff\xff\xff\xff", 1),
        (b"MM\0*", 1),
        (b"garbage", 1),
        (b"", 1),
    ],
)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_broken_exif_is_never_an_error(kind, exif, orientation):
    data = encoded(RGB, kind, exif=b"Exif\0\0" + exif)
    assert decode_image(data).exif_orientation == orientation


@pytest.mark.parametrize("text", [b'tiff:Orientation="8"', b"<tiff:Orientation>8</tiff:Or>"])
def test_xmp_gives_the_orientation_that_exif_does_not(text):
    data = encoded(RGB, "JPEG", xmp=text)
    result = decode_image(data)
    assert result.exif_orientation == 8
    assert_close(result.pixels, reference(ImageOps.exif_transpose(opened(data))))


def test_broken_exif_does_not_hurt_a_jpeg_that_only_pillow_reads():
    data = encoded(RGB.convert("CMYK"), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x09" + entry())
    assert decode_image(data).exif_orientation == 6


# Errors


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", EmptyImage),
        (b"<html>404</html>", UnknownFormat),
        (b"\0" * 999, UnknownFormat),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", UnknownFormat),
        (b"\xff\xd8\xff\xe0\0\4garbage", CorruptImage),
        (FILES["jpeg"][:50], TruncatedImage),
        (b"\x89PNG\r\n\x1a\ngarbage", CorruptImage),
        (FILES["png"][:20], TruncatedImage),
        (FILES["gif"][:9], TruncatedImage),
        (FILES["png"].replace(b"IDAT", b"IDAX", 1), CorruptImage),
    ],
)
def test_data_that_cannot_be_decoded_raise_their_error(data, error):
    with pytest.raises(error):
        decode_image(data)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
@pytest.mark.parametrize(
    "name",
    [
        "jpeg", "jpeg progressive", "jpeg grey", "jpeg cmyk", "png", "png palette",
        "webp", "webp lossless", "gif", "bmp", "bmp rgba", "dib", "tiff", "tiff lzw", "tiff jpeg",
        "tiff group4", "tiff big", "ppm", "pgm", "pbm", "avif",
        "jpeg2000", "jpeg2000 tiles", "jpeg2000 codestream",
    ],
)  # fmt: skip
def test_a_file_cut_in_its_data_is_truncated(name, share):
    data = FILES[name][: int(len(FILES[name]) * share)]
    for read in (decode_image, upright_image):
        with pytest.raises(TruncatedImage):
            read(data)


@pytest.mark.parametrize("name", FILES)
def test_the_pixel_limit_holds_for_every_format(name):
    decode_image(FILES[name], max_pixels=200 * 150)
    with pytest.raises(ImageTooLarge):
        decode_image(FILES[name], max_pixels=200 * 150 - 1)


@pytest.mark.parametrize(
    ("size", "limit"),
    [
        ((9460, 9460), images.MAX_PIXELS),  # Pillow warns
        ((20_000, 20_000), images.MAX_PIXELS),  # Pillow refuses
        ((20_000, 20_000), 10**12),
        ((65_536, 1), images.MAX_PIXELS),
        ((1, 65_536), images.MAX_PIXELS),
    ],
)
def test_a_bomb_is_refused_by_its_header(size, limit):
    with pytest.raises(ImageTooLarge):
        decode_image(b"P6 %d %d 255\n" % size, max_pixels=limit)


def resized(data, size, *, layout=">LL", of=(200, 150)):
    """The file with another size wherever its header says the size."""
    return data.replace(struct.pack(layout, *of), struct.pack(layout, *size))


LIES = {
    "avif": resized(FILES["avif"], (20_000, 20_000)),
    "webp": (b"RIFF\x16\0\0\0WEBPVP8X\x0a\0\0\0\2\0\0\0" + (13_000).to_bytes(3, "little") * 2),
    "jpeg2000 box": resized(FILES["jpeg2000"], (20_000, 20_000), of=(150, 200)),
    "jpeg2000 codestream": resized(FILES["jpeg2000"], (20_000, 20_000)),
    "jpeg2000 without boxes": resized(FILES["jpeg2000 codestream"], (20_000, 20_000)),
    "tiff": tiff_file({256: [20_000], 257: [20_000], 258: [8], 262: [1], 273: [8], 279: [8]}),
    "tiff tile": tiff_file(
        {
            **{256: [9], 257: [9], 258: [8], 259: [8], 262: [1], 277: [1]},
            **{322: [60_000], 323: [60_000], 324: [8], 325: [8000]},
        }
    ),
    "dib": resized(FILES["dib"], (20_000, 20_000), layout="<LL"),
    "pgm in text": b"P2 20000 20000 255 1 2 3",
}


@pytest.mark.parametrize("name", LIES)
def test_a_size_that_a_header_claims_is_checked(name):
    with pytest.raises(ImageTooLarge):
        decode_image(LIES[name])


def test_the_default_limit_is_pillows():
    assert Image.MAX_IMAGE_PIXELS == images.MAX_PIXELS


TINY = {
    name: encoded(RGB.resize((12, 9)), kind, **options)
    for name, kind, options in [
        ("jpeg", "JPEG", {"exif": exif_of(6)}),
        ("png", "PNG", {"exif": exif_of(6)}),
        ("webp", "WEBP", {}),
        ("gif", "GIF", {}),
        ("bmp", "BMP", {}),
        ("tiff", "TIFF", {}),
        ("ppm", "PPM", {}),
        ("avif", "AVIF", {"exif": exif_of(6)}),
        ("jpeg2000", "JPEG2000", {}),
        ("heic", "HEIF", {"exif": exif_of(6)}),
    ]
}
EDIT = st.tuples(st.integers(0, 9999), st.integers(0, 4), st.binary(max_size=4))


@pytest.mark.parametrize("name", TINY)
@settings(
    max_examples=80,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(edits=st.lists(EDIT, max_size=6), cut=st.integers(0, 2000))
def test_whatever_the_bytes_only_an_image_error_comes_out(name, edits, cut):
    data = bytearray(TINY[name])
    for position, removed, inserted in edits:
        start = position % len(data)
        data[start : start + removed] = inserted
        data = data or bytearray(b"\0")
    shorter = bytes(data[: len(data) - cut]) if cut < len(data) else bytes(data)
    with suppress(ImageError):
        result = decode_image(shorter, max_pixels=10**6)
        assert result.width * result.height <= 10**6
