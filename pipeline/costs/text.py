"""Costs and estimates as text."""

import math
from collections.abc import Callable, Iterator

from pipeline.costs.costs import Costs
from pipeline.costs.interval import Estimate

_HOUR_S = 3600.0
ShowFigure = Callable[[float], str]


def estimate_text(estimate: Estimate, show: ShowFigure) -> str:
    """Return an estimate with its interval."""
    return f"{show(estimate.value)} ({interval_text(estimate, show)})"


def interval_text(estimate: Estimate, show: ShowFigure) -> str:
    """Return the interval of an estimate."""
    if math.isinf(estimate.high):
        return "no interval: one shard is too few"
    return f"{show(estimate.low)} to {show(estimate.high)} with 95 % confidence"


def cost_lines(costs: Costs) -> Iterator[tuple[str, str]]:
    """Yield a name and a text for each figure that is known."""
    time = costs.time
    if time is None:
        yield "GPU hours", f"unknown: {costs.shards_unknown} shards are of an earlier version"
        return
    has_gpus = time.gpu_held_s > 0
    held_s = time.gpu_held_s if has_gpus else time.held_s
    busy_s = time.gpu_busy_s if has_gpus else time.busy_s
    busy = f", {busy_s / held_s:.0%} of them busy" if held_s else ""
    kind = "" if has_gpus or not held_s else ", without GPUs"
    name = "GPU hours" if has_gpus else "actor hours"
    yield name, f"{hours_text(held_s)}{busy}{kind}{_gaps(costs, has_gpus=has_gpus)}"
    if not has_gpus:
        return
    if costs.cost is not None:
        yield "cost so far", money_text(costs.cost)
    if (per_image := costs.gpu_s_per_image) is not None and costs.cost_per_1000_images is None:
        hours = per_image.times(1000 / _HOUR_S)
        yield "GPU hours per 1,000 images", estimate_text(hours, "{:,.4g}".format)
    if costs.cost_per_1000_images is not None:
        yield "cost of 1,000 images", estimate_text(costs.cost_per_1000_images, money_text)
    if costs.cost_left is not None:
        yield "cost to finish", estimate_text(costs.cost_left, money_text)
    elif costs.gpu_s_left is not None:
        yield "GPU hours to finish", estimate_text(costs.gpu_s_left, hours_text)


def _gaps(costs: Costs, *, has_gpus: bool) -> str:
    beside, gaps = costs.in_no_commit, ""
    if beside is not None and beside.held_s:
        outside_s = beside.gpu_held_s if has_gpus else beside.held_s
        gaps += f"; {hours_text(outside_s)} of them in no commit"
    if costs.shards_unknown:
        gaps += f"; {costs.shards_unknown} shards of an earlier version are unknown"
    return gaps


def hours_text(seconds: float) -> str:
    """Return seconds as hours with four digits."""
    return f"{seconds / _HOUR_S:,.4g}"


def money_text(amount: float) -> str:
    """Return an amount of money; a small one with two digits."""
    return f"{amount:,.2f}" if amount >= 1 or not amount else f"{amount:.2g}"
