"""Compare n-gram bans and grammars on the captions of the hard split."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kosmos2_core.annotation import MARKUP_ISSUES
from kosmos2_core.annotator import Annotator
from kosmos2_core.generation import Generation
from kosmos2_core.shapes.evaluation.hard import SCENES, hard_captions, judged_boxes

SAMPLINGS = {
    "no ban": Generation(no_repeat_ngram_size=0),
    "strict grammar": Generation(no_repeat_ngram_size=0, grammar="strict"),
    "trigram ban, reference": Generation(no_repeat_ngram_size=3),
    "trigram ban, text": Generation(no_repeat_ngram_size=3, ngram_mode="text"),
    "trigram ban, strict grammar": Generation(no_repeat_ngram_size=3, grammar="strict"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingOutcome:
    """Counts for one sampling over all scenes.

    `right` of the `boxes` match an object that their phrase names. `malformed` captions have an
    issue of their markup. The scenes have `objects` objects.
    """

    sampling: str
    objects: int
    boxes: int
    right: int
    malformed: int


def outcomes(directory: Path | str, scenes: int = SCENES) -> Iterator[SamplingOutcome]:
    """Yield the outcome of each sampling."""
    for sampling, generation in SAMPLINGS.items():
        annotator = Annotator.from_pretrained(str(directory), device="cpu", generation=generation)
        said = list(hard_captions(annotator, scenes))
        boxes = [box for index, pair in enumerate(said) for box in judged_boxes(index, *pair)]
        yield SamplingOutcome(
            sampling=sampling,
            objects=sum(len(scene.objects) for scene, _ in said),
            boxes=len(boxes),
            right=sum(box.is_entity_right for box in boxes),
            malformed=sum(bool(MARKUP_ISSUES & {*annotation.issues}) for _, annotation in said),
        )


def line(outcome: SamplingOutcome) -> str:
    """Return an outcome as a line of text."""
    return (
        f"{outcome.sampling:<29} {outcome.boxes} boxes for {outcome.objects} objects, "
        f"{outcome.right} right, {outcome.malformed} captions malformed"
    )
