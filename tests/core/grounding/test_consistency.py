from functools import cache

import numpy as np
import pytest
from PIL import Image

from kosmos2_core.annotation import Annotation, Box, Entity
from kosmos2_core.annotator import Annotator
from kosmos2_core.checkpoint.load import load_checkpoint
from kosmos2_core.generation import Generation
from kosmos2_core.grounding.consistency import phrases_to_check, with_consistency
from kosmos2_core.grounding.grid import iou
from kosmos2_core.images.decode import square_pixels
from kosmos2_core.prompts.tasks import BRIEF, DESCRIBE, DETAILED
from kosmos2_core.shapes.world.scenes import make_scene
from kosmos2_core.shared_annotator import SharedAnnotator

A, B, C = (0.0, 0.0, 0.5, 0.5), (0.5, 0.5, 1.0, 1.0), (0.0, 0.0, 0.5, 0.25)


def a_box(xyxy, source="model"):
    x1, y1, x2, y2 = xyxy
    return Box(x1=x1, y1=y1, x2=x2, y2=y2, ul=0, lr=0, source=source)


def an_entity(phrase, *boxes, logprob=-0.1, source="model"):
    made = tuple(a_box(box, source) for box in boxes)
    return Entity(phrase=phrase, start=0, end=1, boxes=made, phrase_logprob=logprob)


def an_annotation(*entities):
    return Annotation(
        task="brief",
        prompt="",
        caption="",
        prompt_chars=0,
        entities=entities,
        issues=(),
        finish_reason="eos",
        token_ids=(),
        token_logprobs=(),
    )


def test_each_phrase_that_the_model_said_is_asked_once():
    given = an_entity("It", A, logprob=None, source="prompt")
    asked = an_entity("a cat", A, logprob=None)  # grounding: the phrase is the user's
    said = [
        an_annotation(given, an_entity("a dog", A), asked),
        an_annotation(an_entity("a dog", B)),
    ]
    assert phrases_to_check([*said, an_annotation(an_entity("a bed", A))]) == ["a dog", "a bed"]


@pytest.mark.parametrize(
    ("boxes", "again", "expected"),
    [
        ((A,), (A,), [1.0]),
        ((A,), (C,), [0.5]),
        ((A,), (B,), [0.0]),
        ((A,), (), [0.0]),
        ((A, B), (B, A), [1.0, 1.0]),
        ((A,), (B, C, A), [1.0]),
    ],
)
def test_a_box_is_as_consistent_as_the_best_of_the_other_answer(boxes, again, expected):
    said = an_annotation(an_entity("a dog", *boxes))
    (entity,) = with_consistency(said, {"a dog": [a_box(box) for box in again]}).entities
    assert [box.consistency for box in entity.boxes] == expected


def test_phrases_that_were_not_checked_have_no_consistency():
    given = an_entity("a dog", A, logprob=None, source="prompt")
    said = an_annotation(given, an_entity("a cat", A))
    found = with_consistency(said, {"a dog": [a_box(A)]})
    assert [box.consistency for entity in found.entities for box in entity.boxes] == [None, None]


@cache
def pixels():
    scenes = (make_scene(7, index, width=224, height=224) for index in range(8))
    return np.stack([square_pixels(Image.fromarray(scene.pixels)) for scene in scenes])


@pytest.fixture(scope="module")
def checkpoint():
    return load_checkpoint("shapes", device="cpu")


@pytest.mark.parametrize("shared", [False, True], ids=["alone", "shared"])
def test_phrases_are_grounded_again_with_the_image_at_hand(checkpoint, shared):
    verifying = Annotator(checkpoint, Generation(verify_boxes=True, slots=4))
    model = SharedAnnotator(verifying) if shared else verifying
    fields = [[{}, {}, {"box": A}]] * len(pixels())
    tasks = [BRIEF, DETAILED, DESCRIBE]
    plain = Annotator(checkpoint)
    for image, found, without in zip(
        pixels(),
        model.answer_pixels(pixels(), tasks, fields),
        plain.answer_pixels(pixels(), tasks, fields),
        strict=True,
    ):
        for annotation, other in zip(found, without, strict=True):
            assert (annotation.caption, annotation.token_ids) == (other.caption, other.token_ids)
            for entity in annotation.entities:
                said = entity.phrase_logprob is not None
                again = grounded(plain, image, entity.phrase) if said else []
                for box in entity.boxes:
                    expected = max((iou(box.xyxy, b) for b in again), default=0.0) if said else None
                    assert box.consistency == expected


def grounded(annotator, image, phrase):
    """Asked in a call of its own."""
    image = Image.fromarray(image.transpose(1, 2, 0))
    (annotation,) = annotator.annotate([image], "ground", fields=[{"phrase": phrase}])
    return [box.xyxy for entity in annotation.entities for box in entity.boxes]
