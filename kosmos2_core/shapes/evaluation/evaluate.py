"""Evaluate a shapes checkpoint on scenes that are not in the training data.

`python -m kosmos2_core.shapes.evaluation.evaluate DIR --scenes 1500` prints the table.
"""

import argparse
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from statistics import fmean

import numpy as np

from kosmos2_core.annotation import Grounding
from kosmos2_core.checkpoint.load import load_checkpoint
from kosmos2_core.engine.engine import Engine
from kosmos2_core.engine.requests import Prompt, Request
from kosmos2_core.errors import CheckpointError
from kosmos2_core.generation import Generation
from kosmos2_core.grounding.grid import CELLS
from kosmos2_core.grounding.parser import parse_tokens
from kosmos2_core.grounding.scores import TokenScores
from kosmos2_core.images.decode import decode_image
from kosmos2_core.shapes.evaluation.scoring import Judged, is_same_answer, judge
from kosmos2_core.shapes.world.exercises import OTHER_SKILLS, Exercise, Skill, caption, exercises
from kosmos2_core.shapes.world.ranges import MAX_OBJECTS, WIDE_WORLD
from kosmos2_core.shapes.world.scenes import Scene
from kosmos2_core.shapes.world.shards import choose_quality, encode_jpeg, make_scene
from kosmos2_core.shapes.world.tokens import image_prefix, shapes_ids

_SEED = 1_000_003  # training uses small seeds
_CHOICE_STREAM = 3  # random stream for the choice of questions, separate from the scene's
_SMALL_SIDE = 0.16  # share of the image's side
_SLOTS = 48
_MAX_ANSWER = 160  # tokens; six objects take about 65


@dataclass(frozen=True, slots=True, kw_only=True)
class _AnsweredExercise:
    """A scene without its pixels, an exercise on it, and the checkpoint's answer."""

    scene: Scene
    exercise: Exercise
    truth: Grounding
    said: Grounding


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The results of an evaluation.

    `judged` has every object of every scene. `is_caption_exact` has a flag per scene, by number of
    objects. `skills` has a flag per exercise, true for a correct answer.
    """

    judged: list[Judged] = field(default_factory=list)
    is_caption_exact: dict[int, list[bool]] = field(default_factory=lambda: defaultdict(list))
    skills: dict[Skill, list[bool]] = field(default_factory=lambda: defaultdict(list))

    def add(self, answered: _AnsweredExercise) -> None:
        scene, said = answered.scene, answered.said
        if answered.exercise.skill == Skill.BRIEF:
            self.judged.extend(judge(scene, said.entities))
            is_clean = bool(scene.objects) or not said.entities
            is_exact = said.caption == scene.caption and is_clean
            self.is_caption_exact[len(scene.objects)].append(is_exact)
        self.skills[answered.exercise.skill].append(is_same_answer(answered.truth, said))


def evaluate_checkpoint(directory: Path | str, scenes: int) -> Result:
    """Evaluate all skills on scenes 0 .. `scenes` - 1 of the wide world reserved for evaluation.

    Raises CheckpointError for a checkpoint with another vocabulary.
    """
    result = Result()
    for answered in _answers(directory, scenes):
        result.add(answered)
    return result


def _answers(directory: Path | str, scenes: int) -> Iterator[_AnsweredExercise]:
    """Yield answers as they complete: JPEG bytes -> pixels -> engine, greedy -> parser."""
    checkpoint = load_checkpoint(str(directory), device="cpu")
    if len(checkpoint.tokenizer) != shapes_ids().first_location + CELLS:
        raise CheckpointError(
            f"the checkpoint {directory} does not have the vocabulary of the shapes world; use "
            "`shapes` or a checkpoint that kosmos2_core.shapes.train made"
        )
    asked: dict[Hashable, tuple[Scene, list[Exercise]]] = {}

    def requests() -> Iterator[Request]:
        for index in range(scenes):
            scene = make_scene(_SEED, index, world=WIDE_WORLD)
            exercises_of_scene = _ask(scene, index)
            asked[index] = (replace(scene, pixels=scene.pixels[:0].copy()), exercises_of_scene)
            jpeg = encode_jpeg(scene, choose_quality(_SEED, index, WIDE_WORLD))
            yield Request(
                id=index,
                pixels=decode_image(jpeg).pixels,
                prompts=tuple(map(_prompt, exercises_of_scene)),
            )

    for completion in Engine(checkpoint, Generation(slots=_SLOTS)).generate(requests()):
        scene, of_scene = asked[completion.request_id]
        exercise = of_scene[completion.index]
        read = partial(parse_tokens, checkpoint.vocabulary, exercise.prompt_ids)
        blank = TokenScores.uniform(len(exercise.target_ids))
        yield _AnsweredExercise(
            scene=scene,
            exercise=exercise,
            truth=read(exercise.target_ids, blank),
            said=read(completion.token_ids, completion.scores),
        )


def _prompt(exercise: Exercise) -> Prompt:
    return Prompt(
        task=exercise.skill,
        ids=(*image_prefix(), *exercise.prompt_ids),
        max_new_tokens=_MAX_ANSWER,
    )


def _ask(scene: Scene, index: int) -> list[Exercise]:
    """Return the brief caption, another caption, and an exercise per skill that is possible."""
    rng = np.random.default_rng([_SEED, index, _CHOICE_STREAM])
    others = (Skill.DETAILED, Skill.PLAIN_BRIEF, Skill.PLAIN_DETAILED)
    asked = [caption(scene, Skill.BRIEF), caption(scene, others[index % len(others)])]
    for skill in OTHER_SKILLS:
        if found := exercises(scene, skill):
            asked.append(found[rng.integers(len(found))])
    return asked


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A share or a mean of `of` values."""

    name: str
    value: float
    of: int


def figures(result: Result) -> list[Figure]:
    """Return the figures of the table, in its order."""
    shares = [
        Figure(name=name, value=fmean(found), of=len(found))
        for name, found in _rows(result)
        if found
    ]
    if not result.judged:
        return shares
    mean = fmean(item.iou for item in result.judged)
    ceiling = fmean(item.ceiling for item in result.judged)
    number = len(result.judged)
    return [
        *shares,
        Figure(name="mean IoU", value=mean, of=number),
        Figure(name="mean IoU, of what the grid allows", value=mean / ceiling, of=number),
    ]


def figures_table(result: Result) -> str:
    """Return one line per figure: name, value, number of values."""
    return "\n".join(
        f"{figure.name:<36} {figure.value:.4f}  {figure.of:>5}" for figure in figures(result)
    )


def _rows(result: Result) -> Iterator[tuple[str, list[bool]]]:
    for low, high in ((1, 2), (3, 4), (5, MAX_OBJECTS)):
        among = [item for item in result.judged if low <= item.objects_in_scene <= high]
        yield f"objects right, {low}-{high}", _right(among)
    yield "objects right, small (8-16 %)", _right(i for i in result.judged if i.side <= _SMALL_SIDE)
    yield "objects right, two of one kind", _right(i for i in result.judged if i.is_one_of_two)
    yield "empty scenes", result.is_caption_exact.get(0, [])
    yield "captions exact", list(chain.from_iterable(result.is_caption_exact.values()))
    for skill in Skill:
        yield skill.replace("_", " "), result.skills.get(skill, [])


def _right(judged: Iterable[Judged]) -> list[bool]:
    return [item.is_right for item in judged]


def brief_line(result: Result) -> str:
    """Return the table on one line, without the counts."""
    return "check: " + "; ".join(f"{f.name} {f.value:.3f}" for f in figures(result))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Evaluate a shapes checkpoint on unseen scenes.")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--scenes", type=int, default=1500)
    options = parser.parse_args(arguments)
    print(figures_table(evaluate_checkpoint(options.checkpoint, options.scenes)))


if __name__ == "__main__":
    main()
