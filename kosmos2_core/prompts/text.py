"""Fill the fields of a sample into the prompt of a task.

Texts come from users and from data, so they must not contain the model's own markup. Boxes come
from typed fields, never from text.
"""

import math
from collections.abc import Mapping, Sequence
from string import Formatter
from typing import Any

from kosmos2_core.errors import InvalidField, MissingField, PromptMarkup
from kosmos2_core.grounding.grid import cells_of
from kosmos2_core.grounding.parser import has_markup, markup_in
from kosmos2_core.grounding.vocabulary import Tag
from kosmos2_core.prompts.tasks import Task

PromptFields = Mapping[str, object]
_BOX = "box"  # the optional field that is bound to a phrase
MAX_CHARACTERS = 2000  # in a text field; the model has 2,048 positions
MAX_BOXES = 64


def prompt_text(task: Task, fields: PromptFields) -> str:
    """Return the text that follows the image in the prompt.

    Text fields are strings. A box is [x1, y1, x2, y2], normalised to [0, 1], origin top left, or a
    list of such boxes. Raises MissingField, InvalidField, PromptMarkup.
    """
    given = {name: _value(task, fields, name) for name in task.fields if _has(task, fields, name)}
    if task.optional and _BOX in given:
        given["question"] = _bound(task, given)
    pieces = [
        piece
        for literal, name, _, _ in Formatter().parse(task.prompt)
        for piece in (literal, given[name] if name else "")
    ]
    text = "".join(pieces)
    if markup_in(text) != [markup for piece in pieces for markup in markup_in(piece)]:
        raise PromptMarkup(
            f"the fields of task {task.name} together form markup of the model; remove the parts "
            f"of tags from them: {text!r:.200}"
        )
    return text


def _has(task: Task, fields: PromptFields, name: str) -> bool:
    if fields.get(name) is not None:
        return True
    if name in task.optional:
        return False
    raise MissingField(
        f"task {task.name} needs the field {name!r}, and this sample has none: add it, or map "
        "another field to it"
    )


def _value(task: Task, fields: PromptFields, name: str) -> str:
    value = fields[name]
    match task.kind_of(name):
        case "box":
            return box_markup(task, value)
        case "number":
            return _number(task, name, value)
        case _:
            return _text(task, name, value)


def _number(task: Task, name: str, value: object) -> str:
    if not _is_finite_number(value):
        raise InvalidField(f"{name} of task {task.name} must be a number, not {value!r:.80}")
    return str(value)


def _text(task: Task, name: str, value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise InvalidField(f"{name} of task {task.name} must be text, not {value!r:.80}")
    if len(value) > MAX_CHARACTERS:
        raise InvalidField(
            f"{name} of task {task.name} has {len(value)} characters: shorten it to "
            f"{MAX_CHARACTERS}"
        )
    if has_markup(value):
        raise PromptMarkup(
            f"{name} of task {task.name} contains the model's own markup, remove it: {value!r:.80}"
        )
    return value.strip()


def box_markup(task: Task, value: Any) -> str:
    """Return `<object>` with the corner cells of one or more boxes. Raises InvalidField."""
    is_list = _is_sequence(value) and len(value) > 0 and all(map(_is_sequence, value))
    boxes = value if is_list else [value]
    if len(boxes) > MAX_BOXES:
        raise InvalidField(
            f"box of task {task.name} has {len(boxes)} boxes: use at most {MAX_BOXES}"
        )
    inside = str(Tag.DELIMITER).join(
        "".join(f"<patch_index_{cell:04d}>" for cell in _cells(task, box)) for box in boxes
    )
    return f"{Tag.OBJECT}{inside}{Tag.END_OF_OBJECT}"


def _cells(task: Task, box: Any) -> tuple[int, int]:
    wrong = InvalidField(
        f"box of task {task.name} must be x1, y1, x2, y2 with 0 <= x1 < x2 <= 1 and "
        f"0 <= y1 < y2 <= 1, not {box!r:.80}"
    )
    if not (_is_sequence(box) and len(box) == 4 and all(map(_is_finite_number, box))):
        raise wrong
    x1, y1, x2, y2 = map(float, box)
    try:
        return cells_of((x1, y1, x2, y2))
    except ValueError:
        raise wrong from None


def _is_sequence(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def _is_finite_number(value: Any) -> bool:
    """Return whether a value is a finite float. JSON integers can be too long to be one."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _bound(task: Task, given: Mapping[str, str]) -> str:
    """Return the question as `Where is<phrase> the fire</phrase><object>...</object>?`."""
    if "phrase" not in given:
        raise MissingField(
            f"task {task.name} has the field 'box' but not 'phrase': add the words of the question "
            "that the box belongs to"
        )
    phrase = given["phrase"]
    before, found, after = given["question"].partition(phrase)
    if not found or phrase in after:
        raise InvalidField(
            f"phrase of task {task.name} must occur in the question exactly once: {phrase!r:.80}"
        )
    return f"{before.rstrip()}{Tag.PHRASE} {phrase}{Tag.END_OF_PHRASE}{given[_BOX]}{after}"
