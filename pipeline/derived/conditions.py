"""Conditions that a box, an entity or an annotation must meet to be kept."""

from dataclasses import dataclass
from typing import Literal

Level = Literal["box", "entity", "annotation"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """An SQL expression, requested by `option`. If it is false or null, the thing is dropped."""

    level: Level
    option: str
    sql: str

    @property
    def label(self) -> str:
        return f"{self.level}: {self.option}"
