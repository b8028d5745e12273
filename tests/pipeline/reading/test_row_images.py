"""From a row back to its picture, and pictures that need no EXIF to be upright."""

import io
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
from PIL import Image, ImageOps

from kosmos2_core.images.decode import ExifPolicy, decode_image, upright_image
from pipeline.dataset.shards import shard_of
from pipeline.errors import InputChanged
from pipeline.reading.row_images import encoded_image, extension_of, fetches, upright_bytes
from pipeline.reading.sample_reader import SampleReader
from pipeline.storage import InputStore
from tests.support.tars import picture, pictures, tar

ORIENTATION = 0x0112
READER = SampleReader(store=InputStore())


def turned(kind: str, orientation: int) -> bytes:
    """A gradient that is not symmetric, stored with a tag."""
    image = Image.linear_gradient("L").resize((48, 32)).convert("RGB")
    image.paste((250, 20, 20), (0, 0, 16, 12))
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[ORIENTATION] = orientation
    image.save(buffer, kind, exif=exif)
    return buffer.getvalue()


@pytest.mark.parametrize("exif", ["apply", "ignore"])
@pytest.mark.parametrize("orientation", [2, 3, 6, 8])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_turned_picture_is_what_the_model_saw_to_any_reader(
    kind: str, orientation: int, exif: ExifPolicy
) -> None:
    data = turned(kind, orientation)
    seen = decode_image(data, exif=exif)
    bytes_ = upright_bytes(data, orientation=seen.exif_orientation, exif=exif)
    expected = np.asarray(upright_image(data, exif=exif), dtype=float)
    with Image.open(io.BytesIO(bytes_)) as image:
        assert ORIENTATION not in image.getexif()
        assert image.size == (seen.width, seen.height)
        for shown in (image, ImageOps.exif_transpose(image)):
            assert np.abs(np.asarray(shown.convert("RGB"), dtype=float) - expected).mean() < 2
    assert extension_of(bytes_) == ("jpg" if kind == "JPEG" else "png")


def test_a_picture_that_is_upright_keeps_its_bytes() -> None:
    data = picture()
    assert upright_bytes(data, orientation=1, exif="apply") is data


@pytest.mark.parametrize(
    ("kind", "extension"),
    [
        ("JPEG", "jpg"),
        ("PNG", "png"),
        ("WEBP", "webp"),
        ("GIF", "gif"),
        ("BMP", "bmp"),
        ("TIFF", "tif"),
        ("PPM", "ppm"),
        ("DIB", "dib"),
        ("AVIF", "avif"),
        ("JPEG2000", "jp2"),
        ("HEIF", "heic"),
    ],
)
def test_the_extension_is_that_of_the_bytes(kind: str, extension: str) -> None:
    pillow_heif.register_heif_opener()
    assert extension_of(picture(kind=kind)) == extension


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_rows_lead_back_to_their_pictures(mode: str, tmp_path: Path) -> None:
    """Also where two rows share a picture, and where one is left out."""
    members = pictures(4)
    (tmp_path / "a.tar").write_bytes(tar(members, mode=mode))
    [source] = InputStore().list(str(tmp_path)).objects
    rows = [{"index": i, "image_offset": None, "image_size": None} for i in (0, 0, 2, 3)]
    if mode == "w":
        for row in rows:
            data = members[row["index"]][1]
            offset = (tmp_path / "a.tar").read_bytes().index(data)
            row |= {"image_offset": offset, "image_size": len(data)}
    found = [fetch() for fetch in fetches(rows, shard_of(source), READER)]
    assert found == [members[row["index"]][1] for row in rows]
    assert encoded_image(rows[2], shard_of(source), READER) == members[2][1]


def test_a_row_that_the_archive_does_not_have_any_more_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(tar(pictures(1), mode="w:gz"))
    [source] = InputStore().list(str(tmp_path)).objects
    row = {"index": 5, "image_offset": None, "image_size": None}
    with pytest.raises(InputChanged, match=r"a\.tar no longer has sample 5"):
        encoded_image(row, shard_of(source), READER)
