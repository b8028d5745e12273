from dataclasses import replace
from pathlib import Path

import pytest

from kosmos2_core.annotation import Issue
from kosmos2_core.grounding.parser import parse_text
from kosmos2_core.grounding.quality import LOW_SCORE, quality_issues, size_issues

BRIEF = "<grounding> An image of"
PLAIN = "An image of"


def cell(x, y):
    return f"<patch_index_{y * 32 + x:04d}>"


def box(x1, y1, x2, y2):
    return cell(x1, y1) + cell(x2, y2)


GOOD = box(3, 3, 10, 12)


def phrase(text, *boxes):
    inside = "</delimiter_of_multi_objects/>".join(boxes)
    return f"<phrase> {text}</phrase><object>{inside}</object>"


def issues(answer, prompt=BRIEF, score=0.9):
    """As if the model had said `answer`, each box with that score."""
    found = parse_text(prompt + answer)
    assert not found.issues
    entities = tuple(
        replace(entity, boxes=tuple(replace(b, score=score) for b in entity.boxes))
        for entity in found.entities
    )
    said = replace(found, entities=entities, prompt_chars=len("An image of"))
    return quality_issues(prompt, said)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (phrase("a dog", GOOD), ()),
        (
            phrase("two dogs", GOOD, box(15, 3, 22, 12)) + " on" + phrase("a bed", GOOD),
            "shared_box",
        ),
        (phrase("two dogs", GOOD, box(3, 3, 10, 12)), "duplicate_box"),
        (phrase("two dogs", GOOD, box(3, 3, 10, 20)), ()),
        (" nothing at all", "empty_grounding"),
        (phrase("a pole", box(3, 3, 3, 12)), "degenerate_box"),
        (phrase("a line", box(3, 3, 12, 3)), "degenerate_box"),
        (phrase("a room", box(0, 0, 31, 31)), "whole_image_box"),
        (phrase("a room", box(1, 1, 30, 30)), ()),
        (phrase("It", GOOD), "pronoun_phrase"),
        (phrase("he himself", GOOD), "pronoun_phrase"),
        (phrase("his dog", GOOD), ()),
        (phrase("a good time", GOOD), "abstract_phrase"),
        (phrase("time machine", GOOD), ()),
        (phrase("a dog", GOOD) + " on a bed on a bed on a bed", "repeated_words"),
        (phrase("a dog", GOOD) + " on a bed and on a chair", ()),
        (phrase("a dog", GOOD) + " in an image of a dog", "prompt_echo"),
    ],
)
def test_doubtful_answers_are_flagged(answer, expected):
    assert issues(answer) == ((Issue(expected),) if expected else ())


def test_a_caption_without_boxes_is_fine_where_none_were_asked_for():
    assert issues(" a dog", prompt=PLAIN) == ()


@pytest.mark.parametrize(("score", "is_low"), [(LOW_SCORE, False), (LOW_SCORE - 0.01, True)])
def test_a_low_score_is_named(score, is_low):
    assert (Issue.LOW_SCORE in issues(phrase("a dog", GOOD), score=score)) is is_low


def test_boxes_of_the_prompt_are_not_the_models_fault():
    prompt = "<grounding>" + phrase("It", box(0, 0, 31, 31)) + " is"
    found = parse_text(prompt + " a dog")
    (entity,) = found.entities
    given = replace(entity, boxes=(replace(entity.boxes[0], source="prompt"),))
    assert quality_issues(prompt, replace(found, entities=(given,), prompt_chars=5)) == ()


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((224, 224), ()),
        ((31, 60), (Issue.TINY_IMAGE,)),
        ((400, 100), (Issue.EXTREME_ASPECT,)),
        ((100, 399), ()),
        ((10, 1000), (Issue.TINY_IMAGE, Issue.EXTREME_ASPECT)),
    ],
)
def test_tiny_and_extreme_images_are_flagged(size, expected):
    assert size_issues(*size) == expected


def test_every_issue_is_explained():
    said = Path("docs/quality.md").read_text()
    assert [issue for issue in Issue if f"`{issue}`" not in said] == []
