"""The differences between two answers about the same sample: captions, and boxes matched by IoU."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from kosmos2_core.grounding.grid import XYXY, iou
from pipeline.comparison.pairing import Pair

Change = Literal["same", "moved", "lost", "gained", ""]  # "": a box of the prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class _Labelled:
    """A box of the model, its phrase, and its number among all boxes of the answer."""

    number: int
    phrase: str
    corners: XYXY
    score: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BoxMatch:
    """Two boxes, one of each answer. Equal corners have an `overlap` (IoU) of 1."""

    a: _Labelled
    b: _Labelled
    overlap: float

    @property
    def is_same(self) -> bool:
        return self.a.corners == self.b.corners

    @property
    def is_renamed(self) -> bool:
        return self.a.phrase != self.b.phrase


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The differences within a pair.

    `boxes_a` and `boxes_b` count the boxes of the model; boxes of prompts are not compared.
    `changes_a` and `changes_b` have one item for each box of the row, in the order of its entities.
    """

    pair: Pair
    is_caption_same: bool
    boxes_a: Sequence[_Labelled]
    boxes_b: Sequence[_Labelled]
    matches: Sequence[BoxMatch]
    changes_a: Sequence[Change]
    changes_b: Sequence[Change]

    @property
    def lost(self) -> int:
        return len(self.boxes_a) - len(self.matches)

    @property
    def gained(self) -> int:
        return len(self.boxes_b) - len(self.matches)

    @property
    def is_same(self) -> bool:
        """True if caption and boxes are the same. Scores and flags may differ."""
        boxes = self.lost + self.gained + sum(not match.is_same for match in self.matches)
        return self.is_caption_same and boxes == 0

    @property
    def size(self) -> float:
        """Size of the difference: boxes without a partner, 1 - IoU of the others, and words.

        The share of the words that only one caption has is below 1, so boxes count first.
        """
        boxes = self.lost + self.gained + sum(1 - match.overlap for match in self.matches)
        words = 0.0 if self.is_caption_same else _unlike(self.pair.a, self.pair.b)
        return boxes + words


def compare(pair: Pair, least_iou: float) -> Comparison:
    """Compare the answers of a pair.

    Boxes are matched one to one, the largest IoU first, at equal IoU those with the same phrase.
    Boxes with an IoU below `least_iou` are not matched.
    """
    a, b = _of_model(pair.a), _of_model(pair.b)
    matches = _matches(a, b, least_iou)
    kinds: dict[bool, Change] = {True: "same", False: "moved"}
    return Comparison(
        pair=pair,
        is_caption_same=pair.a["caption"] == pair.b["caption"],
        boxes_a=a,
        boxes_b=b,
        matches=matches,
        changes_a=_changes(pair.a, a, {m.a.number: kinds[m.is_same] for m in matches}, "lost"),
        changes_b=_changes(pair.b, b, {m.b.number: kinds[m.is_same] for m in matches}, "gained"),
    )


def _of_model(row: Mapping[str, Any]) -> list[_Labelled]:
    boxes = ((entity["phrase"], box) for entity in row["entities"] for box in entity["boxes"])
    return [
        _Labelled(
            number=number,
            phrase=phrase,
            corners=(box["x1"], box["y1"], box["x2"], box["y2"]),
            score=box["score"],
        )
        for number, (phrase, box) in enumerate(boxes)
        if box["source"] == "model"
    ]


def _matches(a: Sequence[_Labelled], b: Sequence[_Labelled], least_iou: float) -> list[BoxMatch]:
    found = [
        BoxMatch(a=one, b=other, overlap=overlap)
        for one in a
        for other in b
        if (overlap := _overlap(one.corners, other.corners)) >= least_iou
    ]
    chosen: list[BoxMatch] = []
    taken_a, taken_b = set[int](), set[int]()
    for match in sorted(found, key=lambda match: (-match.overlap, match.is_renamed)):
        if match.a.number not in taken_a and match.b.number not in taken_b:
            chosen.append(match)
            taken_a.add(match.a.number)
            taken_b.add(match.b.number)
    return chosen


def _overlap(a: XYXY, b: XYXY) -> float:
    return 1.0 if a == b else iou(a, b)


def _changes(
    row: Mapping[str, Any], boxes: Sequence[_Labelled], known: Mapping[int, Change], other: Change
) -> list[Change]:
    of_model = {box.number for box in boxes}
    count = sum(len(entity["boxes"]) for entity in row["entities"])
    return [known.get(i, other) if i in of_model else "" for i in range(count)]


def _unlike(a: Mapping[str, Any], b: Mapping[str, Any]) -> float:
    """Return the share of the words that only one of the captions has, in [0, 1)."""
    words, others = set(a["caption"].split()), set(b["caption"].split())
    return len(words ^ others) / (len(words | others) + 1)
