"""The progress and the speed of a run."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pipeline.costs.actor_time import ActorTime
from pipeline.limits import Load

ObserveShards = Callable[[int, int], None]
"""Called after each shard with the number of shards done and in total."""

WINDOW_S = 60.0  # longer than a table of images takes on the slowest machine
LEAST_SPAN_S = 1.0  # of a rate: the images of a first table come at once


@dataclass(frozen=True, slots=True, kw_only=True)
class ActorPace:
    """The speed of an actor: `name` is host/pid/number, `images_per_s` the current rate."""

    name: str
    images_per_s: float
    engine_busy: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """The progress of a run, as `run` passes it to `on_progress`.

    Attributes:
        shards_total: Number of shards of the run: those of the plan, or fewer with `limit` or
            `partition`.
        shards_done: Number of these shards that are committed, by earlier runs, too.
        shards_failed: Number of shards that failed in this run.
        bytes_total: Size of the shards of the run in bytes.
        bytes_done: Size of the committed ones in bytes.
        images_annotated: Number of images annotated by this run. They count when they arrive,
            before their shard is committed.
        images_rejected: Number of images rejected by this run, likewise.
        images_per_s: Mean rate since the first image of this run.
        engine_busy: Share of the time in [0, 1], from their first sample on, in which the engines
            of the actors computed. None before the first sample.
        eta_s: Estimated seconds to the end; None if there is no estimate yet.
        elapsed_s: Seconds since the run began.
        images_per_s_now: Mean rate of the last minute.
        actors: Actors that gave results in the last minute.
        actor_resources: Resources that each actor asked the cluster for, as text.
        load: How busy the parts of the run were in the last minute.
        limit: The part that limits the pace, its measure and the number to change, as text.
        actor_time: Time of the run's actors, and of the GPUs that they hold.
        open_time: The part of it that no commit stands for yet.

    Example:
        >>> def show(progress: Progress) -> None:
        ...     shown.append((progress.shards_done, progress.shards_total))
        >>> shown = []
        >>> verdict = run(JobSpec(input="photos/", output="out"), on_progress=show)
        >>> shown[-1]
        (1, 1)
    """

    shards_total: int
    shards_done: int
    shards_failed: int
    bytes_total: int
    bytes_done: int
    images_annotated: int
    images_rejected: int
    images_per_s: float
    engine_busy: float | None
    eta_s: float | None
    elapsed_s: float
    images_per_s_now: float = 0.0
    actors: tuple[ActorPace, ...] = ()
    actor_resources: str = ""
    load: Load = field(default_factory=Load)
    limit: str = ""
    actor_time: ActorTime = field(default_factory=ActorTime)
    open_time: ActorTime = field(default_factory=ActorTime)

    @classmethod
    def from_dict(cls, body: dict[str, Any]) -> "Progress":
        """Make a Progress of a mapping.

        Args:
            body: The result of `dataclasses.asdict` on a Progress.

        Returns:
            An equal Progress.

        Raises:
            KeyError: `actors` is missing: another version wrote the mapping.
            TypeError: Another field is missing or unknown.
        """
        actors = tuple(ActorPace(**actor) for actor in body["actors"])
        names = {"actor_time", "open_time"} & body.keys()
        times = {name: ActorTime.from_dict(body[name]) for name in names}
        load = Load(**body.get("load", {}))
        return cls(**{**body, **times, "actors": actors, "load": load})


ProgressObserver = Callable[[Progress], None]


@dataclass(slots=True)
class Rate:
    """Counts per second within the last WINDOW_S."""

    started: float = field(default_factory=time.monotonic)
    _counts: deque[tuple[float, float]] = field(default_factory=deque)

    def add(self, count: float) -> None:
        now = time.monotonic()
        self._counts.append((now, count))
        while self._counts[0][0] < now - WINDOW_S:
            self._counts.popleft()

    @property
    def per_s(self) -> float:
        """The rate; 0 if nothing came for that long.

        Another thread than the adding one may read it.
        """
        span_s = time.monotonic() - self.started
        return self.counted / min(max(span_s, LEAST_SPAN_S), WINDOW_S)

    @property
    def counted(self) -> float:
        """The sum of the last WINDOW_S. Another thread may read it, too."""
        since = time.monotonic() - WINDOW_S
        return sum(count for at, count in tuple(self._counts) if at >= since)
