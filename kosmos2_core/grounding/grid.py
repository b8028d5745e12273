"""Convert between patch indices of the 32x32 location grid and normalised xyxy boxes.

The grid is that of Kosmos-2 (arXiv:2306.14824, section 2.1). The rules are those of its decoding
(`patch_index_to_coordinate` in transformers' `processing_kosmos2.py`): a box of more than one row
and more than one column extends between the CENTRES of its corner cells, any other box between
their outer EDGES. So a normal box never touches 0 or 1. All coordinates are multiples of 1/64,
which float32 represents exactly.
"""

import math

GRID = 32
CELLS = GRID * GRID
IMAGE_SIZE = 224  # pixels: side of the model's input; a cell has 7 x 7 pixels
RIGHT_IOU = 0.5  # least IoU with the truth for a correct box, as in the benchmarks

XYXY = tuple[float, float, float, float]


def area(box: XYXY) -> float:
    """Return the area of a box, as a share of the image."""
    return (box[2] - box[0]) * (box[3] - box[1])


def iou(a: XYXY, b: XYXY) -> float:
    """Return the intersection over union of two boxes with an area."""
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    common = width * height
    return common / (area(a) + area(b) - common)


def is_location(index: int) -> bool:
    """Return whether a patch index is on the grid."""
    return 0 <= index < CELLS


def box_of(ul: int, lr: int) -> XYXY:
    """Return (x1, y1, x2, y2) of corner cells, with 0 <= x1 < x2 <= 1 and 0 <= y1 < y2 <= 1.

    Raises ValueError for an index outside 0..1023 or corners in the wrong order.
    """
    (top, left), (bottom, right) = divmod(ul, GRID), divmod(lr, GRID)
    if not (0 <= top <= bottom < GRID and left <= right):
        raise ValueError(
            f"no box has the corner cells {ul} and {lr}: use 0..{CELLS - 1}, upper left first"
        )
    if left == right or top == bottom:
        return left / GRID, top / GRID, (right + 1) / GRID, (bottom + 1) / GRID
    return (left + 0.5) / GRID, (top + 0.5) / GRID, (right + 0.5) / GRID, (bottom + 0.5) / GRID


def cells_of(box: XYXY) -> tuple[int, int]:
    """Return the corner cells (ul, lr) of (x1, y1, x2, y2), as in the model's training data.

    Raises ValueError unless 0 <= x1 < x2 <= 1 and 0 <= y1 < y2 <= 1.
    """
    x1, y1, x2, y2 = box
    if not (0 <= x1 < x2 <= 1 and 0 <= y1 < y2 <= 1):
        raise ValueError(f"not a normalised xyxy box: {box}")
    ul = math.floor(y1 * GRID) * GRID + math.floor(x1 * GRID)
    lr = (math.ceil(y2 * GRID) - 1) * GRID + math.ceil(x2 * GRID) - 1
    return ul, lr
