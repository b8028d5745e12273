"""Files that end too soon: each is cut just before and just after the limit for truncation."""

import struct

import numpy as np
import pytest
from PIL import Image

from kosmos2_core.annotation import Issue
from kosmos2_core.errors import TruncatedImage
from kosmos2_core.images.decode import decode_image
from tests.support.image_files import chunk, encoded

NOISE = np.random.default_rng(0).integers(0, 256, (37, 53, 3), np.uint8)
RGB, OTHER = Image.fromarray(NOISE), Image.fromarray(255 - NOISE)
MORE = {"save_all": True, "append_images": [OTHER]}
GREY = RGB.convert("L")
TEXT = chunk(b"tEXt", b"Comment\0" + b"x" * 999)

JPEG = encoded(RGB, "JPEG")
PROGRESSIVE = encoded(RGB, "JPEG", progressive=True)
CMYK = encoded(RGB.convert("CMYK"), "JPEG")
BILEVEL = RGB.convert("1")
SIDEWAYS = Image.Exif()
SIDEWAYS[0x0112] = 6
PNG = encoded(RGB, "PNG")
GIF = encoded(RGB, "GIF")
WEBP_ODD = next(  # its chunk of odd size is followed by a byte of padding
    data
    for width in range(20, 53)
    if (data := encoded(RGB.crop((0, 0, width, 37)), "WEBP", lossless=True))[16] % 2
)
WEBP_XMP = encoded(RGB, "WEBP", xmp=b"x" * 999)
AVIF, JP2 = encoded(RGB, "AVIF"), encoded(RGB, "JPEG2000")
TIFF_LAST = encoded(RGB, "TIFF")  # its pixels are at its end
assert TIFF_LAST.endswith(NOISE[-1].tobytes())
# 4x2 pixels of a palette of two greys: four of the first, end of line, four of the second.
_RLE = b"\4\0\0\0\4\1\0\1"
_HEADER = struct.pack("<LllHHLLllLL", 40, 4, 2, 1, 8, 1, len(_RLE), 0, 0, 2, 0)
BMP_RLE = (
    b"BM"
    + struct.pack("<LLL", 62 + len(_RLE), 0, 62)
    + _HEADER
    + b"\x10" * 3
    + b"\0"
    + (b"\xf0\xf0\x20\0" + _RLE)
)


def scans(jpeg):
    """Where the tables of each scan but the first begin, or the scan itself."""
    starts = [at for at in range(len(jpeg)) if jpeg[at : at + 2] in (b"\xff\xda", b"\xff\xc4")]
    return starts[starts.index(jpeg.index(b"\xff\xda")) + 1 :]


SOUND = {
    "jpeg without its end marker": (JPEG, -2),
    "jpeg with half an end marker": (JPEG, -1),
    "jpeg grey": (encoded(GREY, "JPEG"), -2),
    "jpeg cmyk": (CMYK, -2),
    "jpeg 4:4:4": (encoded(RGB, "JPEG", subsampling=0), -2),
    "jpeg with restarts": (encoded(RGB, "JPEG", restart_marker_blocks=1), -2),
    "jpeg grey with restarts": (encoded(GREY, "JPEG", restart_marker_blocks=1), -2),
    "jpeg progressive": (PROGRESSIVE, -2),
    "jpeg grey progressive": (encoded(GREY, "JPEG", progressive=True), -2),
    "jpeg with an orientation": (encoded(RGB, "JPEG", exif=SIDEWAYS), -2),
    "png without IEND": (PNG, -12),
    "png with half an IEND": (PNG, -5),
    "png without the checksum of its pixels": (PNG, -16),
    "png cut in a text after its pixels": (PNG[:-12] + TEXT + PNG[-12:], -500),
    "png animated, cut in its second frame": (encoded(RGB, "PNG", **MORE), -99),
    "gif without its trailer": (GIF, -1),
    "gif without the end of its blocks": (GIF, -2),
    "gif animated, cut in its second frame": (encoded(RGB, "GIF", **MORE), -99),
    "webp without its padding": (WEBP_ODD, -1),
    "webp cut in its XMP": (WEBP_XMP, -500),
    "webp animated, cut in its second frame": (encoded(RGB, "WEBP", **MORE), -99),
    "tiff cut in its last directory's end": (encoded(BILEVEL, "TIFF", compression="group4"), -1),
    "jp2 cut in a box after its pixels": (JP2 + struct.pack(">L4s", 99, b"xml ") + bytes(91), -50),
    "avif cut in a box after its pixels": (AVIF + struct.pack(">L4s", 99, b"free") + bytes(91), -9),
}
TRUNCATED = {
    "jpeg": (JPEG, -3),
    "jpeg grey": (encoded(GREY, "JPEG"), -3),
    "jpeg cmyk": (CMYK, -3),
    "jpeg with restarts": (encoded(RGB, "JPEG", restart_marker_blocks=1), -3),
    "jpeg progressive": (PROGRESSIVE, -3),
    **{f"jpeg progressive, cut at byte {at}": (PROGRESSIVE, at) for at in scans(PROGRESSIVE)},
    "png": (PNG, -22),
    "gif": (GIF, -3),
    "webp": (WEBP_ODD, -2),
    "webp animated, cut in its first frame": (encoded(RGB, "WEBP", **MORE), 500),
    "bmp": (encoded(RGB, "BMP"), -2),  # behind its last pixel there is a byte of padding
    "bmp, run-length encoded": (BMP_RLE, -3),
    "tiff": (TIFF_LAST, -1),
    "tiff deflate": (encoded(RGB, "TIFF", compression="tiff_deflate"), 999),
    "tiff, in its directory": (encoded(RGB, "TIFF", compression="tiff_deflate"), -20),
    "ppm": (encoded(RGB, "PPM"), -1),
    "ppm in text": (b"P3 2 1 255 1 2 3 4 5 6", -2),
    "avif": (AVIF, -1),
    "avif, in its header": (AVIF, 100),
    "jp2": (JP2, -3),
    "jp2 without its end marker": (JP2, -2),  # whether a layer is missing, the rest does not say
    "jp2, in its header": (JP2, 40),
    "j2k": (encoded(RGB, "JPEG2000", no_jp2=True), -1),
}


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")  # Pillow, of the directory
@pytest.mark.parametrize("name", SOUND)
def test_a_file_that_lacks_no_pixel_is_read_and_flagged(name):
    data, end = SOUND[name]
    whole, cut = decode_image(data), decode_image(data[:end])
    assert (whole.issues, cut.issues) == ((), (Issue.MISSING_END,))
    assert np.array_equal(cut.pixels, whole.pixels)
    assert (cut.width, cut.exif_orientation) == (whole.width, whole.exif_orientation)


@pytest.mark.parametrize("name", TRUNCATED)
def test_a_file_that_lacks_pixels_is_truncated(name):
    data, end = TRUNCATED[name]
    assert decode_image(data).issues == ()
    with pytest.raises(TruncatedImage):
        decode_image(data[:end])


@pytest.mark.parametrize(
    "kind", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF"]
)
@pytest.mark.parametrize("junk", [b"\0", b"junk" * 99])
def test_bytes_behind_the_end_are_no_issue(kind, junk):
    data = encoded(RGB, kind)
    result = decode_image(data + junk)
    assert result.issues == ()
    assert np.array_equal(result.pixels, decode_image(data).pixels)


def test_other_images_behind_the_first_of_an_mpo_are_not_looked_at():
    data = encoded(RGB, "MPO", **MORE)
    result = decode_image(data[:-99])
    assert result.issues == ()
    assert np.array_equal(result.pixels, decode_image(JPEG).pixels)


def test_a_baseline_jpeg_that_lacks_the_scan_of_a_colour_is_truncated():
    scan = JPEG.index(b"\xff\xda")
    header = JPEG[scan + 4 : scan + 14]  # three components in one scan
    assert header[0] == 3
    grey = JPEG[:scan] + b"\xff\xda\0\x08\1" + header[1:3] + header[7:10]
    with pytest.raises(TruncatedImage):
        decode_image(grey + JPEG[scan + 14 : -2])
