"""Tasks that users define."""

from dataclasses import replace
from typing import Any

import pytest

from kosmos2_core.errors import InvalidField, MissingField, PromptMarkup
from kosmos2_core.grounding.vocabulary import Tag
from kosmos2_core.prompts.custom import own_task
from kosmos2_core.prompts.tasks import ASK_GROUNDED, BRIEF, DESCRIBE, GROUND, Task
from kosmos2_core.prompts.text import prompt_text

PLAIN: dict[str, Any] = {
    **{"name": "mine", "prompt": "An image of", "max_new_tokens": 64},
    **{"grounded": False, "ends_with_boxes": False},
}


def mine(**changes: Any) -> Task:
    return own_task(**{**PLAIN, **changes})


@pytest.mark.parametrize(
    ("changes", "ours"),
    [
        ({"grounded": True, "max_new_tokens": 128}, BRIEF),
        (
            {"grounded": True, "prompt": "<phrase> {phrase}</phrase>", "ends_with_boxes": True},
            GROUND,
        ),
        ({"grounded": True, "prompt": "<phrase> It</phrase>{box} is"}, DESCRIBE),
        (
            {"grounded": True, "prompt": "Question: {question} Answer:", "max_new_tokens": 128},
            replace(ASK_GROUNDED, optional=()),
        ),
    ],
)
def test_built_in_tasks_can_be_written_as_definitions(changes: dict[str, Any], ours: Task) -> None:
    assert mine(**changes) == replace(ours, name="mine")


@pytest.mark.parametrize(
    ("prompt", "fields", "expected"),
    [
        ("A photo of {n:number} {thing}:", {"n": 3, "thing": " dogs "}, "A photo of 3 dogs:"),
        ("{thing}, {thing}?", {"thing": "dogs"}, "dogs, dogs?"),
        ("{{{thing:text}}}", {"thing": "dogs"}, "{dogs}"),
        (
            "<phrase> {thing}</phrase>{where:box} is",
            {"thing": "it", "where": [0, 0, 1, 1]},
            "<phrase> it</phrase><object><patch_index_0000><patch_index_1023></object> is",
        ),
    ],
)
def test_slots_are_filled_by_their_kind(prompt: str, fields: dict[str, Any], expected: str) -> None:
    assert prompt_text(mine(prompt=prompt), fields) == expected


@pytest.mark.parametrize(
    ("prompt", "fields", "error"),
    [
        ("{thing}", {}, MissingField),
        ("{thing}", {"thing": 3}, InvalidField),
        ("{thing}", {"thing": "a <phrase> b"}, PromptMarkup),
        ("{n:number}", {"n": "3"}, InvalidField),
        ("{n:number}", {"n": True}, InvalidField),
        ("{n:number}", {"n": float("nan")}, InvalidField),
        ("{n:number}", {"n": 10**400}, InvalidField),
        ("<phrase> it</phrase>{where:box}", {"where": "<object>"}, InvalidField),
        ("<phrase> it</phrase>{where:box}", {"where": [0, 0, 2, 2]}, InvalidField),
    ],
)
def test_a_field_of_another_kind_rejects_its_sample(
    prompt: str, fields: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        prompt_text(mine(prompt=prompt), fields)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": "brief"}, "that of a built-in task: choose another"),
        ({"name": "Mine!"}, "use a-z"),
        ({"max_new_tokens": 0}, r"must be in 1\.\.1024"),
        ({"max_new_tokens": 5000}, r"must be in 1\.\.1024"),
        ({"prompt": " "}, "must not be empty"),
        ({"prompt": "An image of "}, "end with whitespace"),
        ({"prompt": "x" * 1001}, "more than 1000 characters"),
        ({"prompt": "<grounding> An image of"}, "grounded: true"),
        ({"prompt": "a { b"}, "braces in prompt do not match"),
        ({"prompt": "{}"}, "its name must use"),
        ({"prompt": "{0}"}, "its name must use"),
        ({"prompt": "{a.b}"}, "its name must use"),
        ({"prompt": "{a:int}"}, "{a:text}, {a:number}, {a:box}"),
        ({"prompt": "{a!r}"}, "{a:text}"),
        ({"prompt": "See {where:box}"}, "without a phrase before it"),
        ({"prompt": "See {box}"}, "without a phrase before it"),
        ({"prompt": "<phrase>a dog</phrase>"}, "with the space"),
        ({"prompt": "<phrase> a dog"}, "markup other than phrases"),
        ({"prompt": "a dog</phrase>"}, "markup other than phrases"),
        ({"prompt": "a <patch_index_0044>"}, "markup other than phrases"),
        ({"prompt": "a </s> b"}, "markup other than phrases"),
        ({"ends_with_boxes": True, "grounded": True}, f"ends with {Tag.END_OF_PHRASE}"),
        ({"ends_with_boxes": True, "prompt": "<phrase> a</phrase>"}, "grounded: true"),
    ],
)
def test_an_invalid_definition_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        mine(**changes)
