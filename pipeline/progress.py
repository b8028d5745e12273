"""How far a run is."""

import time
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """`shards_total` is what the run set out for (with `--limit`, less than the plan).

    `shards_done` and `bytes_done` count what was committed before this run, too; the images are
    this run's, counted as they arrive, before their shard is committed. `engine_busy` is the share
    of the time from their first sample on that the actors' engines computed.
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
    usage: dict[str, tuple[float, float]] = field(default_factory=dict)  # actor -> busy, span

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
        self.first_row = self.first_row or time.monotonic()
        self.images_annotated += annotated
        self.images_rejected += rejected

    def note_usage(self, actor: str, busy_s: float, span_s: float) -> None:
        """Of an actor's engine since its start; tables may overtake each other."""
        self.usage[actor] = max(self.usage.get(actor, (0.0, 0.0)), (busy_s, span_s))

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
        )

    def _engine_busy(self) -> float | None:
        span_s = sum(span_s for _, span_s in self.usage.values())
        return sum(busy_s for busy_s, _ in self.usage.values()) / span_s if span_s else None
