"""Figures for Prometheus, through Ray: each process reports its own, and Ray's agents serve them.

Ray puts "ray_" before each name, and "_total" behind those of counters. What a process reported is
served until some 20 s after its end.
"""

import os
import threading
import time
from collections.abc import Callable, Mapping
from functools import cache

from ray.util.metrics import Counter, Gauge, Histogram

from kosmos2_core.engine.vitals import Vitals
from pipeline.progress import Progress
from pipeline.storage.s3 import RETRIES
from pipeline.version import JOB_VARIABLE

_SECONDS = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0]
# The name of a submitted attempt, "" for others. Not "job", which Prometheus takes for its own.
_JOB = "kosmos2_job"
_WATCH_S = 5.0  # Ray sends them on every 10 s

# Of the driver, at every look at its progress. They begin anew with each attempt.
_OF_DRIVER: Mapping[str, str] = {
    "kosmos2_images_annotated": "Images annotated by this attempt, as they arrive",
    "kosmos2_images_rejected": "Images rejected by this attempt, as they arrive",
    "kosmos2_shards_committed": "Shards that are committed, by whichever attempt",
    "kosmos2_shards_failed": "Shards that failed",
    "kosmos2_shards_left": "Shards that are neither committed nor failed",
    "kosmos2_engine_busy": "Share of the time that the engines of all actors computed",
    "kosmos2_tables_waiting": "Annotated tables that the driver has not taken in yet",
    "kosmos2_shards_open": "Shards of which the driver has some rows and not all",
    "kosmos2_puts_waiting": "Finished shards that wait for the store",
}
# Of each actor, every 5 s; a worker's gauges are told apart by Ray's label WorkerId.
_OF_ACTOR: Mapping[str, str] = {
    "kosmos2_slots": "Images that the engine can have in work",
    "kosmos2_slots_busy": "Slots that hold an image now",
    "kosmos2_prompts_waiting": "Prompts that the actor has and that no slot is free for",
}
GAUGES: Mapping[str, str] = {**_OF_DRIVER, **_OF_ACTOR}
COUNTERS: Mapping[str, str] = {
    # Of each actor.
    "kosmos2_tokens": "Tokens that the model said",
    "kosmos2_decode_steps": "Decode steps of the engine: a token for each busy slot",
    "kosmos2_decode_step_seconds": "Time that they took, without images and prefills",
    # Of each reader.
    "kosmos2_images_decoded": "Images decoded, or found to be none",
    "kosmos2_image_decode_seconds": "Time that it took, of all decoding threads",
    # Of each reader, and of the driver.
    "kosmos2_store_retries": "Requests to the S3 store that were sent again",
}
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
    count_store_retries()


def show_queues(*, tables: int, shards_open: int, puts: int) -> None:
    _set("kosmos2_tables_waiting", tables)
    _set("kosmos2_shards_open", shards_open)
    _set("kosmos2_puts_waiting", puts)


def watch(vitals: Callable[[], Vitals]) -> None:
    """Report an engine from now on, in a thread of its own: a table may take it minutes."""
    threading.Thread(target=_watch, args=(vitals,), name="metrics", daemon=True).start()


def _watch(vitals: Callable[[], Vitals]) -> None:
    before = Vitals()
    while True:
        now = vitals()
        show_vitals(now, before)
        before = now
        time.sleep(_WATCH_S)


def show_vitals(now: Vitals, before: Vitals) -> None:
    _set("kosmos2_slots", now.slots)
    _set("kosmos2_slots_busy", now.live)
    _set("kosmos2_prompts_waiting", now.waiting)
    count("kosmos2_decode_steps", now.decode_steps - before.decode_steps)
    count("kosmos2_decode_step_seconds", now.decode_s - before.decode_s)


def count_store_retries() -> None:
    """Count the requests that this process sent again."""
    count("kosmos2_store_retries", RETRIES.take())


def count(name: str, more: float) -> None:
    if more:
        _counter(name).inc(more, tags=_tags())


def observe(name: str, seconds: float) -> None:
    _histogram(name).observe(seconds, tags=_tags())


def _set(name: str, value: float) -> None:
    _gauge(name).set(value, tags=_tags())


def _tags() -> dict[str, str]:
    return {_JOB: os.environ.get(JOB_VARIABLE, "")}


@cache
def _gauge(name: str) -> Gauge:
    return Gauge(name, description=GAUGES[name], tag_keys=(_JOB,))


@cache
def _counter(name: str) -> Counter:
    return Counter(name, description=COUNTERS[name], tag_keys=(_JOB,))


@cache
def _histogram(name: str) -> Histogram:
    return Histogram(name, HISTOGRAMS[name], boundaries=_SECONDS, tag_keys=(_JOB,))
