import io
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from skimage import data as skimage_data
from sklearn.datasets import load_sample_images
from transformers import AutoProcessor

import kosmos2_core
from kosmos2_core import images
from kosmos2_core.errors import (
    CorruptImage,
    EmptyImage,
    ImageError,
    ImageTooLarge,
    TruncatedImage,
    UnknownFormat,
)
from kosmos2_core.images import decode_image, square_pixels, upright_image

CHECKPOINT = Path(kosmos2_core.__file__).parent / "shapes" / "checkpoint"
ORIENTATION = 0x0112
NOISE = np.random.default_rng(0).normal(0, 12, (256, 256, 3))


@cache
def processor():
    return AutoProcessor.from_pretrained(CHECKPOINT).image_processor


def reference(image):
    """uint8 [3, 224, 224] of the processor of transformers that we take the place of."""
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
    """A photograph with grain: smooth pictures hide errors of the resize."""
    named = dict(zip(("china", "flower"), load_sample_images().images, strict=True))
    array = named[name] if name in named else getattr(skimage_data, name)()
    small = np.asarray(Image.fromarray(array).resize((width, height)))
    grain = np.tile(NOISE, (height // 256 + 1, width // 256 + 1, 1))[:height, :width]
    return Image.fromarray(np.clip(small + grain, 0, 255).astype(np.uint8))


def encoded(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def exif_of(orientation):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif


def opened(data):
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


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
def test_pillow_resizes_vertically_first_where_we_say(width):
    for height in (224, 225, 2 * width - 224, 2 * width - 223):
        image = photo("coffee", width, height)
        columns_first = image.resize((width, 224), Image.Resampling.BICUBIC)
        expected = images._is_vertical_first(height, width)
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
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks
    )
    assert np.all(decode_image(data).pixels == 0x80)


def test_a_picture_without_pixels_is_empty():
    with pytest.raises(EmptyImage):
        square_pixels(Image.new("RGB", (0, 5)))


# Files

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


def test_threads_do_not_disturb_each_other():
    names = [*FILES] * 3
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda name: decode_image(FILES[name]).pixels, names))
    for name, pixels in zip(names, results, strict=True):
        assert np.array_equal(pixels, decode_image(FILES[name]).pixels)


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
def test_ignore_leaves_the_picture_as_stored(orientation):
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
        (FILES["gif"][:9], CorruptImage),
        (FILES["png"].replace(b"IDAT", b"IDAX", 1), CorruptImage),
    ],
)
def test_what_is_no_picture_has_its_own_error(data, error):
    with pytest.raises(error):
        decode_image(data)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
@pytest.mark.parametrize(
    "name",
    [
        "jpeg", "jpeg progressive", "jpeg grey", "jpeg cmyk", "png", "png palette",
        "webp", "webp lossless", "webp animated", "gif", "bmp", "tiff", "ppm",
    ],
)  # fmt: skip
def test_a_file_cut_in_its_data_is_truncated(name, share):
    data = FILES[name][: int(len(FILES[name]) * share)]
    for read in (decode_image, upright_image):
        with pytest.raises(TruncatedImage):
            read(data)


def test_a_jpeg_without_its_last_byte_is_truncated():
    with pytest.raises(TruncatedImage):
        decode_image(FILES["jpeg"][:-1])


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
        ("avif", "AVIF", {}),
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
