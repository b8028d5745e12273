"""Counts of what a derivation found, kept and dropped."""

import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Self


@dataclass(frozen=True, slots=True, kw_only=True)
class Amount:
    annotations: int = 0
    entities: int = 0
    boxes: int = 0

    def __add__(self, other: "Amount") -> "Amount":
        return Amount(
            annotations=self.annotations + other.annotations,
            entities=self.entities + other.entities,
            boxes=self.boxes + other.boxes,
        )


@dataclass(slots=True, kw_only=True)
class Account:
    """Counts of a derivation: before, after, and dropped.

    `dropped` counts by the condition that dropped a thing, as in `box: --min-score 0.5`; each thing
    counts once. Boxes that were dropped with their entity, and entities that were dropped with
    their annotation, appear only in the difference of the amounts.
    """

    before: Amount = Amount()
    after: Amount = Amount()
    dropped: Counter[str] = field(default_factory=Counter)

    def merge(self, other: "Account") -> None:
        self.before += other.before
        self.after += other.after
        self.dropped.update(other.dropped)

    def summary(self) -> dict[str, dict[str, int]]:
        """Return the counts for JSON."""
        return {
            "before": asdict(self.before),
            "after": asdict(self.after),
            "dropped": dict(self.dropped.most_common()),
        }

    def to_json(self) -> str:
        return json.dumps(self.summary())

    @classmethod
    def from_json(cls, text: str) -> Self:
        body = json.loads(text)
        return cls(
            before=Amount(**body["before"]),
            after=Amount(**body["after"]),
            dropped=Counter(body["dropped"]),
        )
