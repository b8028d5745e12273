from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.models.kosmos2.processing_kosmos2 import (
    coordinate_to_patch_index,
    patch_index_to_coordinate,
)

from kosmos2_core.grounding.grid import CELLS, GRID, box_of, cells_of, is_location

SIDES = [(low, high) for low in range(GRID) for high in range(low, GRID)]
ORDERED = {
    (top * GRID + left, bottom * GRID + right)
    for (left, right), (top, bottom) in product(SIDES, SIDES)
}
SHARES = st.floats(0, 1, exclude_min=True, allow_subnormal=False).filter(lambda x: x > 1e-15)


def test_box_of_equals_hugging_face_for_all_pairs():
    assert all(box_of(ul, lr) == patch_index_to_coordinate(ul, lr, GRID) for ul, lr in ORDERED)


def test_cells_of_inverts_box_of_for_all_pairs():
    assert all(cells_of(box_of(ul, lr)) == (ul, lr) for ul, lr in ORDERED)


@pytest.mark.parametrize(
    ("ul", "lr", "box"),
    [
        pytest.param(44, 863, (0.390625, 0.046875, 0.984375, 0.828125), id="centres"),
        pytest.param(33, 33, (1 / 32, 1 / 32, 2 / 32, 2 / 32), id="one cell: edges"),
        pytest.param(33, 35, (1 / 32, 1 / 32, 4 / 32, 2 / 32), id="one row: edges"),
        pytest.param(33, 97, (1 / 32, 1 / 32, 2 / 32, 4 / 32), id="one column: edges"),
        pytest.param(0, 1023, (0.015625, 0.015625, 0.984375, 0.984375), id="whole image"),
    ],
)
def test_box_of_gives_centres_or_edges(ul, lr, box):
    assert box_of(ul, lr) == box


def test_boxes_are_never_empty_and_within_the_image():
    boxes = (box_of(ul, lr) for ul, lr in ORDERED)
    assert all(0 <= x1 < x2 <= 1 and 0 <= y1 < y2 <= 1 for x1, y1, x2, y2 in boxes)


@settings(derandomize=True, deadline=None, max_examples=300)
@given(
    xs=st.lists(SHARES, min_size=2, max_size=2, unique=True).map(sorted),
    ys=st.lists(SHARES, min_size=2, max_size=2, unique=True).map(sorted),
)
def test_cells_of_any_box_equal_hugging_face_and_are_ordered(xs, ys):
    box = (xs[0], ys[0], xs[1], ys[1])
    ul, lr = cells_of(box)
    assert (ul, lr) == coordinate_to_patch_index(box, GRID)
    assert is_location(ul)
    assert is_location(lr)
    assert (ul, lr) in ORDERED


def test_cells_of_a_box_too_small_for_floats_stay_in_the_grid():
    # 1e-20 * 32 - 1 is -1.0: Hugging Face's formula leaves the grid here.
    assert cells_of((0.0, 0.0, 1e-20, 1e-20)) == (0, 0)


@pytest.mark.parametrize(
    ("ul", "lr"),
    [(-1, 5), (0, CELLS), (1500, 1501), (863, 44), (1, 32), (32, 1)],
)
def test_box_of_refuses_cells_without_a_box(ul, lr):
    with pytest.raises(ValueError, match=f"{ul} and {lr}"):
        box_of(ul, lr)


@pytest.mark.parametrize(
    "box",
    [
        pytest.param((-0.1, 0.0, 1.0, 1.0), id="left of the image"),
        pytest.param((0.0, 0.0, 1.2, 1.0), id="right of the image"),
        pytest.param((0.5, 0.0, 0.5, 1.0), id="no width"),
        pytest.param((0.0, 0.7, 1.0, 0.6), id="inverted"),
        pytest.param((0.0, 0.0, float("nan"), 1.0), id="nan"),
    ],
)
def test_cells_of_refuses_what_is_not_a_normalised_box(box):
    with pytest.raises(ValueError, match="not a normalised xyxy box"):
        cells_of(box)
