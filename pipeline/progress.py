"""How far a run is."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pipeline.rates import Rate

ObserveShards = Callable[[int, int], None]
"""Called after each shard: how many are done, of how many."""


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
        """Of `asdict`. Raises TypeError, KeyError where another version of ours wrote it."""
        actors = tuple(ActorPace(**actor) for actor in body["actors"])
        return cls(**{**body, "actors": actors})


@dataclass(slots=True)
class _Actor:
    """`busy_s` and `span_s` as its engine said last."""

    images: Rate = field(default_factory=Rate)
    busy_s: float = 0.0
    span_s: float = 0.0

    @property
    def engine_busy(self) -> float | None:
        return self.busy_s / self.span_s if self.span_s else None


@dataclass(slots=True, kw_only=True)
class Tally:
    """The counters behind Progress. Written by one thread, read by others."""

    shards_total: int = 0
    shards_done: int = 0
    shards_failed: int = 0
    bytes_total: int = 0
    bytes_done: int = 0
    bytes_committed_now: int = 0
    images_annotated: float = 0
    images_rejected: float = 0
    started: float = field(default_factory=time.monotonic)
    first_row: float | None = None
    images: Rate = field(default_factory=Rate)
    actors: dict[str, _Actor] = field(default_factory=dict)
    actor_resources: str = ""

    def begin(
        self, *, shards: int, bytes_: int, shards_done: int, bytes_done: int, shards_failed: int
    ) -> None:
        self.shards_total, self.bytes_total = shards, bytes_
        self.shards_done, self.bytes_done = shards_done, bytes_done
        self.shards_failed = shards_failed

    def add_shard(self, size_bytes: int) -> None:
        self.shards_done += 1
        self.bytes_done += size_bytes
        self.bytes_committed_now += size_bytes

    def add_images(self, *, annotated: float, rejected: float) -> None:
        if self.first_row is None:
            self.first_row = self.images.started = time.monotonic()
        self.images.add(annotated + rejected)
        self.images_annotated += annotated
        self.images_rejected += rejected

    def note_usage(self, actor: str, images: int, busy_s: float, span_s: float) -> None:
        """Images of one table, and the use of its actor's engine since that one's start."""
        known = self.actors.setdefault(actor, _Actor())
        known.images.add(images)
        if span_s > known.span_s:  # tables may overtake each other
            known.busy_s, known.span_s = busy_s, span_s

    def progress(self) -> Progress:
        now = time.monotonic()
        # From the first row on: starting Ray and loading the model is not the pace.
        busy_s = now - self.first_row if self.first_row else 0.0
        images = self.images_annotated + self.images_rejected
        left = self.bytes_total - self.bytes_done
        return Progress(
            shards_total=self.shards_total,
            shards_done=self.shards_done,
            shards_failed=self.shards_failed,
            bytes_total=self.bytes_total,
            bytes_done=self.bytes_done,
            images_annotated=round(self.images_annotated),
            images_rejected=round(self.images_rejected),
            images_per_s=images / busy_s if busy_s else 0.0,
            engine_busy=self._engine_busy(),
            eta_s=left * busy_s / self.bytes_committed_now if self.bytes_committed_now else None,
            elapsed_s=now - self.started,
            images_per_s_now=self.images.per_s,
            actors=self._paces(),
            actor_resources=self.actor_resources,
        )

    def _paces(self) -> tuple[ActorPace, ...]:
        return tuple(
            ActorPace(name=name, images_per_s=actor.images.per_s, engine_busy=actor.engine_busy)
            for name, actor in sorted(self.actors.items())
            if actor.images.per_s
        )

    def _engine_busy(self) -> float | None:
        actors = tuple(self.actors.values())
        span_s = sum(actor.span_s for actor in actors)
        return sum(actor.busy_s for actor in actors) / span_s if span_s else None
