"""Figures as shapes, which the templates draw as inline SVG.

A drawing is stretched to the available width, so it holds no text: labels are HTML around it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

HEIGHT = 100.0
_SHADES = 8  # shades of a heat map


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A bar of a histogram. `link` is its target, "" for none."""

    label: str
    value: str
    height: float  # 0 .. HEIGHT
    link: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """A histogram. `ends` are the labels below its first and last bar."""

    bars: tuple[Bar, ...]
    ends: tuple[str, str]
    peak: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HeatMap:
    """A heat map: SVG path data of the cells of each shade, lightest first; a cell is one unit."""

    paths: tuple[str, ...]
    side: int
    peak: str


def histogram(
    values: Sequence[float] | npt.NDArray[np.number],
    label: Callable[[int], str],
    *,
    value: Callable[[float], str] = "{:,.0f}".format,
    link: Callable[[int], str] = lambda i: "",
    ends: tuple[str, str] | None = None,
) -> Histogram:
    """Return the histogram of at least one value.

    `label` and `link` are called with the number of a bar. `ends` are the labels of the first and
    the last bar unless given.
    """
    peak = max(values)
    bars = tuple(
        Bar(
            label=label(i),
            value=value(found),
            height=round(HEIGHT * float(found) / float(peak or 1), 2),
            link=link(i) if found else "",
        )
        for i, found in enumerate(values)
    )
    return Histogram(bars=bars, ends=ends or (bars[0].label, bars[-1].label), peak=value(peak))


def trimmed(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the counts without the zeros at the end; at least one count remains."""
    return counts[: max(np.flatnonzero(counts), default=0) + 1]


def heat_map(counts: npt.NDArray[np.int64]) -> HeatMap:
    """Draw a square of counts; zero is left blank."""
    peak = int(counts.max())
    shades = np.ceil(counts * (_SHADES / max(peak, 1))).astype(int)
    return HeatMap(
        paths=tuple(_cells(shades == shade) for shade in range(1, _SHADES + 1)),
        side=len(counts),
        peak=f"{peak:,}",
    )


def _cells(is_there: npt.NDArray[np.bool_]) -> str:
    return "".join(f"M{x} {y}h1v1h-1z" for y, x in np.argwhere(is_there))
