"""The time that actors were held, and how a run counts it and divides it among its commits."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Self


@dataclass(frozen=True, slots=True, kw_only=True)
class ActorTime:
    """Seconds of actors, summed over actors.

    Attributes:
        held_s: Seconds that actors were there, loading the model included.
        busy_s: Seconds in which their engines computed.
        gpu_held_s: `held_s` times the GPUs that an actor reserves; 0 for actors on CPUs.
        gpu_busy_s: `busy_s` times these GPUs.
    """

    held_s: float = 0.0
    busy_s: float = 0.0
    gpu_held_s: float = 0.0
    gpu_busy_s: float = 0.0

    @classmethod
    def of(cls, *, held_s: float, busy_s: float, gpus: float) -> Self:
        """Return the time of actors that reserve `gpus` GPUs each."""
        return cls(held_s=held_s, busy_s=busy_s, gpu_held_s=held_s * gpus, gpu_busy_s=busy_s * gpus)

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> Self:
        """Parse the result of `dataclasses.asdict`. Raises LookupError, ValueError, TypeError."""
        return cls(**{each.name: float(body[each.name]) for each in fields(cls)})

    def plus(self, other: "ActorTime", times: float = 1.0) -> "ActorTime":
        """Return the sum of this time and `times` the other."""
        return ActorTime(
            **{
                each.name: getattr(self, each.name) + times * getattr(other, each.name)
                for each in fields(self)
            }
        )


def total_time(times: Iterable[ActorTime]) -> ActorTime:
    """Return the sum."""
    total = ActorTime()
    for each in times:
        total = total.plus(each)
    return total


@dataclass(slots=True)
class ActorClock:
    """Counts the time of a run's actors, and gives it out to commits.

    One thread writes it, others may read it. Between two looks at the cluster, the larger number of
    actors counts.

    Attributes:
        gpus_per_actor: GPUs that each actor reserves.
        total: The time so far.
        open: The part of it that was given to no commit yet.
    """

    gpus_per_actor: float = 0.0
    total: ActorTime = field(default_factory=ActorTime)
    open: ActorTime = field(default_factory=ActorTime)
    _actors: int = 0
    _busy_s: dict[str, float] = field(default_factory=dict)  # by actor, since its start
    _looked: float = field(default_factory=time.monotonic)

    def look(self, actors: int) -> None:
        """Count the time until now, and note how many actors there are."""
        self._count(max(actors, self._actors))
        self._actors = actors

    def note_busy(self, actor: str, busy_s: float) -> None:
        """Count time in which an engine computed: `busy_s` since the start of its actor."""
        more_s = max(busy_s - self._busy_s.get(actor, 0.0), 0.0)  # tables may overtake each other
        self._busy_s[actor] = self._busy_s.get(actor, 0.0) + more_s
        self._add(ActorTime.of(held_s=0.0, busy_s=more_s, gpus=self.gpus_per_actor))

    def share(self, weights: Sequence[float]) -> list[ActorTime]:
        """Give out all open time, in these proportions."""
        self._count(self._actors)
        taken, self.open = self.open, ActorTime()
        whole = sum(weights)
        return [ActorTime().plus(taken, weight / whole) for weight in weights]

    def take_back(self, given: ActorTime) -> None:
        """Count time as open that was given to a commit that did not come about."""
        self.open = self.open.plus(given)

    def _count(self, actors: int) -> None:
        now = time.monotonic()
        passed_s, self._looked = now - self._looked, now
        self._add(ActorTime.of(held_s=actors * passed_s, busy_s=0.0, gpus=self.gpus_per_actor))

    def _add(self, more: ActorTime) -> None:
        self.total, self.open = self.total.plus(more), self.open.plus(more)
