"""Results of the blocks, as text, as JSON and in a file that is there from the start."""

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

BlockStatus = Literal["passed", "failed", "skipped"]


class BlockSkipped(Exception):
    """Raised by a block that has nothing to measure on this machine. The text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures(ABC):
    """The measurements of a block. `left_out`: what there was no time for."""

    left_out: tuple[str, ...] = ()

    @property
    def problems(self) -> tuple[str, ...]:
        """The faults that were found, in sentences."""
        return ()

    @abstractmethod
    def lines(self) -> Iterator[str]:
        """Yield the figures as sentences."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockResult:
    """How one block ended. `reason`: why it failed or was skipped."""

    name: str
    status: BlockStatus
    seconds: float
    reason: str = ""
    figures: Figures | None = None

    def lines(self) -> Iterator[str]:
        yield f"{self.name}: {self.status} in {self.seconds:.1f} s"
        if self.reason:
            yield f"  {self.reason}"
        if self.figures is not None:
            yield from (f"  {line}" for line in self.figures.lines())
            yield from (f"  WRONG: {problem}" for problem in self.figures.problems)
            yield from (f"  left out: {part}" for part in self.figures.left_out)

    def body(self) -> dict[str, object]:
        """Return what JSON has of it."""
        figures = asdict(self.figures) if self.figures is not None else None
        return {
            "name": self.name,
            "status": self.status,
            "seconds": round(self.seconds, 3),
            "reason": self.reason,
            "figures": figures,
            "lines": list(self.lines()),
        }


@dataclass(slots=True, kw_only=True)
class CheckReport:
    """All results so far. `is_complete` once every block ran or was skipped."""

    model: str
    device: str
    minutes: float
    versions: dict[str, str]
    results: list[BlockResult] = field(default_factory=list)
    verdict: tuple[str, ...] = ()
    options: dict[str, int | float] = field(default_factory=dict)
    is_complete: bool = False

    @property
    def is_right(self) -> bool:
        """No block failed or found something wrong."""
        return all(result.status != "failed" for result in self.results)

    def figures_of(self, name: str) -> Figures | None:
        return next((each.figures for each in self.results if each.name == name), None)

    def body(self) -> dict[str, object]:
        """Return the report as one JSON object."""
        return {
            "is_complete": self.is_complete,
            "is_right": self.is_right,
            "verdict": list(self.verdict),
            "options": self.options,
            "model": self.model,
            "device": self.device,
            "minutes": self.minutes,
            "versions": self.versions,
            "blocks": [result.body() for result in self.results],
        }

    def save(self, path: Path) -> None:
        """Replace the file as a whole: a reader finds the results of all blocks that ended."""
        partial = path.with_name(f".{path.name}.partial")
        try:
            partial.write_text(json.dumps(self.body(), indent=2) + "\n")
            os.replace(partial, path)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from error
        finally:
            partial.unlink(missing_ok=True)
