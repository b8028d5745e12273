"""Patch indices of the 32x32 location grid <-> normalised xyxy boxes.

The rules are those of Kosmos-2's own decoding (`patch_index_to_coordinate` in transformers'
`processing_kosmos2.py`): a box that spans more than one row and one column runs between the
CENTRES of its corner cells, any other between their outer EDGES. So a normal box never
touches 0 or 1, and its coordinates are multiples of 1/64: exact in float32.
"""

import math

GRID = 32
CELLS = GRID * GRID
IMAGE_SIZE = 224  # pixels: side of the square that the model sees, 7 to a cell
RIGHT_IOU = 0.5  # with the truth, from which a box is right, in benchmarks as here

XYXY = tuple[float, float, float, float]


def area(box: XYXY) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def iou(a: XYXY, b: XYXY) -> float:
    """Intersection over union of two boxes that have an area."""
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    common = width * height
    return common / (area(a) + area(b) - common)


def is_location(index: int) -> bool:
    return 0 <= index < CELLS


def is_ordered(ul: int, lr: int) -> bool:
    """Whether cell `lr` is neither above nor left of cell `ul`."""
    return lr % GRID >= ul % GRID and lr // GRID >= ul // GRID


def box_of(ul: int, lr: int) -> XYXY:
    """Corner cells -> (x1, y1, x2, y2) with 0 <= x1 < x2 <= 1 and 0 <= y1 < y2 <= 1.

    Raises ValueError for an index outside 0..1023 or corners in the wrong order.
    """
    if not (is_location(ul) and is_location(lr) and is_ordered(ul, lr)):
        raise ValueError(f"no box has the corner cells {ul} and {lr}")
    left, top, right, bottom = ul % GRID, ul // GRID, lr % GRID, lr // GRID
    if left == right or top == bottom:
        return left / GRID, top / GRID, (right + 1) / GRID, (bottom + 1) / GRID
    return (left + 0.5) / GRID, (top + 0.5) / GRID, (right + 0.5) / GRID, (bottom + 0.5) / GRID


def cells_of(box: XYXY) -> tuple[int, int]:
    """(x1, y1, x2, y2) -> corner cells (ul, lr), as the model's training data were made.

    Raises ValueError unless 0 <= x1 < x2 <= 1 and 0 <= y1 < y2 <= 1.
    """
    x1, y1, x2, y2 = box
    if not (0 <= x1 < x2 <= 1 and 0 <= y1 < y2 <= 1):
        raise ValueError(f"not a normalised xyxy box: {box}")
    ul = math.floor(y1 * GRID) * GRID + math.floor(x1 * GRID)
    lr = (math.ceil(y2 * GRID) - 1) * GRID + math.ceil(x2 * GRID) - 1
    return ul, lr
