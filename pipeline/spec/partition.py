"""A stable part of the plan, so that several Ray jobs can make one dataset.

The part of a shard depends only on its id, so a longer plan moves no shard. Overlapping parts only
waste work: of two PUTs of a shard, one wins.
"""

import hashlib
import math
import re
from dataclasses import dataclass
from typing import Annotated, Self

from pydantic import BeforeValidator, PlainSerializer


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """Part `index` of `of`, counted from 0."""

    index: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse `I/N`. Raises ValueError."""
        match = re.fullmatch(r"(\d+)/(\d+)", text, re.ASCII)
        if match is None or int(match[1]) >= int(match[2]):
            raise ValueError(
                f"{text!r} is not a part I/N of the plan; of four parts, the first is 0/4 and the "
                "last 3/4"
            )
        return cls(index=int(match[1]), of=int(match[2]))

    def __str__(self) -> str:
        return f"{self.index}/{self.of}"

    def holds(self, shard_id: str) -> bool:
        digest = hashlib.sha256(shard_id.encode()).digest()
        return int.from_bytes(digest[:8]) % self.of == self.index

    def overlaps(self, other: Self) -> bool:
        """Return whether a shard can be in both (Chinese remainder theorem)."""
        return (self.index - other.index) % math.gcd(self.of, other.of) == 0


WHOLE = Partition(index=0, of=1)
PartitionText = Annotated[  # in flags, job files and `job.json`
    Partition,
    BeforeValidator(lambda value: Partition.parse(value) if isinstance(value, str) else value),
    PlainSerializer(str),
]
