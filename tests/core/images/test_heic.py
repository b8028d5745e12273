"""HEIC, with the extra `heif` and without it."""

import io
import struct
import sys

import numpy as np
import pillow_heif
import pytest
from PIL import Image

from kosmos2_core.errors import CorruptImage, ImageTooLarge, TruncatedImage, UnknownFormat
from kosmos2_core.images.decode import MAX_PIXELS, decode_image, upright_image
from kosmos2_core.images.formats import DECODED
from tests.support.image_files import encoded

pillow_heif.register_heif_opener()  # to write files of it

SIZE = (200, 150)
# Four quarters, since the codec blurs: red, green; blue, white.
QUARTERS = Image.fromarray(
    np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 255]]], np.uint8)
).resize(SIZE, Image.Resampling.NEAREST)
HEIC = encoded(QUARTERS, "HEIF", quality=95)
WIDTH_HEIGHT = struct.pack(">LL", *SIZE)


def quarters(pixels):
    """The colour of each quarter, [2, 2, 3], to the nearest corner of the RGB cube."""
    return np.round(pixels[:, 56::112, 56::112].transpose(1, 2, 0) / 255).astype(int).tolist()


def test_heic_is_decoded_with_the_extra():
    result = decode_image(HEIC)
    assert (result.width, result.height, result.exif_orientation) == (200, 150, 1)
    assert quarters(result.pixels) == [[[1, 0, 0], [0, 1, 0]], [[0, 0, 1], [1, 1, 1]]]
    assert np.abs(np.asarray(upright_image(HEIC)).astype(int) - np.asarray(QUARTERS)).mean() < 4


def test_heic_is_rejected_without_the_extra_by_a_message_that_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(UnknownFormat) as caught:
        decode_image(HEIC)
    assert str(caught.value) == (
        "HEIC is not supported: install kosmos2-annotate[heif], or convert it to JPEG or PNG"
    )


@pytest.mark.parametrize("policy", ["apply", "ignore"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_heic_is_turned_upright_exactly_once(orientation, policy):
    """A camera writes both: the property that readers apply, and EXIF, which they must not."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(QUARTERS, "HEIF", quality=95, exif=exif.tobytes())  # bytes: with properties
    assert (b"irot" in data or b"imir" in data) == (orientation > 1)
    reference = Image.open(io.BytesIO(data), formats=["HEIF"])
    reference.load()
    result = decode_image(data, exif=policy)
    assert (result.width, result.height) == reference.size
    assert upright_image(data, exif=policy).size == reference.size
    # What the camera saw, turned as its orientation asks for: as of a JPEG.
    jpeg = decode_image(encoded(QUARTERS, "JPEG", quality=95, exif=exif))
    assert quarters(result.pixels) == quarters(jpeg.pixels)
    assert result.exif_orientation == 1


def test_exif_alone_turns_no_heic():
    """ISO/IEC 23008-12: properties turn the image, EXIF does not."""
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(QUARTERS, "HEIF", quality=95, exif=exif)
    assert quarters(decode_image(data).pixels) == quarters(decode_image(HEIC).pixels)
    assert (decode_image(data).width, decode_image(data).exif_orientation) == (200, 1)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "I;16"])
def test_heic_of_other_modes_is_decoded(mode):
    grey = QUARTERS.convert("L")
    image = (
        Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
        if mode == "I;16"
        else QUARTERS.convert(mode)
    )
    expected = grey if mode in ("L", "I;16") else QUARTERS
    pixels = np.asarray(upright_image(encoded(image, "HEIF", quality=95))).astype(int)
    assert np.abs(pixels - np.asarray(expected.convert("RGB"))).mean() < 4


def test_the_primary_image_of_several_is_decoded():
    data = encoded(
        QUARTERS, "HEIF", save_all=True, append_images=[Image.new("RGB", SIZE)], quality=95
    )
    assert quarters(decode_image(data).pixels) == quarters(decode_image(HEIC).pixels)


def test_exif_that_is_broken_does_not_reject_a_heic():
    data = encoded(QUARTERS, "HEIF", quality=95, exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x09garbage")
    assert quarters(decode_image(data).pixels) == quarters(decode_image(HEIC).pixels)


@pytest.mark.parametrize("side", [9_461, 20_000, 65_000])
def test_a_heic_bomb_is_refused_by_its_header(side):
    with pytest.raises(ImageTooLarge):
        decode_image(HEIC.replace(WIDTH_HEIGHT, struct.pack(">LL", side, side)))


@pytest.mark.parametrize("side", [16, 9_000])
def test_a_heic_that_lies_about_its_size_is_refused(side):
    with pytest.raises(CorruptImage):
        decode_image(HEIC.replace(WIDTH_HEIGHT, struct.pack(">LL", side, side)))


def test_the_pixel_limit_holds():
    decode_image(HEIC, max_pixels=200 * 150)
    with pytest.raises(ImageTooLarge):
        decode_image(HEIC, max_pixels=200 * 150 - 1)
    assert MAX_PIXELS < 9_461**2


@pytest.mark.parametrize("end", [-1, 1000, 200, 40])
def test_a_heic_that_is_cut_is_truncated(end):
    with pytest.raises(TruncatedImage):
        decode_image(HEIC[:end])


def test_avif_stays_pillows():
    data = encoded(QUARTERS, "AVIF")
    assert "AVIF" in DECODED
    assert quarters(decode_image(data).pixels) == quarters(decode_image(HEIC).pixels)
