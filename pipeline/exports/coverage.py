"""Counts of an export's content, made while it is written."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self

from pipeline.exports.example import Example

_SCORE_BINS = 10


@dataclass(slots=True, kw_only=True)
class Coverage:
    """Counts of an export's content.

    `rejected` counts samples without an annotation, once per exported task. `scores` counts boxes
    by tenths of the score, from 0..0.1 on. `shards_kept` were exported before and left as they are.
    """

    shards_planned: int
    shards_exported: int = 0
    shards_kept: int = 0
    annotations: int = 0
    rejected: int = 0
    entities: int = 0
    boxes: int = 0
    boxes_without_class: int = 0
    annotations_without_box: int = 0
    by_split: Counter[str] = field(default_factory=Counter)
    by_task: Counter[str] = field(default_factory=Counter)
    issues: Counter[str] = field(default_factory=Counter)
    scores: list[int] = field(default_factory=lambda: [0] * _SCORE_BINS)

    def summary(self) -> dict[str, Any]:
        """Return the counts for JSON."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return {**values, "is_complete": self.is_complete}

    @classmethod
    def of_summary(cls, body: Mapping[str, Any]) -> Self:
        """Parse a summary. Raises LookupError, TypeError."""
        found = cls(**{item.name: body[item.name] for item in fields(cls)})
        for item in fields(cls):
            if isinstance(value := getattr(found, item.name), dict):
                setattr(found, item.name, Counter(value))
        return found

    @property
    def is_complete(self) -> bool:
        return self.shards_exported == self.shards_planned

    @property
    def splits(self) -> list[str]:
        """Splits that have files: those with examples, or the first one if there are none."""
        return [name for name, count in self.by_split.items() if count] or list(self.by_split)[:1]

    def include(self, other: "Coverage") -> None:
        """Add the counts of a part of the same export; `shards_planned` stays as it is."""
        for item in fields(self):
            mine, its = getattr(self, item.name), getattr(other, item.name)
            if isinstance(mine, Counter):
                mine.update(its)
            elif isinstance(mine, list):
                setattr(self, item.name, [a + b for a, b in zip(mine, its, strict=True)])
            elif item.name != "shards_planned":
                setattr(self, item.name, mine + its)

    def add(self, example: Example) -> None:
        boxes = example.boxes
        self.annotations += 1
        self.entities += len(example.entities)
        self.boxes += len(boxes)
        self.annotations_without_box += not boxes
        self.by_split[example.split] += 1
        self.by_task[example.task] += 1
        self.issues.update(example.issues)
        for _, box in boxes:
            if box.score is not None:
                self.scores[min(int(box.score * _SCORE_BINS), _SCORE_BINS - 1)] += 1
