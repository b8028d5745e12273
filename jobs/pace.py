"""How fast a run goes, its start and its end left out."""

import time
from dataclasses import dataclass

import psutil

from pipeline.progress import Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """At a run; `cpu_s` is what this process has spent, the driver."""

    at_s: float
    images: int
    shards: int
    cpu_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """Of a run, between two looks."""

    seconds: float
    images: int
    shards: int
    cpu_s: float

    @property
    def images_per_s(self) -> float:
        return self.images / self.seconds

    @property
    def shards_per_s(self) -> float:
        return self.shards / self.seconds


class Pace:
    """Observes a run whose images, `of` in all, come in steps."""

    def __init__(self, *, of: int) -> None:
        self._of = of
        self._looks: list[Look] = []
        self._driver = psutil.Process()

    def __call__(self, progress: Progress) -> None:
        images = progress.images_annotated + progress.images_rejected
        if self._looks and self._looks[-1].images == images:
            return
        times = self._driver.cpu_times()
        self._looks.append(
            Look(
                at_s=time.monotonic(),
                images=images,
                shards=progress.shards_done,
                cpu_s=times.user + times.system,
            )
        )

    def steady(self, begin: float = 0.25, end: float = 0.75) -> Stretch:
        """Between these shares of the images. Raises ValueError for a run too short to tell."""
        looks = [look for look in self._looks if begin <= look.images / self._of <= end]
        if len(looks) < 2:
            raise ValueError("too few images to tell a pace: take more, or more seconds")
        first, last = looks[0], looks[-1]
        return Stretch(
            seconds=last.at_s - first.at_s,
            images=last.images - first.images,
            shards=last.shards - first.shards,
            cpu_s=last.cpu_s - first.cpu_s,
        )
