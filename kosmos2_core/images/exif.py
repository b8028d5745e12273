"""Read the EXIF orientation, without warnings or errors for the data that cameras write.

Pillow is not used for this: it parses EXIF when it opens a JPEG, and fails if that is broken.
"""

import re
from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

from kosmos2_core.images.tiff import ORIENTATION, first_directory

Raster = npt.NDArray[np.uint8]

EXIF_HEAD: Final = b"Exif\0\0"
_XMP_ORIENTATION: Final = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')
# EXIF orientation → (swap rows and columns, then row step, column step); EXIF 2.32, tag 274.
TURNS: Final = {
    1: (False, 1, 1),
    2: (False, 1, -1),
    3: (False, -1, -1),
    4: (False, -1, 1),
    5: (True, 1, 1),
    6: (True, 1, -1),
    7: (True, -1, -1),
    8: (True, -1, 1),
}


def turned(raster: Raster, turn: int) -> Raster:
    """Return a view of [H, W, C] with the EXIF orientation `turn`, 1..8, applied."""
    is_sideways, row_step, column_step = TURNS[turn]
    upright = raster.transpose(1, 0, 2) if is_sideways else raster
    return upright[::row_step, ::column_step]


def jpeg_orientation(data: bytes) -> int:
    """Return the orientation of a JPEG, 1..8."""
    app1 = [data[start:end] for marker, start, end in _jpeg_segments(data) if marker == 0xE1]
    exif = [part.removeprefix(EXIF_HEAD) for part in app1 if part.startswith(EXIF_HEAD)]
    return orientation_of(exif=b"".join(exif), xmp=b"".join(app1))


def without_metadata(data: bytes) -> bytes:
    """Remove APP1 to APP13 from a JPEG: EXIF, XMP, colour profiles, the index of an MPO."""
    kept, position = [], 0
    for marker, start, end in _jpeg_segments(data):
        if 0xE1 <= marker <= 0xED:
            kept.append(data[position : start - 4])
            position = end
    return b"".join([*kept, data[position:]])


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield marker, start and end of each payload before the first scan (ITU-T T.81, B.1.1)."""
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF and data[position + 1] != 0xDA:
        if data[position + 1] == 0xFF:  # a fill byte
            position += 1
            continue
        end = position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        yield data[position + 1], position + 4, end
        position = end


def orientation_of(*, exif: bytes, xmp: bytes) -> int:
    """Return the orientation, 1..8. EXIF takes precedence over XMP, as in Pillow."""
    values = first_directory(exif).get(ORIENTATION, ())
    value = values[0] if len(values) == 1 else None
    if value is None and (match := _XMP_ORIENTATION.search(xmp)):
        value = int(match[1])
    return valid_orientation(value)


def valid_orientation(value: object) -> int:
    """Return `value` if it is in 1..8, else 1."""
    return value if isinstance(value, int) and value in TURNS else 1
