"""How good a shapes checkpoint is on scenes that it never saw.

`python -m kosmos2_core.shapes.evaluate DIR --scenes 1500` prints the table.
"""

import argparse
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from numpy.typing import NDArray
from transformers.utils.logging import disable_progress_bar

from kosmos2_core.annotator import Annotator
from kosmos2_core.checkpoint import Checkpoint, load_checkpoint
from kosmos2_core.grounding import TokenScore, parse_tokens
from kosmos2_core.huggingface import embed_images
from kosmos2_core.images import decode_image
from kosmos2_core.shapes.exercises import OTHER_SKILLS, Exercise, Skill, caption, exercises
from kosmos2_core.shapes.ranges import MAX_OBJECTS, WIDE, Range
from kosmos2_core.shapes.scenes import Scene
from kosmos2_core.shapes.scoring import Judged, is_same_answer, judge
from kosmos2_core.shapes.tokens import EOS, IMAGE_TOKENS, image_prefix
from kosmos2_core.shapes.world import choose_quality, encode_jpeg, make_scene
from kosmos2_core.tasks import BRIEF

SEED = 1_000_003  # training uses small seeds
CHOICE_STREAM = 3  # keeps the choice of questions apart from the scene's own random stream
SMALL = 0.16  # of the side
BATCH = 48
MAX_ANSWER = 160  # tokens; six objects take about 65


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """`judged`: every object of every scene; `is_caption_exact`: of scenes, by their number of
    objects; `skills`: whether each exercise was answered rightly."""

    judged: list[Judged]
    is_caption_exact: dict[int, list[bool]]
    skills: dict[Skill, list[bool]]


def evaluate(directory: Path | str, scenes: int, world: Range = WIDE) -> Result:
    """Through the public path: JPEG bytes -> decoded picture -> `Annotator`, greedy."""
    annotator = Annotator(load_checkpoint(str(directory), device="cpu"), slots=BATCH)
    judged: list[Judged] = []
    exact: dict[int, list[bool]] = defaultdict(list)
    skills: dict[Skill, list[bool]] = defaultdict(list)
    for start in range(0, scenes, BATCH):
        indices = range(start, min(start + BATCH, scenes))
        seen = [make_scene(SEED, index, world=world) for index in indices]
        pixels = np.stack([_pixels(*pair, world) for pair in zip(indices, seen, strict=True)])
        for scene, (annotation,) in zip(
            seen, annotator.annotate_pixels(pixels, [BRIEF]), strict=True
        ):
            is_clean = bool(scene.objects) or not annotation.entities
            judged += judge(scene, annotation.entities)
            exact[len(scene.objects)].append(annotation.caption == scene.caption and is_clean)
        asked = [_ask(*pair) for pair in zip(indices, seen, strict=True)]
        for skill, is_right in _answer(annotator.checkpoint, pixels, asked):
            skills[skill].append(is_right)
    return Result(judged=judged, is_caption_exact=dict(exact), skills=dict(skills))


def _pixels(index: int, scene: Scene, world: Range) -> NDArray[np.uint8]:
    return decode_image(encode_jpeg(scene, choose_quality(SEED, index, world))).pixels


def _ask(index: int, scene: Scene) -> list[Exercise]:
    """One exercise of each skill that the scene allows, and one other caption."""
    rng = np.random.default_rng([SEED, index, CHOICE_STREAM])
    captions = (Skill.DETAILED, Skill.PLAIN_BRIEF, Skill.PLAIN_DETAILED)
    asked = [caption(scene, captions[index % len(captions)])]
    for skill in OTHER_SKILLS:
        if found := exercises(scene, skill):
            asked.append(found[rng.integers(len(found))])
    return asked


def _answer(
    checkpoint: Checkpoint, pixels: NDArray[np.uint8], asked: Sequence[Sequence[Exercise]]
) -> Iterator[tuple[Skill, bool]]:
    """Prompts of one length at a time: nothing is padded."""
    embeds = embed_images(checkpoint, pixels)
    groups: dict[int, list[tuple[int, Exercise]]] = defaultdict(list)
    for image, questions in enumerate(asked):
        for exercise in questions:
            groups[len(exercise.prompt_ids)].append((image, exercise))
    for group in groups.values():
        for start in range(0, len(group), BATCH):
            part = group[start : start + BATCH]
            images = [image for image, _ in part]
            ids = [[*image_prefix(), *exercise.prompt_ids] for _, exercise in part]
            answers = _generate(checkpoint, embeds[images], torch.tensor(ids))
            for (_, exercise), tokens in zip(part, answers, strict=True):
                yield exercise.skill, _is_right(checkpoint, exercise, tokens)


@torch.inference_mode()
def _generate(checkpoint: Checkpoint, embeds: torch.Tensor, ids: torch.Tensor) -> list[list[int]]:
    """ids [B, T] -> the tokens said, end of sequence included."""
    places = torch.zeros_like(ids)
    places[:, 2 : 2 + IMAGE_TOKENS] = 1
    sequences = checkpoint.model.text_model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        image_embeds=embeds,
        image_embeds_position_mask=places,
        max_new_tokens=MAX_ANSWER,
        no_repeat_ngram_size=checkpoint.no_repeat_ngram_size,
        do_sample=False,
        num_beams=1,
        use_cache=True,
    )
    return [_until_end(row) for row in sequences[:, ids.shape[1] :].tolist()]


def _until_end(tokens: list[int]) -> list[int]:
    return tokens[: tokens.index(EOS) + 1] if EOS in tokens else tokens


def _is_right(checkpoint: Checkpoint, exercise: Exercise, tokens: Sequence[int]) -> bool:
    truth, said = (
        parse_tokens(
            checkpoint.vocabulary,
            exercise.prompt_ids,
            ids,
            [TokenScore(logprob=0.0)] * len(ids),
        )
        for ids in (exercise.target_ids, tokens)
    )
    return is_same_answer(truth, said)


def table(result: Result) -> str:
    """One line per figure: name, value, how many."""
    lines = [f"{name:<32} {_share(found)}" for name, found in _rows(result)]
    if result.judged:
        mean = fmean(item.iou for item in result.judged)
        ceiling = fmean(item.ceiling for item in result.judged)
        of_ceiling = f"{mean / ceiling:.4f} of the grid's {ceiling:.4f}"
        lines.append(f"{'mean IoU':<32} {mean:.4f}  {of_ceiling}")
    return "\n".join(lines)


def _rows(result: Result) -> Iterator[tuple[str, list[bool]]]:
    for low, high in ((1, 2), (3, 4), (5, MAX_OBJECTS)):
        among = [item for item in result.judged if low <= item.objects_in_scene <= high]
        yield f"objects right, {low}-{high}", _right(among)
    small = [item for item in result.judged if item.side <= SMALL]
    yield "objects right, small (8-16 %)", _right(small)
    yield "empty scenes", result.is_caption_exact.get(0, [])
    yield "captions exact", list(chain.from_iterable(result.is_caption_exact.values()))
    for skill in Skill:
        if skill in result.skills:
            yield skill.replace("_", " "), result.skills[skill]


def _right(judged: Iterable[Judged]) -> list[bool]:
    return [item.is_right for item in judged]


def _share(found: Sequence[bool]) -> str:
    return f"{fmean(found):.4f}  ({sum(found)}/{len(found)})" if found else "-"


def brief_line(result: Result) -> str:
    """The table on one line, without the counts."""
    return "check: " + "; ".join(
        f"{name} {fmean(found):.2f}" for name, found in _rows(result) if found
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Evaluate a shapes checkpoint on unseen scenes.")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--scenes", type=int, default=1500)
    options = parser.parse_args(arguments)
    disable_progress_bar()
    print(table(evaluate(options.checkpoint, options.scenes)))


if __name__ == "__main__":
    main()
