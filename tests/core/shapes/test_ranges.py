"""The wider worlds; the plain one's rules are in test_world.py."""

from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kosmos2_core.shapes.world.painting import INSIDE, paint_shape
from kosmos2_core.shapes.world.pillow_painting import paint_shape_with_pillow
from kosmos2_core.shapes.world.placing import RASTER, instances, overlap
from kosmos2_core.shapes.world.ranges import HARD_WORLD, WIDE_WORLD
from kosmos2_core.shapes.world.scenes import make_scene
from kosmos2_core.shapes.world.shards import main
from kosmos2_core.shapes.world.wording import enumerate_phrases

WORLDS = pytest.mark.parametrize("world", [WIDE_WORLD, HARD_WORLD], ids=["wide", "hard"])


# Before there were ranges to choose from.
GOLDEN_BOX = (0.4391586430343618, 0.4443098410236994, 0.6456976499910627, 0.6775388047003745)


def small(index, world, **kwargs):
    return make_scene(11, index, width=32, height=32, world=world, **kwargs)


def test_the_plain_world_is_unchanged():
    """Checkpoints and tests depend on these scenes."""
    scene = make_scene(7, 3, width=64, height=64)
    assert scene.caption == "An image of a white cross and a blue square."
    assert np.allclose(scene.objects[0].box, GOLDEN_BOX, atol=1e-9)


@WORLDS
@given(index=st.integers(0, 10**9))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_every_scene_keeps_the_rules(world, index):
    scene = small(index, world)
    low, high = world.objects
    assert low <= len(scene.objects) <= high
    phrases = [phrase for phrase, _ in scene.entities]
    assert scene.caption == f"An image of {enumerate_phrases(phrases)}."
    lefts = [item.box[0] for item in scene.objects]
    assert all(b - a >= world.left_gap * 0.8 - 1e-9 for a, b in pairwise(lefts))
    for item in scene.objects:
        x1, y1, x2, y2 = item.outline
        assert all(world.min_side - 1e-9 <= s <= world.max_side + 1e-9 for s in (x2 - x1, y2 - y1))
        assert 0 <= x1 <= item.box[0] < item.box[2] <= x2 <= 1
        assert 0 <= y1 <= item.box[1] < item.box[3] <= y2 <= 1


@WORLDS
@given(index=st.integers(0, 10**9))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_enough_is_seen_of_every_object_and_boxes_bound_it(world, index):
    objects = small(index, world).objects
    seen = instances(
        [item.shape for item in objects],
        [item.outline for item in objects],
        [item.depth for item in objects],
    )
    for at, item in enumerate(objects):
        alone = instances([item.shape], [item.outline], [0]) == 0
        visible = seen == at
        assert visible.sum() >= world.min_visible * alone.sum()
        rows, columns = np.nonzero(visible)
        bounds = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        assert np.abs(bounds / RASTER - item.box).max() < 2.5 / RASTER


@WORLDS
def test_objects_of_one_colour_do_not_touch(world):
    for index in range(60):
        for a, b in combinations(small(index, world).objects, 2):
            assert a.colour != b.colour or overlap(a.outline, b.outline) == 0


def test_a_pair_is_one_phrase_with_two_boxes():
    scenes = [small(index, WIDE_WORLD) for index in range(120)]
    paired = [scene for scene in scenes if len(scene.entities) < len(scene.objects)]
    assert 6 < len(paired) < 40
    for scene in paired:
        ((phrase, boxes),) = [entity for entity in scene.entities if len(entity[1]) > 1]
        assert phrase.startswith("two ")
        assert len(boxes) == 2
        assert boxes[0][0] < boxes[1][0]


def test_sides_from_8_to_90_percent_and_empty_scenes_occur():
    scenes = [small(index, WIDE_WORLD) for index in range(250)]
    sides = [item.outline[2] - item.outline[0] for scene in scenes for item in scene.objects]
    assert min(sides) < 0.085
    assert max(sides) > 0.8
    assert any(scene.caption == "An image of an empty background." for scene in scenes)


def test_some_objects_are_partly_covered():
    objects = [item for index in range(60) for item in small(index, WIDE_WORLD).objects]
    assert any(item.box != item.outline for item in objects)


@pytest.mark.parametrize("shape", sorted(INSIDE))
def test_both_painters_draw_the_same_shape(shape):
    box, colour = (0.21, 0.33, 0.68, 0.81), np.full(3, 200, np.float32)
    ours, theirs = (np.zeros((3, 150, 200), np.float32) for _ in range(2))
    paint_shape(ours, shape, colour, box)
    paint_shape_with_pillow(theirs, shape, colour, box)
    assert np.abs(ours - theirs).sum() < 0.06 * ours.sum()
    assert np.abs(ours - theirs).max() < 200


@WORLDS
def test_objects_are_the_same_at_every_image_size(world):
    large, tiny = (make_scene(7, 3, width=w, height=90, world=world) for w in (300, 40))
    assert large.objects == tiny.objects


def test_command_writes_a_wide_world(tmp_path):
    words = ["--out", str(tmp_path), "--shards", "1", "--images", "1", "--seed", "7"]
    main([*words, "--range", "wide"])
    assert (tmp_path / "shapes-00000.tar").stat().st_size > 1000
