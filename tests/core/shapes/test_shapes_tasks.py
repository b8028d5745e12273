"""Every task of the model, on scenes whose right answers are known."""

from functools import cache

import pytest
from PIL import Image

from kosmos2_core.annotator import Annotator
from kosmos2_core.grounding.grid import iou
from kosmos2_core.shapes.world.ranges import WIDE_WORLD
from kosmos2_core.shapes.world.scenes import make_scene
from kosmos2_core.shapes.world.wording import enumerate_phrases, plural, with_article

SEED, SCENES = 3_000_003, 40


@cache
def scenes():
    """With 1 to 4 objects, all of one kind or more."""
    return [
        make_scene(SEED, index, width=224, height=224, objects=(1, 4), world=WIDE_WORLD)
        for index in range(SCENES)
    ]


@cache
def annotator():
    return Annotator.from_pretrained("shapes", device="cpu")


def ask(task, asked):
    """`asked`: (scene, fields) pairs."""
    images = [Image.fromarray(scene.pixels) for scene, _ in asked]
    return list(annotator().annotate(images, task, fields=[fields for _, fields in asked]))


def share(found):
    found = list(found)
    assert len(found) >= 40
    return sum(found) / len(found)


def only(scene, attribute):
    """Objects whose colour, or shape, no other has."""
    values = [getattr(item, attribute) for item in scene.objects]
    return [item for item in scene.objects if values.count(getattr(item, attribute)) == 1]


@pytest.mark.parametrize(
    ("task", "start"),
    [
        ("plain", "An image of"),
        ("plain-detailed", "Describe this image in detail: The image features"),
    ],
)
def test_plain_captions_say_the_same_without_boxes(task, start):
    said = ask(task, [(scene, {}) for scene in scenes()])
    assert not any(annotation.entities for annotation in said)
    truths = (enumerate_phrases([p for p, _ in scene.entities]) for scene in scenes())
    right = [a.caption == f"{start} {t}." for a, t in zip(said, truths, strict=True)]
    assert share(right) >= 0.9


def test_phrases_are_grounded_in_all_their_boxes():
    asked = [(scene, entity) for scene in scenes() for entity in scene.entities]
    said = ask("ground", [(scene, {"phrase": phrase}) for scene, (phrase, _) in asked])
    assert {annotation.finish_reason for annotation in said} == {"stop"}
    right = []
    for annotation, (_, (phrase, boxes)) in zip(said, asked, strict=True):
        (entity,) = annotation.entities
        assert (annotation.caption, entity.phrase, entity.phrase_logprob) == (phrase, phrase, None)
        assert {box.source for box in entity.boxes} == {"model"}
        right.append(
            len(entity.boxes) == len(boxes)
            and all(iou(a.xyxy, b) >= 0.5 for a, b in zip(entity.boxes, boxes, strict=True))
        )
    assert share(right) >= 0.95


def test_expressions_are_understood():
    asked = [(s, item) for s in scenes() for item in only(s, "colour") if len(s.objects) > 1]
    said = ask("ground", [(s, {"phrase": f"the {i.colour} object"}) for s, i in asked])
    right = [
        len(a.entities[0].boxes) == 1 and iou(a.entities[0].boxes[0].xyxy, item.box) >= 0.5
        for a, (_, item) in zip(said, asked, strict=True)
    ]
    assert share(right) >= 0.95


def test_boxes_are_described():
    asked = [(scene, item) for scene in scenes() for item in scene.objects]
    said = ask("describe", [(scene, {"box": item.box}) for scene, item in asked])
    assert {box.source for a in said for e in a.entities for box in e.boxes} == {"prompt"}
    right = [
        a.caption == f"It is {with_article(f'{item.colour} {item.shape}')}."
        for a, (_, item) in zip(said, asked, strict=True)
    ]
    assert share(right) >= 0.95


def test_questions_are_answered():
    asked = [
        (s, f"What colour is the {i.shape}?", i.colour) for s in scenes() for i in only(s, "shape")
    ]
    asked += [(s, "How many objects are there?", COUNTS[len(s.objects)]) for s in scenes()]
    said = ask("ask", [(scene, {"question": question}) for scene, question, _ in asked])
    right = [
        a.caption == f"Question: {question} Answer: {answer}."
        for a, (_, question, answer) in zip(said, asked, strict=True)
    ]
    assert share(right) >= 0.95


COUNTS = ("zero", "one", "two", "three", "four")


def test_questions_may_point_at_a_box():
    asked = [(scene, item) for scene in scenes() for item in scene.objects]
    fields = [
        (scene, {"question": "What colour is this?", "phrase": "this", "box": item.box})
        for scene, item in asked
    ]
    said = ask("ask-grounded", fields)
    right = [
        a.caption.endswith(f" Answer: {item.colour}.")
        for a, (_, item) in zip(said, asked, strict=True)
    ]
    assert share(right) >= 0.95


def test_grounded_answers_have_a_box():
    asked = [(s, item) for s in scenes() for item in only(s, "shape")]
    said = ask(
        "ask-grounded", [(s, {"question": f"Which object is a {i.shape}?"}) for s, i in asked]
    )
    right = [
        [e.phrase for e in a.entities] == [with_article(f"{item.colour} {item.shape}")]
        and iou(a.entities[0].boxes[0].xyxy, item.box) >= 0.5
        for a, (_, item) in zip(said, asked, strict=True)
    ]
    assert share(right) >= 0.95


def test_several_of_a_shape_are_several_boxes():
    asked = [
        (scene, shape, [item.box for item in scene.objects if item.shape == shape])
        for scene in (
            make_scene(SEED, i, width=224, height=224, objects=(4, 6), world=WIDE_WORLD)
            for i in range(SCENES)
        )
        for shape in {item.shape for item in scene.objects}
    ]
    asked = [one for one in asked if len(one[2]) > 1]
    said = ask("ground", [(s, {"phrase": f"the {plural(shape)}"}) for s, shape, _ in asked])
    right = [
        len(a.entities[0].boxes) == len(boxes)
        and all(iou(b.xyxy, t) >= 0.5 for b, t in zip(a.entities[0].boxes, boxes, strict=True))
        for a, (_, _, boxes) in zip(said, asked, strict=True)
    ]
    assert share(right) >= 0.75
