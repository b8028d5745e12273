"""Place objects: boxes by left edge, and the visible part of each object."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np
from numpy.typing import NDArray

from kosmos2_core.grounding.grid import XYXY, area
from kosmos2_core.shapes.world.painting import INSIDE, across
from kosmos2_core.shapes.world.ranges import Range

FULL_SIZE_TRIES = 40
SHRINK = 0.97
RASTER = 224  # pixels: visibility is computed at the model's input size

Instances = NDArray[np.int8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """An object without its phrase.

    `outline` is the box of the whole shape, `box` that of its visible part. Objects with a greater
    `depth` are painted over those with a smaller one.
    """

    colour: str
    shape: str
    outline: XYXY
    box: XYXY
    depth: int


def place(rng: np.random.Generator, number: int, world: Range) -> list[XYXY]:
    """Draw boxes by left edge. Sizes are in the world's range, or smaller if there is no room.

    The search ends, because boxes narrower than `left_gap` cannot overlap.
    """
    boxes = _propose(rng, _sizes(rng, number, world, 1.0), world)
    tries = 1
    while any(overlap(a, b) > world.max_overlap for a, b in combinations(boxes, 2)):
        scale = SHRINK ** max(0, tries - FULL_SIZE_TRIES)
        boxes = _propose(rng, _sizes(rng, number, world, scale), world)
        tries += 1
    return boxes


def cover(
    rng: np.random.Generator, kinds: Sequence[tuple[str, str]], boxes: list[XYXY], world: Range
) -> list[Placed] | None:
    """Paint the objects in a random order, and return them by left edge of their visible part.

    `kinds` are (colour, shape). Return None if too little of an object is visible, if the order
    from left to right is unclear, or if two objects of one colour touch, because nothing
    separates them.
    """
    depths = rng.permutation(len(boxes))
    if any(
        kinds[a][0] == kinds[b][0] and overlap(boxes[a], boxes[b]) > 0
        for a, b in combinations(range(len(boxes)), 2)
    ):
        return None
    shapes = [shape for _, shape in kinds]
    seen = _visible_boxes(shapes, boxes, depths.tolist(), world.min_visible)
    if seen is None or any(b[0] - a[0] < world.left_gap * 0.8 for a, b in pairwise(seen)):
        return None
    return [
        Placed(colour=colour, shape=shape, outline=outline, box=box, depth=int(depth))
        for (colour, shape), outline, box, depth in zip(kinds, boxes, seen, depths, strict=True)
    ]


def instances(shapes: Sequence[str], outlines: Sequence[XYXY], depths: Sequence[int]) -> Instances:
    """Return the index of the visible object per pixel, int8 [RASTER, RASTER]; -1 for none."""
    seen = np.full((RASTER, RASTER), -1, np.int8)
    for at in np.argsort(depths):
        rows, columns, inside = _footprint(shapes[at], outlines[at])
        seen[rows, columns][inside] = at
    return seen


def _footprint(shape: str, box: XYXY) -> tuple[slice, slice, NDArray[np.bool_]]:
    x1, y1, x2, y2 = box
    rows, v = across(RASTER, y1, y2)
    columns, u = across(RASTER, x1, x2)
    return rows, columns, INSIDE[shape](np.abs(u), v[:, None]) > 0


def _visible_boxes(
    shapes: Sequence[str], outlines: list[XYXY], depths: list[int], min_visible: float
) -> list[XYXY] | None:
    """Return exact boxes of whole shapes, and boxes of the visible pixels of covered ones."""
    if not any(overlap(a, b) > 0 for a, b in combinations(outlines, 2)):
        return outlines
    seen = instances(shapes, outlines, depths)
    boxes = []
    for at, (shape, outline) in enumerate(zip(shapes, outlines, strict=True)):
        rows, columns, inside = _footprint(shape, outline)
        left = seen[rows, columns] == at
        if left.sum() < min_visible * inside.sum():
            return None
        boxes.append(_trimmed(outline, _extent(left), _extent(inside), (columns.start, rows.start)))
    return boxes


def _trimmed(
    outline: XYXY, seen: tuple[int, ...], whole: tuple[int, ...], origin: tuple[int, int]
) -> XYXY:
    """Move those edges of the outline that are covered; pixels count from `origin`."""
    x1, y1, x2, y2 = (
        exact if edge == uncovered else (edge + offset) / RASTER
        for exact, edge, uncovered, offset in zip(outline, seen, whole, origin * 2, strict=True)
    )
    return x1, y1, x2, y2


def _extent(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Return x1, y1, x2, y2 in pixels of a mask that is not empty; x2 and y2 are exclusive."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _sizes(
    rng: np.random.Generator, number: int, world: Range, scale: float
) -> NDArray[np.float64]:
    low, high = world.sizes[number]
    if world.is_log_uniform:
        return np.exp(rng.uniform(np.log(low), np.log(low + scale * (high - low)), number))
    return scale * rng.uniform(low, high, number)


def _propose(rng: np.random.Generator, sizes: NDArray[np.float64], world: Range) -> list[XYXY]:
    """Draw one box per size within the image, left edges ascending and at least a gap apart."""
    stretch = np.exp(rng.uniform(-world.log_aspect, world.log_aspect, len(sizes)) / 2)
    widths, heights = (
        side if not world.min_side else side.clip(world.min_side, world.max_side)
        for side in (sizes * stretch, sizes / stretch)
    )
    gaps = world.left_gap * np.arange(len(sizes))
    # The room to the right of a gap must not shrink from one object to the next.
    room = np.minimum.accumulate((1 - widths - gaps)[::-1])[::-1]
    left = gaps + np.sort(rng.uniform(size=len(sizes))) * room
    top = rng.uniform(size=len(sizes)) * (1 - heights)
    corners = np.stack([left, top, left + widths, top + heights], axis=1).clip(0, 1)
    return [(x1, y1, x2, y2) for x1, y1, x2, y2 in corners.tolist()]


def overlap(a: XYXY, b: XYXY) -> float:
    """Return the common area as a share of the smaller box."""
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    return width * height / min(area(a), area(b))
