"""The CPU time of drivers, and the number of drivers that keeps up with actors."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, Self

from pipeline.costs.actor_time import ActorTime

# CPU time of a driver, by `kosmos2 bench driver` with actors of 256 slots: see docs/scale.md.
_SHARD_S, _IMAGE_S = 0.0018, 0.000013
ENOUGH_CORES = 0.5  # of a driver; Python uses no more than one, and bursts need room


class _Annotated(Protocol):
    """A committed shard: its images, and the time of actors that it stands for."""

    @property
    def samples(self) -> int: ...

    @property
    def actor_time(self) -> ActorTime | None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class BusyPace:
    """The pace of an actor whose engine is always busy.

    Attributes:
        images_per_s: Images per second.
        images_per_shard: Mean number of images in a shard.
    """

    images_per_s: float
    images_per_shard: float

    @classmethod
    def of(cls, commits: Iterable[_Annotated], *, on_gpus: bool) -> Self | None:
        """Return the pace of these shards, of those done on GPUs or of the others; None without."""
        known = [
            (commit.samples, time.busy_s)
            for commit in commits
            if (time := commit.actor_time) and time.busy_s and (time.gpu_busy_s > 0) == on_gpus
        ]
        if not known:
            return None
        images, busy_s = (sum(column) for column in zip(*known, strict=True))
        return cls(images_per_s=images / busy_s, images_per_shard=images / len(known))

    def driver_cores(self, actors: int) -> float:
        """Return the cores that drivers use for that many actors, together.

        Example:
            >>> round(BusyPace(images_per_s=900, images_per_shard=1000).driver_cores(64), 2)
            0.85
        """
        image_s = _IMAGE_S + _SHARD_S / max(self.images_per_shard, 1.0)
        return actors * self.images_per_s * image_s

    def drivers(self, actors: int) -> int:
        """Return the number of drivers for that many actors: each at most half busy."""
        return max(math.ceil(self.driver_cores(actors) / ENOUGH_CORES), 1)


# What is possible on paper: see docs/scale.md.
PACE_ON_A_GPU = BusyPace(images_per_s=900.0, images_per_shard=1000.0)
