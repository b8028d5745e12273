"""Figures for Prometheus, through Ray: each process reports its own, and Ray's agents serve them.

Ray puts "ray_" before each name, and "_total" behind those of counters.
"""

import os
from collections.abc import Mapping
from functools import cache

from ray.util.metrics import Counter, Gauge, Histogram

from pipeline.progress import Progress
from pipeline.software import JOB_VARIABLE

_SECONDS = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0]

# Of the driver, at every look at its progress. They begin anew with each attempt.
GAUGES: Mapping[str, str] = {
    "kosmos2_images_annotated": "Images annotated by this attempt, as they arrive",
    "kosmos2_images_rejected": "Images rejected by this attempt, as they arrive",
    "kosmos2_shards_committed": "Shards that are committed, by whichever attempt",
    "kosmos2_shards_failed": "Shards that failed",
    "kosmos2_shards_left": "Shards that are neither committed nor failed",
    "kosmos2_engine_busy": "Share of the time that the engines of all actors computed",
}
# Of each actor.
COUNTERS: Mapping[str, str] = {"kosmos2_tokens": "Tokens that the model said"}
# Of each reader, and of the driver.
HISTOGRAMS: Mapping[str, str] = {
    "kosmos2_read_seconds": "From one table of samples to the next: fetching and decoding",
    "kosmos2_put_seconds": "The PUT of a commit",
}


def show(progress: Progress) -> None:
    _set("kosmos2_images_annotated", progress.images_annotated)
    _set("kosmos2_images_rejected", progress.images_rejected)
    _set("kosmos2_shards_committed", progress.shards_done)
    _set("kosmos2_shards_failed", progress.shards_failed)
    left = progress.shards_total - progress.shards_done - progress.shards_failed
    _set("kosmos2_shards_left", left)
    _set("kosmos2_engine_busy", progress.engine_busy or 0.0)


def count(name: str, more: float) -> None:
    if more:
        _counter(name).inc(more, tags=_tags())


def observe(name: str, seconds: float) -> None:
    _histogram(name).observe(seconds, tags=_tags())


def _set(name: str, value: float) -> None:
    _gauge(name).set(value, tags=_tags())


def _tags() -> dict[str, str]:
    """`job` is the name of a submitted attempt, "" for others."""
    return {"job": os.environ.get(JOB_VARIABLE, "")}


@cache
def _gauge(name: str) -> Gauge:
    return Gauge(name, description=GAUGES[name], tag_keys=("job",))


@cache
def _counter(name: str) -> Counter:
    return Counter(name, description=COUNTERS[name], tag_keys=("job",))


@cache
def _histogram(name: str) -> Histogram:
    return Histogram(name, HISTOGRAMS[name], boundaries=_SECONDS, tag_keys=("job",))
