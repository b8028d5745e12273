"""Observers of a run: its pace, its CPU time, what its processes hold."""

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import psutil

from pipeline.execution.ray_private import ray_objects
from pipeline.progress import Progress

# A Ray worker's title says what it does at the moment; an idle one's says nothing.
_READER, _ACTOR = "MapBatches(ReadShard)", "MapBatches(Annotate)"
_PART_DRIVER, _CALL = "ray::PartDriver", "ray::CallProcess"
_CPU_EVERY_S = 0.5  # looking costs some milliseconds itself
_WARM = 0.25  # of a run, after which what is held should not grow any more


def _title(process: psutil.Process) -> str:
    return " ".join(process.cmdline())


@dataclass(frozen=True, slots=True, kw_only=True)
class PacePoint:
    """Progress of a run at one time. `cpu_s`: CPU time of this process, the driver."""

    at_s: float
    images: int
    cpu_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """A part of a run. Amounts follow from their trend in it."""

    seconds: float
    images: float
    cpu_s: float

    @property
    def images_per_s(self) -> float:
        return self.images / self.seconds


class PaceMeter:
    """Notes the pace of a run of `of` images."""

    def __init__(self, *, of: int) -> None:
        self._of = of
        self._points: list[PacePoint] = []

    def __call__(self, progress: Progress) -> None:
        images = progress.images_annotated + progress.images_rejected
        if self._points and self._points[-1].images == images:
            return
        self._points.append(
            PacePoint(at_s=time.monotonic(), images=images, cpu_s=time.process_time())
        )

    def steady(self, begin: float = 0.25, end: float = 0.75) -> Stretch:
        """Return the part between two shares of the time until nine tenths of the images came.

        Tables in flight together end together, so images come in bursts. A trend does not depend
        on where in a burst the part begins.
        Raises ValueError for a run too short to tell.
        """
        times = [point.at_s for point in self._points if 0 < point.images <= 0.9 * self._of]
        took = times[-1] - times[0] if times else 0.0
        points = [
            point
            for point in self._points
            if times and begin * took <= point.at_s - times[0] <= end * took
        ]
        if len(points) < 2:
            raise ValueError("too few images to tell a pace: take more, or more seconds")
        at_s = [point.at_s for point in points]
        seconds = at_s[-1] - at_s[0]
        return Stretch(
            seconds=seconds,
            images=seconds * _slope(at_s, [point.images for point in points]),
            cpu_s=seconds * _slope(at_s, [point.cpu_s for point in points]),
        )


class WaitMeter:
    """Measures the CPU time of this process while no images come."""

    def __init__(self) -> None:
        self._last: PacePoint | None = None
        self._busy: list[float] = []

    def __call__(self, progress: Progress) -> None:
        now = PacePoint(
            at_s=time.monotonic(), images=progress.images_annotated, cpu_s=time.process_time()
        )
        last, self._last = self._last, now
        if last is not None and last.images == now.images > 0:
            self._busy.append((now.cpu_s - last.cpu_s) / (now.at_s - last.at_s))

    @property
    def busy(self) -> float:
        """Share of a core, from one look to the next: the median."""
        return statistics.median(self._busy)


def _slope(at_s: Sequence[float], values: Sequence[float]) -> float:
    """Return the slope of the values per second."""
    return statistics.linear_regression(at_s, values).slope


class CpuMeter:
    """Measures CPU time of this process and its descendants from now on, by their role.

    A process that ends counts up to the last look at it.
    """

    def __init__(self) -> None:
        self._spent: dict[psutil.Process, float] = {}
        self._roles: dict[psutil.Process, str] = {}
        self._next_look = 0.0
        self.look()
        self._before = dict(self._spent)

    def look(self) -> None:
        """Update the figures, at most twice a second. Call it often."""
        if time.monotonic() < self._next_look:
            return
        me = psutil.Process()
        for process in (me, *me.children(recursive=True)):
            try:
                self._look_at(process, "driver" if process == me else "Ray itself")
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        self._next_look = time.monotonic() + _CPU_EVERY_S

    def _look_at(self, process: psutil.Process, otherwise: str) -> None:
        times, title = process.cpu_times(), _title(process)
        self._spent[process] = times.user + times.system
        if _READER in title:
            self._roles[process] = "reader"
        elif _PART_DRIVER in title:
            self._roles[process] = "driver"
        elif _ACTOR in title:
            self._roles[process] = "actor"
        elif _CALL in title:
            self._roles[process] = "finishing"
        else:
            self._roles.setdefault(process, otherwise)

    @property
    def spent_s(self) -> dict[str, float]:
        """CPU time by role: driver, reader, actor, finishing, Ray itself."""
        found = defaultdict[str, float](float)
        for process, spent_s in self._spent.items():
            found[self._roles[process]] += spent_s - self._before.get(process, 0.0)
        return dict(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Holdings:
    """Held by all drivers, or by all actors. `memory_mb`: private, without Ray's object store."""

    memory_mb: float
    handles: int
    threads: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldingsSample:
    """`objects_held`: references of the run's process. Other object figures are the cluster's."""

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
    """Trend of one figure over a run, without the first quarter of the run."""

    begin: float
    end: float
    peak: float  # of the whole run
    slope_per_hour: float


class HoldingsWatch:
    """Samples what a run holds, every `every_s` seconds."""

    def __init__(self, every_s: float) -> None:
        self.samples: list[HoldingsSample] = []
        self._every_s = every_s
        self._begun = time.monotonic()

    def note(self, images: int) -> float:
        """Take a sample if one is due. Returns the seconds since the first image. Call it often."""
        now = time.monotonic()
        if not images:
            self._begun = now
        elif not self.samples or now - self._begun - self.samples[-1].at_s >= self._every_s:
            self.samples.append(_sample(now - self._begun, images))
        return now - self._begun


def _sample(at_s: float, images: int) -> HoldingsSample:
    driver, found = psutil.Process(), ray_objects()
    return HoldingsSample(
        at_s=at_s,
        images=images,
        driver=_holdings([driver, *_children(driver, _PART_DRIVER)]),
        actors=_holdings(_children(driver, _ACTOR)),
        objects_held=found.held,
        objects_stored=found.stored,
        stored_mb=found.stored_bytes / (1 << 20),
        spilled_mb=found.spilled_bytes / (1 << 20),
    )


def _children(driver: psutil.Process, title: str) -> Iterator[psutil.Process]:
    for child in driver.children(recursive=True):
        try:
            if title in _title(child):
                yield child
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue


def _holdings(processes: Iterable[psutil.Process]) -> Holdings:
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


def trend(samples: Sequence[HoldingsSample], figure: Callable[[HoldingsSample], float]) -> Trend:
    """Return the trend of one figure. Raises ValueError for fewer than eight samples."""
    if len(samples) < 8:
        raise ValueError("too short to tell a trend: take more minutes")
    warm = samples[round(len(samples) * _WARM) :]
    values = [figure(sample) for sample in warm]
    few = max(len(values) // 5, 1)
    return Trend(
        begin=statistics.median(values[:few]),
        end=statistics.median(values[-few:]),
        peak=max(map(figure, samples)),
        slope_per_hour=3600 * _slope([sample.at_s for sample in warm], values),
    )
