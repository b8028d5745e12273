import pytest

from kosmos2_core.annotation import Box, Entity, Grounding
from kosmos2_core.grounding.grid import box_of, cells_of, iou
from kosmos2_core.shapes.evaluation.evaluate import Result, figures_table
from kosmos2_core.shapes.evaluation.scoring import is_same_answer, judge
from kosmos2_core.shapes.world.scenes import make_scene


def entity(phrase, *boxes):
    made = [Box(x1=x1, y1=y1, x2=x2, y2=y2, ul=0, lr=0) for x1, y1, x2, y2 in boxes]
    return Entity(phrase=phrase, start=0, end=len(phrase), boxes=tuple(made))


def grounding(caption, *entities):
    return Grounding(caption=caption, entities=entities, issues=())


@pytest.mark.parametrize(
    ("a", "b", "share"),
    [
        ((0, 0, 1, 1), (0, 0, 1, 1), 1),
        ((0, 0, 1, 1), (0.5, 0, 1, 1), 0.5),
        ((0, 0, 0.4, 0.4), (0.5, 0.5, 1, 1), 0),
        ((0, 0, 0.5, 0.5), (0.25, 0, 0.75, 0.5), 1 / 3),
    ],
)
def test_iou(a, b, share):
    assert iou(a, b) == pytest.approx(share)


@pytest.fixture
def scene():
    return make_scene(7, 3, width=32, height=32, objects=(2, 2))


def test_objects_said_rightly_are_right(scene):
    said = [entity(o.phrase, box_of(*cells_of(o.box))) for o in scene.objects]
    judged = judge(scene, said)
    assert all(item.is_right for item in judged)
    assert [item.iou for item in judged] == [item.ceiling for item in judged]
    assert {item.objects_in_scene for item in judged} == {2}


def test_a_wrong_name_or_a_wrong_box_is_wrong(scene):
    first, second = scene.objects
    judged = judge(scene, [entity("a dog", first.box), entity(second.phrase, (0, 0, 0.01, 0.01))])
    assert [item.is_right for item in judged] == [False, False]


def test_an_object_left_out_is_wrong(scene):
    first, _ = scene.objects
    assert [item.is_right for item in judge(scene, [entity(first.phrase, first.box)])] == [
        True,
        False,
    ]


A, B = (0.0, 0.0, 0.5, 0.5), (0.5, 0.5, 1.0, 1.0)


@pytest.mark.parametrize(
    ("said", "is_same"),
    [
        (grounding("two dogs", entity("two dogs", A, B)), True),
        (grounding("two dogs", entity("two dogs", A, (0.5, 0.5, 1.0, 0.9))), True),
        (grounding("two cats", entity("two dogs", A, B)), False),
        (grounding("two dogs", entity("two dogs", A)), False),
        (grounding("two dogs", entity("two dogs", B, A)), False),
        (grounding("two dogs", entity("dogs", A, B)), False),
        (grounding("two dogs"), False),
    ],
)
def test_answers_are_the_same_in_words_and_boxes(said, is_same):
    assert is_same_answer(grounding("two dogs", entity("two dogs", A, B)), said) is is_same


def test_table_shows_shares_and_counts(scene):
    judged = judge(scene, [entity(scene.objects[0].phrase, scene.objects[0].box)])
    said = figures_table(Result(judged=judged, is_caption_exact={0: [True], 2: [False]}, skills={}))
    lines = {tuple(line.split()[:-2]): line.split()[-2:] for line in said.splitlines()}
    assert lines["objects", "right,", "1-2"] == ["0.5000", "2"]
    assert lines["empty", "scenes"] == ["1.0000", "1"]
    assert lines["captions", "exact"] == ["0.5000", "2"]
    assert "phrase" not in said
