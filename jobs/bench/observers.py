"""How fast a run goes, its start and its end left out."""

import statistics
import time
from collections.abc import Callable
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
    """Of a run, so many seconds; the rest by their trend in it."""

    seconds: float
    images: float
    shards: float
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
        """Between these shares of the time in which images came, until nine tenths were there.

        Tables in work together get ready together, so images come in bursts: the difference
        between two looks would depend on where in a burst they were.
        Raises ValueError for a run too short to tell.
        """
        times = [look.at_s for look in self._looks if 0 < look.images <= 0.9 * self._of]
        took = times[-1] - times[0] if times else 0.0
        looks = [
            look
            for look in self._looks
            if times and begin * took <= look.at_s - times[0] <= end * took
        ]
        if len(looks) < 2:
            raise ValueError("too few images to tell a pace: take more, or more seconds")
        seconds = looks[-1].at_s - looks[0].at_s
        return Stretch(
            seconds=seconds,
            images=seconds * _trend(looks, lambda look: look.images),
            shards=seconds * _trend(looks, lambda look: look.shards),
            cpu_s=seconds * _trend(looks, lambda look: look.cpu_s),
        )


def _trend(looks: list[Look], of: Callable[[Look], float]) -> float:
    """Per second."""
    times = [look.at_s for look in looks]
    return statistics.linear_regression(times, list(map(of, looks))).slope
