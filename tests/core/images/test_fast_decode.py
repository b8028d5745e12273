"""`decode="fast"`: large JPEGs are decoded at a fraction of their size."""

from functools import cache
from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from skimage import data as skimage_data

from kosmos2_core.annotation import Issue
from kosmos2_core.errors import ImageTooLarge, TruncatedImage
from kosmos2_core.images import decode as images
from kosmos2_core.images.decode import decode_image

ORIENTATION = 0x0112


@cache
def photo(width: int = 1800, height: int = 1800, mode: str = "RGB") -> Image.Image:
    """A photograph with grain, drawn large."""
    large = Image.fromarray(skimage_data.astronaut()).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    grain = np.random.default_rng(0).normal(0, 6, (height, width, 1))
    return Image.fromarray(np.clip(large + grain, 0, 255).astype(np.uint8)).convert(mode)


def jpeg(image: Image.Image, **options: object) -> bytes:
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=90, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("width", "height", "decoded"),
    [
        (895, 2000, (895, 2000)),
        (896, 2001, (448, 1001)),
        (1791, 1793, (896, 897)),
        (1792, 1792, (448, 448)),
        (3583, 3584, (896, 896)),
        (3584, 3590, (448, 449)),
        (9000, 4000, (1125, 500)),
    ],
)
def test_no_side_is_decoded_to_less_than_twice_the_models(width, height, decoded) -> None:
    data = jpeg(Image.new("RGB", (width, height), "teal"))
    found = images.read_raster(data, decode="fast")
    assert found.raster.shape == (*decoded[::-1], 3)
    assert (found.width, found.height) == (width, height)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}], ids=str)
def test_pixels_differ_by_few_levels_from_those_of_exact(options) -> None:
    data = jpeg(photo(), **options)
    exact, fast = (decode_image(data, decode=mode).pixels for mode in ("exact", "fast"))
    difference = np.abs(exact.astype(int) - fast)
    assert 0 < difference.max() <= 24
    assert difference.mean() <= 1


@pytest.mark.parametrize("exif", ["apply", "ignore"])
def test_size_and_orientation_are_those_of_the_file(exif) -> None:
    tags = Image.Exif()
    tags[ORIENTATION] = 6
    data = jpeg(photo(2400, 1200), exif=tags)
    exact, fast = (decode_image(data, exif=exif, decode=mode) for mode in ("exact", "fast"))
    assert (fast.width, fast.height) == (exact.width, exact.height)
    assert fast.exif_orientation == 6
    assert np.abs(exact.pixels.astype(int) - fast.pixels).mean() <= 1


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(lambda: jpeg(photo(800, 800)), id="small"),
        pytest.param(lambda: jpeg(photo(mode="CMYK")), id="CMYK"),
        pytest.param(lambda: _png(photo()), id="PNG"),
    ],
)
def test_other_images_are_decoded_exactly(data) -> None:
    exact, fast = (decode_image(data(), decode=mode).pixels for mode in ("exact", "fast"))
    assert np.array_equal(exact, fast)


def test_broken_files_end_as_with_exact() -> None:
    data = jpeg(photo())
    assert decode_image(data[:-2], decode="fast").issues == (Issue.MISSING_END,)
    with pytest.raises(TruncatedImage):
        decode_image(data[: len(data) // 2], decode="fast")
    with pytest.raises(ImageTooLarge, match="1800x1800"):
        decode_image(data, decode="fast", max_pixels=1_000_000)


def _png(image: Image.Image) -> bytes:
    buffer = BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
