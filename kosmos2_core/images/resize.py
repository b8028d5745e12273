"""Resize decoded rasters to the square that the model takes, as Pillow does.

A raster is uint8 [height, width, 3].
"""

import numpy as np
import torch
from torch.nn.functional import interpolate

from kosmos2_core.grounding.grid import IMAGE_SIZE
from kosmos2_core.images.exif import TURNS, Raster, turned


def resize_to_square(raster: Raster, turn: int) -> Raster:
    """Resize a raster to the model's input, and apply the EXIF orientation `turn`.

    Args:
        raster: uint8 [H, W, 3], C-contiguous, RGB.
        turn: EXIF orientation, 1..8. It is applied after the resize, which is cheaper.

    Returns:
        uint8 [3, 224, 224], C-contiguous. The aspect ratio is not kept.

    Example:
        >>> resize_to_square(np.zeros((480, 640, 3), np.uint8), turn=1).shape
        (3, 224, 224)
    """
    height, width = raster.shape[:2]
    is_sideways = TURNS[turn][0]
    upright = (width, height) if is_sideways else (height, width)
    # A batch of one whose strides torch recognises as channels_last: the fast kernel, without a
    # copy before it or a slow one after it.
    pixels = torch.from_numpy(raster).unsqueeze(0).permute(0, 3, 1, 2)  # [1, 3, H, W]
    if _is_vertical_first(*upright) != is_sideways:
        pixels = _bicubic(pixels, height=IMAGE_SIZE, width=width)
    pixels = _bicubic(pixels, height=IMAGE_SIZE, width=IMAGE_SIZE)
    square = turned(pixels[0].permute(1, 2, 0).numpy(), turn)
    planes = np.ascontiguousarray(square.reshape(-1, 3).T)
    return planes.reshape(3, IMAGE_SIZE, IMAGE_SIZE)


def _bicubic(pixels: torch.Tensor, *, height: int, width: int) -> torch.Tensor:
    """Resize, horizontal pass first. A side that keeps its length has no pass."""
    return interpolate(pixels, size=(height, width), mode="bicubic", antialias=True)


def _is_vertical_first(height: int, width: int) -> bool:
    """Return whether Pillow resizes the columns first. Each pass rounds, so the order matters.

    Pillow 13 does so if the height loses more than twice as much as the width (its pull request
    9549). The exact border is measured, also by a test. Older versions have other rules.
    """
    return height - IMAGE_SIZE > 2 * max(0, width - IMAGE_SIZE)
