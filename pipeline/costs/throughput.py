"""Images per second, from the times at which commits were written."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from statistics import median

import numpy as np
import numpy.typing as npt

# A gap between two commits that is longer than this, and than ten usual gaps, is a pause without a
# run. Otherwise a run that is resumed a day later would look idle.
PAUSE_S = 600.0
_USUAL_GAPS = 10
_MOST_BINS = 60
_COMMITS_PER_BIN = 4  # fewer would make the line jump with single shards


Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """The time of a commit and its number of images."""

    at: datetime
    images: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    after_s: float  # seconds of work before the pause
    length_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Throughput:
    """The speed of the runs.

    `bins` are images per second in equal parts of `worked_s`, without pauses.
    """

    began: datetime
    ended: datetime
    worked_s: float
    images_per_s: float
    bins: tuple[float, ...]
    pauses: tuple[Pause, ...]


def throughput_of(commits: Iterable[Timed], began: datetime) -> Throughput | None:
    """Return the speed; None if the times are not enough: no commits, or all at once.

    `began` is the start of the job; it counts if the first commit followed shortly. The images of
    the first commit after a pause do not count, since their time is unknown.
    """
    ordered = sorted(commits, key=lambda commit: commit.at)
    if not ordered:
        return None
    times = [min(began, ordered[0].at), *(commit.at for commit in ordered)]
    gaps = np.array([(b - a).total_seconds() for a, b in pairwise(times)])
    usual = median(gaps[1:]) if len(gaps) > 1 else 0.0
    is_pause = gaps > max(PAUSE_S, _USUAL_GAPS * usual)
    worked = np.cumsum(np.where(is_pause, 0, gaps))
    images = np.where(is_pause, 0, [commit.images for commit in ordered]).astype(np.float64)
    if not worked[-1]:
        return None
    return Throughput(
        began=times[int(is_pause[0])],
        ended=times[-1],
        worked_s=float(worked[-1]),
        images_per_s=float(images.sum() / worked[-1]),
        bins=_bins(worked, images),
        pauses=tuple(
            Pause(after_s=float(worked[i]), length_s=float(gaps[i]))
            for i in np.flatnonzero(is_pause)
            if i > 0  # no work precedes it
        ),
    )


def _bins(worked: Numbers, images: Numbers) -> tuple[float, ...]:
    count = min(_MOST_BINS, max(len(images) // _COMMITS_PER_BIN, 1))
    totals, _ = np.histogram(worked, bins=count, range=(0, worked[-1]), weights=images)
    return tuple(float(total) for total in totals / (worked[-1] / count))
