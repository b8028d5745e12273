import io
import json
import tarfile
from dataclasses import FrozenInstanceError, replace
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from kosmos2_core.shapes.world.painting import INSIDE, paint_shape
from kosmos2_core.shapes.world.placing import overlap, place
from kosmos2_core.shapes.world.ranges import PLAIN_WORLD
from kosmos2_core.shapes.world.scenes import COLOURS
from kosmos2_core.shapes.world.shards import (
    choose_quality,
    encode_jpeg,
    main,
    make_scene,
    write_shards,
)
from kosmos2_core.shapes.world.wording import enumerate_phrases


def test_scene_depends_on_seed_and_index_alone():
    first = make_scene(7, 3)
    make_scene(7, 4)
    again = make_scene(7, 3)
    assert (again.objects, again.caption) == (first.objects, first.caption)
    assert np.array_equal(again.pixels, first.pixels)


@pytest.mark.parametrize(("seed", "index"), [(7, 4), (8, 3)])
def test_scene_differs_by_seed_and_by_index(seed, index):
    assert make_scene(seed, index).objects != make_scene(7, 3).objects


def test_objects_are_the_same_at_every_image_size():
    small, large = (make_scene(7, 3, width=w, height=200) for w in (32, 640))
    assert small.objects == large.objects
    assert (small.pixels.shape, large.pixels.shape) == ((200, 32, 3), (200, 640, 3))


def test_scene_is_immutable():
    with pytest.raises(FrozenInstanceError):
        make_scene(7, 3).caption = "An image of a dog."


@pytest.mark.parametrize("shape", sorted(INSIDE))
@pytest.mark.parametrize(("width", "height"), [(32, 200), (300, 160), (640, 480)])
def test_box_is_tight_around_the_painted_pixels(shape, width, height):
    box = (0.21, 0.33, 0.68, 0.81)
    canvas = np.zeros((3, height, width), np.float32)
    paint_shape(canvas, shape, np.full(3, 200, np.float32), box)
    rows, columns = np.nonzero(canvas[0] > 2)
    painted = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    inwards = (painted - np.multiply(box, [width, height] * 2)) * [1, 1, -1, -1]
    longest_faint_tip = 1 + 0.03 * (box[3] - box[1]) * height
    assert inwards.min() > -1
    assert inwards.max() < longest_faint_tip


def test_drawn_shape_has_the_colour_of_its_phrase():
    for index in range(20):
        scene = make_scene(5, index, width=200, height=200, objects=(1, 1))
        (item,) = scene.objects
        _, colour, shape = item.phrase.split()
        share = 0.7 if shape == "triangle" else 0.5
        x = round((item.box[0] + item.box[2]) * 100)
        y = round((item.box[1] + share * (item.box[3] - item.box[1])) * 200)
        middle = scene.pixels[y - 2 : y + 3, x - 2 : x + 3].mean((0, 1))
        assert np.abs(middle - COLOURS[colour]).max() < PLAIN_WORLD.jitter + 12


@pytest.mark.parametrize(
    ("phrases", "text"),
    [
        ([], "an empty background"),
        (["a red circle"], "a red circle"),
        (["a red circle", "an orange star"], "a red circle and an orange star"),
        (["a X", "a Y", "a Z"], "a X, a Y and a Z"),
    ],
)
def test_phrases_are_enumerated_as_the_checkpoint_was_trained(phrases, text):
    assert enumerate_phrases(phrases) == text


@given(index=st.integers(0, 10**9), number=st.integers(0, 6))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_every_scene_keeps_the_rules_of_the_world(index, number):
    scene = make_scene(7, index, width=32, height=32, objects=(number, number))
    phrases = [item.phrase for item in scene.objects]
    boxes = [item.box for item in scene.objects]
    lefts = [box[0] for box in boxes]
    assert len(set(phrases)) == number
    assert scene.caption == f"An image of {enumerate_phrases(phrases)}."
    assert all(p.startswith("an orange ") or p.startswith("a ") for p in phrases)
    assert not any(p.startswith("a orange ") for p in phrases)
    assert all(0 <= x1 < x2 <= 1 and 0 <= y1 < y2 <= 1 for x1, y1, x2, y2 in boxes)
    assert all(right - left >= PLAIN_WORLD.left_gap - 1e-9 for left, right in pairwise(lefts))
    assert all(overlap(a, b) <= PLAIN_WORLD.max_overlap for a, b in combinations(boxes, 2))


@given(index=st.integers(0, 10**9), number=st.integers(1, 4))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_sizes_stay_in_the_trained_range(index, number):
    low, high = PLAIN_WORLD.sizes[number]
    for item in make_scene(7, index, width=32, height=32, objects=(number, number)).objects:
        width, height = item.box[2] - item.box[0], item.box[3] - item.box[1]
        assert low * 0.999 <= (width * height) ** 0.5 <= high * 1.001
        assert abs(np.log(width / height)) <= PLAIN_WORLD.log_aspect + 1e-9


def test_placing_ends_where_the_wanted_sizes_cannot_fit():
    crowded = replace(PLAIN_WORLD, sizes=((0.6, 0.7),) * 7)
    boxes = place(np.random.default_rng(7), 6, crowded)
    assert all(overlap(a, b) <= PLAIN_WORLD.max_overlap for a, b in combinations(boxes, 2))


def test_number_of_objects_covers_the_range_and_no_more():
    found = {len(make_scene(7, i, width=32, height=32, objects=(0, 6)).objects) for i in range(80)}
    assert found == set(range(7))


def test_image_sizes_and_qualities_vary_within_their_limits():
    shapes = {make_scene(7, index).pixels.shape for index in range(40)}
    qualities = {choose_quality(7, index) for index in range(300)}
    assert len(shapes) == 40
    assert all(160 <= side <= 640 for shape in shapes for side in shape[:2])
    assert (min(qualities), max(qualities)) == PLAIN_WORLD.qualities


def test_jpeg_holds_the_image():
    scene = make_scene(7, 3, width=200, height=160)
    decoded = np.asarray(Image.open(io.BytesIO(encode_jpeg(scene, 95))), np.float32)
    assert np.abs(decoded - scene.pixels).mean() < 8


def test_shards_pair_each_jpeg_with_its_truth(tmp_path):
    paths = write_shards(tmp_path, shards=2, images=3, seed=7, objects=(0, 3))
    assert [path.name for path in paths] == ["shapes-00000.tar", "shapes-00001.tar"]
    with tarfile.open(paths[1]) as tar:
        assert tar.getnames() == [
            f"{key:08d}.{kind}" for key in (3, 4, 5) for kind in ("jpg", "json")
        ]
        truth = json.load(tar.extractfile("00000003.json"))
        image = Image.open(tar.extractfile("00000003.jpg"))
        assert image.size == (truth["width"], truth["height"])
    scene = make_scene(7, 3, objects=(0, 3))
    assert truth["caption"] == scene.caption
    assert [(o["phrase"], tuple(o["box"])) for o in truth["objects"]] == [
        (item.phrase, item.box) for item in scene.objects
    ]


def test_equal_arguments_give_equal_shards_and_leave_nothing_else(tmp_path):
    a, b = ([p.read_bytes() for p in _small_shards(tmp_path / name)] for name in "ab")
    assert a == b
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == [
        "shapes-00000.tar",
        "shapes-00001.tar",
    ]


def _small_shards(out: Path) -> list[Path]:
    return write_shards(out, shards=2, images=2, seed=7, width=64, height=48, quality=80)


def test_command_writes_shards_and_names_them(tmp_path, capsys):
    main(["--out", str(tmp_path), "--shards", "1", "--images", "2", "--seed", "7"])
    assert capsys.readouterr().out == f"{tmp_path / 'shapes-00000.tar'}\n"


@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [
        ("--objects", "5-2", "objects 5-2: use 0 <= low <= high <= 6"),
        ("--objects", "1-9", "objects 1-9: use 0 <= low <= high <= 6"),
        ("--objects", "x", "'x' is not a number or a range such as 1-4"),
        ("--shards", "0", "0 shards of 2 images: use at least 1 of each"),
        ("--images", "many", "invalid int value: 'many'"),
        ("--seed", "-1", "seed -1 is negative: it must be at least 0"),
    ],
)
def test_command_refuses_bad_arguments(tmp_path, capsys, flag, value, message):
    options = {"--out": str(tmp_path / "new"), "--shards": "1", "--images": "2", "--seed": "7"}
    options[flag] = value
    with pytest.raises(SystemExit, match="2"):
        main([word for pair in options.items() for word in pair])
    assert message in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("side", ["width", "height"])
def test_scene_refuses_a_side_too_short_to_draw_on(side):
    with pytest.raises(ValueError, match="a side of 15 px is too small: use at least 16"):
        make_scene(7, 3, **{side: 15})
