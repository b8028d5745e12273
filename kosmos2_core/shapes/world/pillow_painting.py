"""Draw the shapes with Pillow, so that a model does not overfit to the edges of one painter."""

import math

import numpy as np
from PIL import Image, ImageDraw

from kosmos2_core.grounding.grid import XYXY
from kosmos2_core.shapes.world.painting import ARM, NOTCH, Floats

SUPERSAMPLING = 4

# Corners of the shape that fills the square -1..1, y downwards.
_TENTHS = [math.pi * k / 5 for k in range(10)]
_STAR_SPOKES = [(1.0 if k % 2 == 0 else NOTCH) for k in range(10)]
_STAR_WIDTH, _STAR_BOTTOM = math.sin(2 * math.pi / 5), math.cos(math.pi / 5)
POLYGONS: dict[str, list[tuple[float, float]]] = {
    "square": [(-1, -1), (1, -1), (1, 1), (-1, 1)],
    "triangle": [(0, -1), (1, 1), (-1, 1)],
    "cross": [
        (-ARM, -1), (ARM, -1), (ARM, -ARM), (1, -ARM), (1, ARM), (ARM, ARM),
        (ARM, 1), (-ARM, 1), (-ARM, ARM), (-1, ARM), (-1, -ARM), (-ARM, -ARM),
    ],
    "star": [
        (
            spoke * math.sin(angle) / _STAR_WIDTH,
            (1 - spoke * math.cos(angle)) * 2 / (1 + _STAR_BOTTOM) - 1,
        )
        for spoke, angle in zip(_STAR_SPOKES, _TENTHS, strict=True)
    ],
}  # fmt: skip


def paint_shape_with_pillow(canvas: Floats, shape: str, colour: Floats, box: XYXY) -> None:
    """Blend a shape into `canvas` [3, H, W], float32 in 0..255, as `paint_shape` does."""
    _, height, width = canvas.shape
    left, top = int(box[0] * width), int(box[1] * height)
    right, bottom = math.ceil(box[2] * width), math.ceil(box[3] * height)
    mask = Image.new("L", ((right - left) * SUPERSAMPLING, (bottom - top) * SUPERSAMPLING))
    x1, x2 = ((x * width - left) * SUPERSAMPLING for x in (box[0], box[2]))
    y1, y2 = ((y * height - top) * SUPERSAMPLING for y in (box[1], box[3]))
    draw = ImageDraw.Draw(mask)
    if shape == "circle":
        draw.ellipse((x1, y1, x2 - 1, y2 - 1), fill=255)  # Pillow includes both end points
    else:
        draw.polygon([_corner(u, v, x1, y1, x2 - 1, y2 - 1) for u, v in POLYGONS[shape]], fill=255)
    cover = np.asarray(mask.reduce(SUPERSAMPLING), np.float32) / 255
    rows, columns = slice(top, bottom), slice(left, right)
    canvas[:, rows, columns] += cover * (colour[:, None, None] - canvas[:, rows, columns])


def _corner(u: float, v: float, x1: float, y1: float, x2: float, y2: float) -> tuple[float, float]:
    return x1 + (u + 1) / 2 * (x2 - x1), y1 + (v + 1) / 2 * (y2 - y1)
