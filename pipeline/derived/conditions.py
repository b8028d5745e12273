"""What something must meet to be kept."""

from dataclasses import dataclass
from typing import Literal

Level = Literal["box", "entity", "annotation"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """What does not meet `sql` (false or null) is dropped; `option` is how it was asked for."""

    level: Level
    option: str
    sql: str

    @property
    def label(self) -> str:
        return f"{self.level}: {self.option}"
