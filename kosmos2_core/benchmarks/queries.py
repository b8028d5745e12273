"""Read MDETR's annotation files: phrases to ground in each image, with the true boxes.

The files are COCO files in which an "image" is an image file with one caption. In Flickr30k
Entities (`final_flickr_separateGT_*.json`) each phrase of the caption is a query, with the words
before it as context. In RefCOCO, RefCOCO+ and RefCOCOg (`finetune_refcoco*.json`) the caption is
one referring expression.
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

# The prompt of the benchmark's authors: the caption up to the phrase, then the phrase.
GROUND_NEXT = Task(
    name="ground-next",
    prompt="<grounding>{before}<phrase> {phrase}</phrase>",
    max_new_tokens=GROUND.max_new_tokens,
    is_done_with_boxes=True,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A phrase to ground in an image.

    `before` is the caption before the phrase. `truth` holds the accepted boxes: xyxy, normalised
    to [0, 1], origin top left.
    """

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
    """Return a query per phrase with a box. Raises OSError, ValueError for another kind of file."""
    return _queries(path, _phrases)


def refcoco_queries(path: Path) -> list[Query]:
    """Return a query per annotation. Raises OSError, ValueError for another kind of file."""
    return _queries(path, _expressions)


def by_image(queries: Iterable[Query]) -> dict[str, list[Query]]:
    """Group queries by image file, so that an image is encoded once for all its queries."""
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
            f"{path} is not an annotation file of MDETR ({type(error).__name__}: {error}); "
            "check the name"
        ) from error
    if not found:
        raise ValueError(f"no phrase in {path} has a box; check the name")
    return found


def _phrases(image: _Record, annotations: list[_Record]) -> Iterator[Query]:
    caption: str = image["caption"]
    spans = image.get("tokens_positive_eval")
    if spans is None:
        spans = [annotation["tokens_positive"] for annotation in annotations]
    for start, end in dict.fromkeys(tuple(span[0]) for span in spans):
        if not 0 <= start < end <= len(caption):
            raise ValueError(f"{start}..{end} is not a span of the caption {caption!r}")
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
    """Convert the annotation's box from x, y, width, height in pixels."""
    x, y, width, height = map(float, annotation["bbox"])
    if width <= 0 or height <= 0:
        raise ValueError(f"the box {annotation['bbox']} has no area")
    across, down = image["width"], image["height"]
    return x / across, y / down, (x + width) / across, (y + height) / down
