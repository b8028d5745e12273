"""The part that limits the pace of a run, from what the run measures of itself."""

from dataclasses import dataclass
from typing import Literal

LimitingPart = Literal["actors", "driver", "output store", "readers", "input store"]

# Shares from which on a part counts as full. Bursts and pauses between tables take the rest.
_FULL_ENGINES, _FULL_SLOTS, _FULL_DRIVER, _FULL_READERS = 0.9, 0.8, 0.8, 0.8
_MANY_PUTS = 64  # complete shards that wait, per driver; 16 are written at a time
_CPU_BOUND = 0.5  # cores per reader; a reader that uses fewer waits for its store


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How busy the parts of a run were in the last minute. None: not known yet.

    Attributes:
        engine_busy: Share of the time in which the engines of the actors computed.
        slots_used: Share of the engines' slots that held an image.
        drivers: Number of driver processes.
        driver_cores: CPU time per second of the driver process, or of the busiest of several. Each
            can use about one core.
        readers_busy: Number of readers that read or decoded, on average; the others of
            `readers` waited for room for their tables.
        reader_cores: CPU time of all readers per second.
        readers: Number of readers that the CPUs of the cluster allow.
        puts_waiting: Number of finished shards that wait for the output store.
    """

    engine_busy: float | None = None
    slots_used: float | None = None
    drivers: int = 1
    driver_cores: float = 0.0
    readers_busy: float | None = None
    reader_cores: float | None = None
    readers: float | None = None
    puts_waiting: int = 0

    @property
    def limit(self) -> LimitingPart | None:
        """The part that limits the pace; None if none is full, or not enough is known yet."""
        if self.engine_busy is None:
            return None
        has_work = self.slots_used is None or self.slots_used >= _FULL_SLOTS
        if self.engine_busy >= _FULL_ENGINES and has_work:
            return "actors"
        if self.driver_cores >= _FULL_DRIVER:
            return "driver"
        if self.puts_waiting >= _MANY_PUTS * self.drivers:
            return "output store"
        if self.readers and (self.readers_busy or 0.0) >= _FULL_READERS * self.readers:
            cores, readers = self.reader_cores or 0.0, self.readers_busy or 1.0
            return "readers" if cores / readers >= _CPU_BOUND else "input store"
        return None

    @property
    def limit_text(self) -> str:
        """The limit with its measure, and the number to change."""
        match self.limit:
            case "actors":
                return f"actors: engines {self.engine_busy:.0%} busy; more --actors"
            case "driver":
                who = f"the busiest of {self.drivers}" if self.drivers > 1 else "it"
                return (
                    f"driver: {who} uses {self.driver_cores:.1f} cores, and one is all it can use; "
                    f"--drivers {2 * self.drivers}, or larger shards"
                )
            case "output store":
                return (
                    f"output store: {self.puts_waiting} finished shards wait for their PUT; "
                    "larger shards, or a faster store"
                )
            case "readers":
                return (
                    f"readers: {self._readers_text}, {self.reader_cores:.1f} cores; more CPUs for "
                    "readers (CPU nodes, --reader-label), --decode fast, or fewer --actors"
                )
            case "input store":
                return (
                    f"input store: {self._readers_text}, but only {self.reader_cores:.1f} cores: "
                    "they wait for the store, or for CPUs that other programs use; more CPUs for "
                    "readers, so that more are fetched at once, or a nearer store"
                )
            case None if self.engine_busy is None:
                return "not known yet"
            case _:
                return f"none is full: {self._all_parts}"

    @property
    def _readers_text(self) -> str:
        return f"{self.readers_busy:.1f} of {self.readers:.0f} busy"

    @property
    def _all_parts(self) -> str:
        parts = [
            f"engines {self.engine_busy:.0%} busy",
            f"{self.slots_used:.0%} of their slots used" if self.slots_used is not None else "",
            f"readers {self._readers_text}" if self.readers and self.readers_busy else "",
            f"driver {self.driver_cores:.1f} cores",
        ]
        return ", ".join(part for part in parts if part)
