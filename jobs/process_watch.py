"""What the processes of a run hold: memory, file handles, threads, Ray objects."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import psutil
from pipeline.execution.ray_private import ray_objects

ACTOR = "MapBatches(Annotate)"
_WARM = 0.25  # of a run, after which what is held should not grow any more


@dataclass(frozen=True, slots=True, kw_only=True)
class Holdings:
    """Of the driver, or of all actors. `memory_mb` is private: without Ray's shared store."""

    memory_mb: float
    handles: int
    threads: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """`objects_held` are the driver's references; the store's figures are the cluster's."""

    at_s: float
    images: int
    driver: Holdings
    actors: Holdings
    objects_held: int
    objects_stored: int
    stored_mb: float
    spilled_mb: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Trend:
    """Of one figure over a run, its first quarter left out."""

    begin: float
    end: float
    peak: float  # of the whole run
    slope_per_hour: float


def look(at_s: float, images: int) -> Sample:
    driver = psutil.Process()
    actors = [child for child in driver.children(recursive=True) if ACTOR in _title(child)]
    found = ray_objects()
    return Sample(
        at_s=at_s,
        images=images,
        driver=_holdings([driver]),
        actors=_holdings(actors),
        objects_held=found.held,
        objects_stored=found.stored,
        stored_mb=found.stored_bytes / (1 << 20),
        spilled_mb=found.spilled_bytes / (1 << 20),
    )


def trend(samples: Sequence[Sample], figure: Callable[[Sample], float]) -> Trend:
    """Raises ValueError for fewer than eight samples, which tell nothing."""
    if len(samples) < 8:
        raise ValueError("too short to tell a trend: take more minutes")
    warm = samples[round(len(samples) * _WARM) :]
    values = [figure(sample) for sample in warm]
    few = max(len(values) // 5, 1)
    slope = statistics.linear_regression([sample.at_s for sample in warm], values).slope
    return Trend(
        begin=statistics.median(values[:few]),
        end=statistics.median(values[-few:]),
        peak=max(map(figure, samples)),
        slope_per_hour=3600 * slope,
    )


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return ""


def _holdings(processes: Sequence[psutil.Process]) -> Holdings:
    memory, handles, threads = 0, 0, 0
    for process in processes:
        try:
            info = process.memory_info()
            memory += info.rss - info.shared
            handles += process.num_fds()
            threads += process.num_threads()
        except psutil.NoSuchProcess:
            continue
    return Holdings(memory_mb=memory / (1 << 20), handles=handles, threads=threads)


class Watch:
    """Observes a run, `every_s` seconds apart."""

    def __init__(self, every_s: float) -> None:
        self.samples: list[Sample] = []
        self._every_s = every_s
        self._begun = time.monotonic()

    def note(self, images: int) -> float:
        """To be called often; the seconds since the first image."""
        now = time.monotonic()
        if not images:
            self._begun = now
        elif not self.samples or now - self._begun - self.samples[-1].at_s >= self._every_s:
            self.samples.append(look(now - self._begun, images))
        return now - self._begun
