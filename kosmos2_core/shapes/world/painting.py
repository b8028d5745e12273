"""Paint backgrounds, shapes and noise on a float32 canvas [3, H, W] in 0..255."""

import math

import numpy as np
from numpy.typing import NDArray

from kosmos2_core.grounding.grid import XYXY

Floats = NDArray[np.float32]

ARM = 0.34  # half the width of the bars of a cross / half the side of its box
NOTCH = 0.4  # inner radius of a star / its outer radius


def paint_background(rng: np.random.Generator, width: int, height: int, ends: Floats) -> Floats:
    """Paint a flat, linear, striped or radial background of two colours, float32 [3, H, W]."""
    x = np.linspace(-1, 1, width, dtype=np.float32)
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    angle, frequency = rng.uniform(0, math.pi), rng.uniform(6, 24)
    centre_x, centre_y = rng.uniform(-0.7, 0.7), rng.uniform(-0.7, 0.7)
    along = math.cos(angle) * x + math.sin(angle) * y
    match rng.integers(4):
        case 0:
            share = np.zeros_like(along)
        case 1:
            share = along / 2 + 0.5
        case 2:
            share = np.sin(frequency * along) * 2 + 0.5
        case _:
            share = np.hypot(x - centre_x, y - centre_y) / 2
    share = share.clip(0, 1)
    first, last = ends[:, :, None, None]
    painted: Floats = first + share * (last - first)
    return painted


def paint_shape(canvas: Floats, shape: str, colour: Floats, box: XYXY) -> None:
    """Blend a shape into `canvas` [3, H, W], antialiased; it touches all edges of `box`."""
    _, height, width = canvas.shape
    x1, y1, x2, y2 = box
    rows, v = across(height, y1, y2)
    columns, u = across(width, x1, x2)
    v = v[:, None]
    inside = INSIDE[shape](np.abs(u), v)
    slope = np.hypot(*np.gradient(inside))  # per pixel: inside / slope is a distance in pixels
    to_side = (1 - np.abs(u)) * ((x2 - x1) * width / 2)
    to_end = (1 - np.abs(v)) * ((y2 - y1) * height / 2)
    # The slope is inexact near corners, so the distance to the box limits the paint.
    distance = np.minimum(inside / np.maximum(slope, 1e-6), np.minimum(to_side, to_end))
    cover = np.clip(distance + 0.5, 0, 1)
    canvas[:, rows, columns] += cover * (colour[:, None, None] - canvas[:, rows, columns])


def across(side: int, low: float, high: float) -> tuple[slice, Floats]:
    """Return the pixels of an axis that a box touches, and their centres; the box is -1..1."""
    start, stop = max(0, int(low * side) - 1), min(side, int(high * side) + 2)
    centres = (np.arange(start, stop) + 0.5) / side
    return slice(start, stop), ((2 * centres - low - high) / (high - low)).astype(np.float32)


# One function per shape that fills the square -1..1: positive inside, zero on the outline, negative
# outside. u: |x| [w] (all shapes are symmetric); v: y, downwards [h, 1]; result: [h, w].


def _circle(u: Floats, v: Floats) -> Floats:
    return 1 - np.hypot(u, v)


def _square(u: Floats, v: Floats) -> Floats:
    return 1 - np.maximum(u, np.abs(v))


def _triangle(u: Floats, v: Floats) -> Floats:
    return np.minimum(1 - v, (1 + v) / 2 - u)


def _cross(u: Floats, v: Floats) -> Floats:
    return np.minimum(_square(u, v), ARM - np.minimum(u, np.abs(v)))


def _star(u: Floats, v: Floats) -> Floats:
    """A star of five points, one on top. Folded into a tenth, it is a half-plane below an edge."""
    tenth = math.pi / 5
    x, y = u * math.sin(2 * tenth), 1 - (v + 1) * (1 + math.cos(tenth)) / 2
    angle = np.abs((np.arctan2(x, y) + tenth) % (2 * tenth) - tenth)
    radius = np.hypot(x, y)
    outward, sideways = radius * np.cos(angle), radius * np.sin(angle)
    notch_x, notch_y = NOTCH * math.cos(tenth), NOTCH * math.sin(tenth)
    inside: Floats = (1 - outward) * notch_y - sideways * (1 - notch_x)
    return inside


INSIDE = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "cross": _cross,
}


def add_noise(rng: np.random.Generator, canvas: Floats, most: int) -> None:
    """Add uniform noise with a random amplitude of 0..`most` levels of 255."""
    amplitude = int(rng.integers(0, most, endpoint=True))
    canvas += rng.integers(-amplitude, amplitude, canvas.shape, dtype=np.int8, endpoint=True)
