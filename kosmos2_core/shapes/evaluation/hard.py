"""The hard split: frozen scenes on which the checkpoint makes errors, to evaluate its scores.

The scenes have noise, low contrast, occlusion, five or six objects, tiny objects and poor JPEG
quality: see `HARD_WORLD`.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from kosmos2_core.annotation import Annotation
from kosmos2_core.annotator import Annotator
from kosmos2_core.generation import Generation
from kosmos2_core.grounding.grid import RIGHT_IOU, iou
from kosmos2_core.prompts.tasks import BRIEF
from kosmos2_core.shapes.evaluation.roc import Auc, bootstrapped_auc
from kosmos2_core.shapes.world.ranges import HARD_WORLD
from kosmos2_core.shapes.world.scenes import Scene, make_scene
from kosmos2_core.shapes.world.shards import choose_quality, encode_jpeg

_LEAST = 1e-30
_LEAST_IOU = 0.05  # limits the weight of an answer without overlap
SEED, SCENES = 2_000_003, 360  # frozen: a test checks the digest of the scenes


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredBox:
    """One box of a caption.

    `is_box_right` tells whether it matches any object (IoU >= 0.5), `is_entity_right` whether it
    matches an object that its phrase names. `consistency` is NaN if it was not computed.
    """

    scene: int
    score: float
    logp: float
    phrase_logprob: float
    consistency: float
    is_box_right: bool
    is_entity_right: bool


def together(box: ScoredBox) -> float:
    """Return the logarithm of the joint score of box and phrase; the logarithm avoids underflow."""
    return math.log(max(box.score, _LEAST)) + box.phrase_logprob


_SCORES: dict[str, Callable[[ScoredBox], float]] = {
    "score": lambda box: box.score,
    "logp": lambda box: box.logp,
    "phrase_logprob": lambda box: box.phrase_logprob,
    "consistency": lambda box: box.consistency,
    "score x phrase": together,
    "score x phrase x consistency": lambda box: (
        together(box) + math.log(max(box.consistency, _LEAST_IOU))
    ),
}
_TRUTHS: dict[str, Callable[[ScoredBox], bool]] = {
    "entity right": lambda box: box.is_entity_right,
    "box right": lambda box: box.is_box_right,
}


def scored_boxes(directory: Path | str, scenes: int = SCENES) -> list[ScoredBox]:
    """Annotate the hard scenes from JPEG bytes, with `verify_boxes`, and judge each box."""
    annotator = Annotator.from_pretrained(
        str(directory), device="cpu", generation=Generation(verify_boxes=True)
    )
    return [
        box
        for index, (scene, said) in enumerate(hard_captions(annotator, scenes))
        for box in judged_boxes(index, scene, said)
    ]


def hard_captions(annotator: Annotator, scenes: int = SCENES) -> Iterator[tuple[Scene, Annotation]]:
    """Yield the hard scenes with their brief captions."""
    seen = [make_scene(SEED, index, world=HARD_WORLD) for index in range(scenes)]
    jpegs = (
        encode_jpeg(scene, choose_quality(SEED, index, HARD_WORLD))
        for index, scene in enumerate(seen)
    )
    return zip(seen, annotator.annotate(jpegs, BRIEF), strict=True)


def judged_boxes(index: int, scene: Scene, said: Annotation) -> Iterator[ScoredBox]:
    """Compare each box of a caption with the objects of its scene."""
    for entity in said.entities:
        named = dict(scene.entities).get(entity.phrase, ())
        for box in entity.boxes:
            assert box.score is not None
            assert box.logp is not None
            assert entity.phrase_logprob is not None
            yield ScoredBox(
                scene=index,
                score=box.score,
                logp=box.logp,
                phrase_logprob=entity.phrase_logprob,
                consistency=math.nan if box.consistency is None else box.consistency,
                is_box_right=any(iou(box.xyxy, item.box) >= RIGHT_IOU for item in scene.objects),
                is_entity_right=any(iou(box.xyxy, truth) >= RIGHT_IOU for truth in named),
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Discrimination:
    """How well `score` predicts `truth`, which does not hold for `wrong` of the `boxes`."""

    truth: str
    score: str
    auc: Auc
    boxes: int
    wrong: int


def discrimination(boxes: Sequence[ScoredBox]) -> list[Discrimination]:
    """Compute the ROC-AUC of each score for each truth."""
    return [
        Discrimination(
            truth=truth,
            score=name,
            auc=bootstrapped_auc(
                [score(box) for box in boxes],
                [is_right(box) for box in boxes],
                [box.scene for box in boxes],
            ),
            boxes=len(boxes),
            wrong=sum(not is_right(box) for box in boxes),
        )
        for truth, is_right in _TRUTHS.items()
        for name, score in _SCORES.items()
    ]


def auc_table(boxes: Sequence[ScoredBox]) -> str:
    """Return a table of the ROC-AUC of each score for each truth, with 95 % intervals."""
    lines = [f"hard split, ROC-AUC [95 % interval]: {len(boxes)} boxes"]
    for row in discrimination(boxes):
        auc = f"{row.auc.value:.3f}  [{row.auc.low:.3f}, {row.auc.high:.3f}]"
        lines.append(f"{row.truth:<13} ({row.wrong} are not)  {row.score:<29} {auc}")
    return "\n".join(lines)
