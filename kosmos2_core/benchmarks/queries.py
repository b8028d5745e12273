"""MDETR's annotation files: what is asked of each image, and where the answer is.

They are COCO files in which an "image" is a file with one caption. In those of Flickr30k
Entities (`final_flickr_separateGT_*.json`) each phrase of the caption is asked for, after the
words before it; in those of RefCOCO, RefCOCO+ and RefCOCOg (`finetune_refcoco*.json`) the caption
is one referring expression.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kosmos2_core.grounding.grid import XYXY
from kosmos2_core.prompts.tasks import GROUND, Task
from kosmos2_core.prompts.text import PromptFields

# As the benchmark's authors asked: the caption up to the phrase, then the phrase.
GROUND_NEXT = Task(
    name="ground-next",
    prompt="<grounding>{before}<phrase> {phrase}</phrase>",
    max_new_tokens=GROUND.max_new_tokens,
    is_done_with_boxes=True,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """`truth` are the boxes that would do, normalised; `before` what the caption says first."""

    file_name: str
    before: str
    phrase: str
    truth: tuple[XYXY, ...]

    @property
    def task(self) -> Task:
        return GROUND_NEXT if self.before else GROUND

    @property
    def fields(self) -> PromptFields:
        return {"phrase": self.phrase, **({"before": self.before} if self.before else {})}


def flickr30k_queries(path: Path) -> list[Query]:
    """A query per phrase that has a box. Raises ValueError for another kind of file, OSError."""
    return _queries(path, _phrases)


def refcoco_queries(path: Path) -> list[Query]:
    """A query per annotation. Raises ValueError for another kind of file, OSError."""
    return _queries(path, _expressions)


def by_image(queries: Iterable[Query]) -> dict[str, list[Query]]:
    """Group queries by their file: those of one image share the work on it."""
    groups: dict[str, list[Query]] = defaultdict(list)
    for query in queries:
        groups[query.file_name].append(query)
    return dict(groups)


_Record = Mapping[str, Any]


def _queries(path: Path, of_image: Any) -> list[Query]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        boxes: dict[Any, list[_Record]] = defaultdict(list)
        for annotation in content["annotations"]:
            boxes[annotation["image_id"]].append(annotation)
        found = [q for image in content["images"] for q in of_image(image, boxes[image["id"]])]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise ValueError(
            f"{path}: not an annotation file of MDETR's ({type(error).__name__}: {error}); "
            "check the name"
        ) from error
    if not found:
        raise ValueError(f"{path}: no phrase in it has a box; check the name")
    return found


def _phrases(image: _Record, annotations: list[_Record]) -> Iterator[Query]:
    caption: str = image["caption"]
    spans = image.get("tokens_positive_eval")
    if spans is None:
        spans = [annotation["tokens_positive"] for annotation in annotations]
    for start, end in dict.fromkeys(tuple(span[0]) for span in spans):
        if not 0 <= start < end <= len(caption):
            raise ValueError(f"{start}..{end} is no phrase of {caption!r}")
        truth = tuple(
            _box(image, annotation)
            for annotation in annotations
            if [start, end] in annotation["tokens_positive"]
        )
        if truth:
            phrase, before = caption[start:end].strip(), caption[:start].strip()
            yield Query(file_name=image["file_name"], before=before, phrase=phrase, truth=truth)


def _expressions(image: _Record, annotations: list[_Record]) -> Iterator[Query]:
    for annotation in annotations:
        yield Query(
            file_name=image["file_name"],
            before="",
            phrase=image["caption"].strip(),
            truth=(_box(image, annotation),),
        )


def _box(image: _Record, annotation: _Record) -> XYXY:
    """From x, y, width, height in pixels."""
    x, y, width, height = map(float, annotation["bbox"])
    if width <= 0 or height <= 0:
        raise ValueError(f"no area: {annotation['bbox']}")
    across, down = image["width"], image["height"]
    return x / across, y / down, (x + width) / across, (y + height) / down
