"""The counters of a run."""

import time
from dataclasses import dataclass, field
from typing import Any, Self

import pyarrow as pa

from pipeline.costs.actor_time import ActorTime, total_time
from pipeline.limits import Load
from pipeline.progress import LEAST_SPAN_S, ActorPace, Progress, Rate

_LOAD_EVERY_S = 1.0  # it costs the driver a sum over each actor's last minute


@dataclass(frozen=True, slots=True, kw_only=True)
class TableCounts:
    """The figures of a table that came: images, use of the engine, cost of reading.

    A table without new rows has no images. `usages` and `reads` are arguments of `note_usage` and
    `note_read`.
    """

    has_images: bool = False
    annotated: float = 0.0
    rejected: float = 0.0
    usages: tuple[dict[str, Any], ...] = ()
    reads: tuple[dict[str, Any], ...] = ()

    @classmethod
    def of(cls, table: pa.Table, *, tasks: int, is_new: bool) -> Self:
        """Return the figures of rows of `schema.ANNOTATED`; an image has one row per task.

        The last row of a shard, which says what reading took, counts also if no row is new: it may
        come alone.
        """
        names = ("samples", "read_s", "cpu_s")
        ends = table["end"].drop_null().to_pylist()
        reads = tuple({name: end[name] for name in names} for end in ends)
        if not is_new:
            return cls(reads=reads)
        return cls(
            has_images=True,
            annotated=(table.num_rows - table["annotated"].null_count) / tasks,
            rejected=(table.num_rows - table["rejected"].null_count) / tasks,
            usages=tuple(table["usage"].drop_null().to_pylist()),
            reads=reads,
        )


@dataclass(slots=True)
class _Actor:
    """The counters of an actor. `busy_s` and `span_s` are the last that its engine reported.

    `busy` and `span` are what was added to them in the last minute, `live` and `slots` the slots
    in use and all, at each table.
    """

    images: Rate = field(default_factory=Rate)
    busy_s: float = 0.0
    span_s: float = 0.0
    busy: Rate = field(default_factory=Rate)
    span: Rate = field(default_factory=Rate)
    live: Rate = field(default_factory=Rate)
    slots: Rate = field(default_factory=Rate)

    @property
    def engine_busy(self) -> float | None:
        return self.busy_s / self.span_s if self.span_s else None


@dataclass(slots=True)
class _Readers:
    """The time that reading took, over the shards that were read to their end."""

    samples: int = 0
    read_s: float = 0.0
    cpu_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverState:
    """The backlog of a driver, and the CPU time that its process has used.

    Attributes:
        cpu_s: CPU time of the process since its start.
        tables: Number of tables that have arrived and are not processed yet.
        shards_open: Number of shards that have some of their rows.
        puts: Number of complete shards that wait for their PUT.
        readers: Number of readers that the cluster's CPUs allow beside all actors of the run. None:
            not known yet.
        actor_time: Time of the driver's actors since its start.
        open_time: The part of it that no commit stands for.
    """

    cpu_s: float
    tables: int = 0
    shards_open: int = 0
    puts: int = 0
    readers: float | None = None
    actor_time: ActorTime = field(default_factory=ActorTime)
    open_time: ActorTime = field(default_factory=ActorTime)


@dataclass(slots=True)
class _Driver:
    """The last state of a driver, its CPU time in the last minute, and the time of its actors.

    `before` and `open_before` are those of its former processes.
    """

    state: DriverState
    cpu: Rate = field(default_factory=Rate)
    before: ActorTime = field(default_factory=ActorTime)
    open_before: ActorTime = field(default_factory=ActorTime)

    def note(self, state: DriverState) -> None:
        if state.cpu_s > self.state.cpu_s:  # else its process is another one
            self.cpu.add(state.cpu_s - self.state.cpu_s)
        if state.actor_time.held_s < self.state.actor_time.held_s:  # likewise
            self.before, self.open_before = self.actor_time, self.open_time
        self.state = state

    @property
    def actor_time(self) -> ActorTime:
        return self.before.plus(self.state.actor_time)

    @property
    def open_time(self) -> ActorTime:
        return self.open_before.plus(self.state.open_time)


@dataclass(slots=True, kw_only=True)
class Tally:
    """The counters behind Progress. One thread writes them, others read them."""

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
    drivers: dict[int, _Driver] = field(default_factory=dict)  # by number
    _readers: _Readers = field(default_factory=_Readers)
    _load: Load = field(default_factory=Load)
    _load_at: float = 0.0

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

    def add(self, counts: TableCounts) -> None:
        """Add the figures of a table."""
        if counts.has_images:
            self.add_images(annotated=counts.annotated, rejected=counts.rejected)
        for usage in counts.usages:
            self.note_usage(**usage)
        for read in counts.reads:
            self.note_read(**read)

    def note_usage(
        self, actor: str, images: int, busy_s: float, span_s: float, slots: int = 0, live: int = 0
    ) -> None:
        """Add the images of one table, and its actor's use of the engine since the start."""
        known = self.actors.setdefault(actor, _Actor())
        known.images.add(images)
        known.slots.add(slots)
        known.live.add(live)
        if span_s > known.span_s:  # tables may overtake each other
            known.busy.add(busy_s - known.busy_s)
            known.span.add(span_s - known.span_s)
            known.busy_s, known.span_s = busy_s, span_s

    def note_read(self, *, samples: int, read_s: float, cpu_s: float) -> None:
        """Add a shard that was read to its end."""
        self._readers.samples += samples
        self._readers.read_s += read_s
        self._readers.cpu_s += cpu_s

    def note_driver(self, number: int, state: DriverState) -> None:
        """Note the state of a driver. Drivers of a run are counted from 0."""
        self.drivers.setdefault(number, _Driver(state)).note(state)

    @property
    def waiting(self) -> DriverState:
        """The states of all drivers together."""
        states = [driver.state for driver in self.drivers.values()]
        return DriverState(
            cpu_s=sum(state.cpu_s for state in states),
            tables=sum(state.tables for state in states),
            shards_open=sum(state.shards_open for state in states),
            puts=sum(state.puts for state in states),
            readers=max((s.readers for s in states if s.readers is not None), default=None),
        )

    @property
    def actor_time(self) -> ActorTime:
        """The time of the actors of all drivers."""
        return total_time(driver.actor_time for driver in tuple(self.drivers.values()))

    def progress(self) -> Progress:
        now = time.monotonic()
        # From the first row on: starting Ray and loading the model do not count towards the rate.
        busy_s = max(now - self.first_row, LEAST_SPAN_S) if self.first_row else 0.0
        images = self.images_annotated + self.images_rejected
        left = self.bytes_total - self.bytes_done
        if now - self._load_at >= _LOAD_EVERY_S:
            self._load, self._load_at = self._load_now(), now
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
            load=self._load,
            limit=self._load.limit_text,
            actor_time=self.actor_time,
            open_time=total_time(driver.open_time for driver in tuple(self.drivers.values())),
        )

    def _load_now(self) -> Load:
        """Return the load of the last minute.

        Readers report at the end of a shard. Their share of the time follows from the cost of an
        image and the pace.
        """
        waiting = self.waiting
        actors, readers, pace = tuple(self.actors.values()), self._readers, self.images.per_s
        span_s, slots = sum(a.span.counted for a in actors), sum(a.slots.counted for a in actors)
        per_image = pace / readers.samples if readers.samples else None
        if per_image and readers.read_s and waiting.readers:
            # The first images come in a burst: faster than they were read.
            per_image = min(per_image, waiting.readers / readers.read_s)
        return Load(
            engine_busy=sum(a.busy.counted for a in actors) / span_s if span_s else None,
            slots_used=sum(a.live.counted for a in actors) / slots if slots else None,
            drivers=len(self.drivers) or 1,
            driver_cores=max((driver.cpu.per_s for driver in self.drivers.values()), default=0.0),
            readers_busy=per_image and per_image * readers.read_s,
            reader_cores=per_image and per_image * readers.cpu_s,
            readers=waiting.readers,
            puts_waiting=waiting.puts,
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
