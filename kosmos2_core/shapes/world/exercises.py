"""Exercises on a scene, as token ids: the prompts and answers that the checkpoint is trained on.

The prompts are those of the model card, one family for each of its tasks. Ambiguous questions (no
such object, several objects, unclear sides) are left out.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import permutations

import numpy as np

from kosmos2_core.grounding.grid import XYXY, cells_of
from kosmos2_core.prompts.tasks import (
    ASK,
    ASK_GROUNDED,
    BRIEF,
    DESCRIBE,
    DETAILED,
    GROUND,
    PLAIN,
    PLAIN_DETAILED,
)
from kosmos2_core.shapes.world.painting import INSIDE
from kosmos2_core.shapes.world.scenes import PhraseBoxes, Scene, SceneObject
from kosmos2_core.shapes.world.tokens import EOS, shapes_ids
from kosmos2_core.shapes.world.wording import EMPTY, NUMBERS, plural, with_article

DETAILED_START = "The image features"
SIDE_MARGIN = 0.06  # least distance of centres for left and right to be clear


class Skill(StrEnum):
    """The kinds of exercises."""

    BRIEF = "brief"
    DETAILED = "detailed"
    PLAIN_BRIEF = "plain_brief"
    PLAIN_DETAILED = "plain_detailed"
    PHRASE_GROUNDING = "phrase_grounding"
    COMPREHENSION = "comprehension"
    GENERATION = "generation"
    GROUNDED_QUESTION = "grounded_question"
    KIND_QUESTION = "kind_question"
    COUNT_QUESTION = "count_question"
    SIDE_QUESTION = "side_question"
    BOX_QUESTION = "box_question"


_CAPTIONS = {
    Skill.BRIEF: BRIEF,
    Skill.DETAILED: DETAILED,
    Skill.PLAIN_BRIEF: PLAIN,
    Skill.PLAIN_DETAILED: PLAIN_DETAILED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Exercise:
    """A prompt and its answer.

    `prompt_ids` follow `</image>`. `target_ids` end with the end of sequence.
    """

    skill: Skill
    prompt: str
    prompt_ids: tuple[int, ...]
    target_ids: tuple[int, ...]


def caption(scene: Scene, skill: Skill) -> Exercise:
    """Return a caption exercise; `skill` is one of the four kinds of caption."""
    is_detailed = skill in (Skill.DETAILED, Skill.PLAIN_DETAILED)
    is_grounded = skill in (Skill.BRIEF, Skill.DETAILED)
    start = shapes_ids().said(DETAILED_START) if is_detailed else []
    listed = _enumerated(scene.entities, is_grounded)
    return _exercise(skill, _CAPTIONS[skill].prompt, start + listed)


def exercises(scene: Scene, skill: Skill) -> list[Exercise]:
    """Return all exercises of a skill that are possible for the scene."""
    maker = _MAKERS.get(skill)
    return maker(scene) if maker else [caption(scene, skill)]


def choose_exercises(
    rng: np.random.Generator, scene: Scene, captions: Sequence[Skill], others: int, drills: int
) -> list[Exercise]:
    """Choose exercises: the captions asked for, up to `others` of different skills, and drills.

    Each of the `drills` rounds has the exercises that are learnt last: two questions about sides
    and a phrase for several objects.
    """
    chosen = [caption(scene, skill) for skill in captions]
    makers = [_MAKERS[OTHER_SKILLS[at]] for at in rng.permutation(len(OTHER_SKILLS))]
    able = [maker for maker in makers if maker(scene)]
    for maker in [*able[:others], *_DRILLS * drills]:
        if found := maker(scene):
            chosen.append(found[rng.integers(len(found))])
    return chosen


def _exercise(skill: Skill, prompt: str, said: list[int]) -> Exercise:
    return Exercise(
        skill=skill,
        prompt=prompt,
        prompt_ids=tuple(shapes_ids().prompt(prompt)),
        target_ids=(*said, EOS),
    )


def _enumerated(entities: Sequence[PhraseBoxes], is_grounded: bool) -> list[int]:
    """Return the ids of "X, Y and Z." with or without tags and boxes."""
    ids = shapes_ids()
    if not entities:
        return ids.said(f"{EMPTY}.")
    said: list[int] = []
    for at, entity in enumerate(entities):
        if at:
            said += ids.said(" and" if at == len(entities) - 1 else ",")
        phrase, boxes = entity
        said += ids.phrase(phrase) + ids.objects(boxes) if is_grounded else ids.said(phrase)
    return said + ids.said(".")


def _phrase_grounding(scene: Scene) -> list[Exercise]:
    entities = [_locate(Skill.PHRASE_GROUNDING, *entity) for entity in scene.entities]
    return entities + _group_grounding(scene)


def _group_grounding(scene: Scene) -> list[Exercise]:
    """Ground all objects of a shape, if there are several."""
    return [
        _locate(Skill.PHRASE_GROUNDING, f"the {plural(shape)}", alike)
        for shape in INSIDE
        if len(alike := tuple(item.box for item in scene.objects if item.shape == shape)) > 1
    ]


def _locate(skill: Skill, phrase: str, boxes: tuple[XYXY, ...]) -> Exercise:
    return _exercise(skill, GROUND.prompt.format(phrase=phrase), shapes_ids().objects(boxes))


def _comprehension(scene: Scene) -> list[Exercise]:
    """Ground expressions for one object: by unique colour, unique shape or side."""
    asked = [(f"the {item.shape}", item) for item in _with_only(scene, "shape")]
    asked += [(f"the {item.colour} object", item) for item in _with_only(scene, "colour")]
    for pair in _pairs(scene):
        left, right = pair
        asked += [(f"the left {left.colour} {left.shape}", left)]
        asked += [(f"the right {left.colour} {left.shape}", right)]
    asked += _outermost(scene)
    return [_locate(Skill.COMPREHENSION, phrase, (item.box,)) for phrase, item in asked]


def _outermost(scene: Scene) -> list[tuple[str, SceneObject]]:
    """Return the leftmost and the rightmost object, if they are clear."""
    items = scene.objects
    found = []
    if len(items) > 1 and all(_is_left(items[0], other) for other in items[1:]):
        found.append(("the leftmost object", items[0]))
    if len(items) > 1 and all(_is_left(other, items[-1]) for other in items[:-1]):
        found.append(("the rightmost object", items[-1]))
    return found


def _generation(scene: Scene) -> list[Exercise]:
    return [
        _exercise(
            Skill.GENERATION,
            DESCRIBE.prompt.format(box=_markup(item.box)),
            shapes_ids().said(f"{_single(item)}."),
        )
        for item in scene.objects
    ]


def _box_questions(scene: Scene) -> list[Exercise]:
    asked = []
    for item in scene.objects:
        this = f"<phrase> this</phrase>{_markup(item.box)}"
        asked += [
            (f"What is{this}?", f"{_single(item)}."),
            (f"What colour is{this}?", f"{item.colour}."),
            (f"What shape is{this}?", f"{with_article(item.shape)}."),
        ]
    return [
        _exercise(
            Skill.BOX_QUESTION,
            ASK_GROUNDED.prompt.format(question=question),
            shapes_ids().said(answer),
        )
        for question, answer in asked
    ]


def _grounded_questions(scene: Scene) -> list[Exercise]:
    """Ask questions that are answered by grounded phrases."""
    asked = [(f"What is the {item.colour} object?", item) for item in _with_only(scene, "colour")]
    asked += [(f"Which object is a {item.shape}?", item) for item in _with_only(scene, "shape")]
    asked += [(f"Which is {phrase}?", item) for phrase, item in _outermost(scene)]
    answers = [(question, [(_single(item), (item.box,))]) for question, item in asked]
    return [
        _exercise(
            Skill.GROUNDED_QUESTION,
            ASK_GROUNDED.prompt.format(question=question),
            _enumerated(entities, True),
        )
        for question, entities in [*answers, ("What is in this image?", scene.entities)]
    ]


def _kind_questions(scene: Scene) -> list[Exercise]:
    asked = [
        (f"What colour is the {item.shape}?", item.colour) for item in _with_only(scene, "shape")
    ]
    asked += [
        (f"What shape is the {item.colour} object?", with_article(item.shape))
        for item in _with_only(scene, "colour")
    ]
    return [_question(Skill.KIND_QUESTION, *pair) for pair in asked]


def _count_questions(scene: Scene) -> list[Exercise]:
    number = NUMBERS[len(scene.objects)]
    return [_question(Skill.COUNT_QUESTION, "How many objects are there?", number)]


def _side_questions(scene: Scene) -> list[Exercise]:
    """Ask whether one object is left or right of another, both unique in their kind."""
    asked = []
    for left, right in permutations(scene.objects, 2):
        if left.phrase == right.phrase or not _is_left(left, right):
            continue
        if any(item.phrase.startswith(NUMBERS[2]) for item in (left, right)):
            continue
        one, other = (f"the {item.colour} {item.shape}" for item in (left, right))
        asked += [
            (f"Is {one} left of {other}?", "yes"),
            (f"Is {one} right of {other}?", "no"),
            (f"Is {other} left of {one}?", "no"),
            (f"Is {other} right of {one}?", "yes"),
        ]
    return [_question(Skill.SIDE_QUESTION, *pair) for pair in asked]


def _question(skill: Skill, question: str, answer: str) -> Exercise:
    return _exercise(skill, ASK.prompt.format(question=question), shapes_ids().said(f"{answer}."))


def _with_only(scene: Scene, attribute: str) -> list[SceneObject]:
    """Return the objects with a unique value of an attribute."""
    return [
        item for item in scene.objects if _number(scene, attribute, getattr(item, attribute)) == 1
    ]


def _number(scene: Scene, attribute: str, value: str) -> int:
    return sum(getattr(item, attribute) == value for item in scene.objects)


def _pairs(scene: Scene) -> list[tuple[SceneObject, SceneObject]]:
    """Return the two objects of one kind, the left one first."""
    alike = [item for item in scene.objects if item.phrase.startswith(NUMBERS[2])]
    return [(alike[0], alike[1])] if len(alike) == 2 and _is_left(*alike) else []


def _is_left(a: SceneObject, b: SceneObject) -> bool:
    """Return whether `a` is left of `b` by both edges and, with a margin, by the centre."""
    is_clear = b.box[0] + b.box[2] - a.box[0] - a.box[2] > 2 * SIDE_MARGIN
    return is_clear and a.box[0] < b.box[0] and a.box[2] < b.box[2]


def _single(item: SceneObject) -> str:
    return with_article(f"{item.colour} {item.shape}")


def _markup(box: XYXY) -> str:
    return "<object>{}</object>".format(
        "".join(f"<patch_index_{cell:04d}>" for cell in cells_of(box))
    )


_MAKERS: dict[Skill, Callable[[Scene], list[Exercise]]] = {
    Skill.PHRASE_GROUNDING: _phrase_grounding,
    Skill.COMPREHENSION: _comprehension,
    Skill.GENERATION: _generation,
    Skill.GROUNDED_QUESTION: _grounded_questions,
    Skill.KIND_QUESTION: _kind_questions,
    Skill.COUNT_QUESTION: _count_questions,
    Skill.SIDE_QUESTION: _side_questions,
    Skill.BOX_QUESTION: _box_questions,
}
OTHER_SKILLS = tuple(_MAKERS)
_DRILLS = (_side_questions, _side_questions, _group_grounding)
