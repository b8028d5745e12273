"""How far a run is, and how fast."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

ObserveShards = Callable[[int, int], None]
"""Called after each shard: how many are done, of how many."""

WINDOW_S = 60.0  # "now": longer than a table of images takes on the slowest machine


@dataclass(frozen=True, slots=True, kw_only=True)
class ActorPace:
    """One actor: `name` is host/pid/number, `images_per_s` is of now."""

    name: str
    images_per_s: float
    engine_busy: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """`shards_total` is what the run set out for (with `--limit`, less than the plan).

    `shards_done` and `bytes_done` count what was committed before this run, too; the images are
    this run's, counted as they arrive, before their shard is committed. `engine_busy` is the share
    of the time from their first sample on that the actors' engines computed. `images_per_s` is an
    average since the first image, `images_per_s_now` one of the last minute; `actors` are those
    that gave something within it, and each asked the cluster for `actor_resources`.
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

    @classmethod
    def from_dict(cls, body: dict[str, Any]) -> "Progress":
        """Read what `asdict` wrote. Raises TypeError, KeyError for another version of ours."""
        actors = tuple(ActorPace(**actor) for actor in body["actors"])
        return cls(**{**body, "actors": actors})


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
        """0 where nothing came for that long. May be asked by another thread than adds."""
        now = time.monotonic()
        span_s = min(now - self.started, WINDOW_S)
        counted = sum(count for at, count in tuple(self._counts) if at >= now - WINDOW_S)
        return counted / span_s if span_s > 0 else 0.0
