"""Metrics for Prometheus, through Ray: each process reports its own, and Ray's agents serve them.

Ray adds "ray_" in front of each name, and "_total" at the end of a counter's. The values of a
process are served until some 20 s after its end.
"""

import os
import threading
import time
from collections.abc import Callable, Mapping
from functools import cache

from ray.util.metrics import Counter, Gauge, Histogram

from kosmos2_core.engine.vitals import Vitals
from pipeline.progress import Progress
from pipeline.storage.clouds.retries import RETRIES
from pipeline.version import JOB_VARIABLE

_SECONDS = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0]
# Name of a submitted attempt, "" for others. Not "job": Prometheus uses that label itself.
_JOB = "kosmos2_job"
_WATCH_S = 5.0  # Ray forwards them every 10 s

# Reported by the driver at every check of its progress. They restart with each attempt.
_OF_DRIVER: Mapping[str, str] = {
    "kosmos2_images_annotated": "Images annotated by this attempt, as they arrive",
    "kosmos2_images_rejected": "Images rejected by this attempt, as they arrive",
    "kosmos2_shards_committed": "Shards that are committed, by any attempt",
    "kosmos2_shards_failed": "Shards that failed",
    "kosmos2_shards_left": "Shards that are neither committed nor failed",
    "kosmos2_engine_busy": "Share of the time in which the engines of all actors were computing",
    "kosmos2_tables_waiting": "Annotated tables that the driver has not processed yet",
    "kosmos2_shards_open": "Shards of which the driver has some rows but not all",
    "kosmos2_puts_waiting": "Finished shards whose PUT has not ended",
}
# Reported by each actor every 5 s; Ray's label WorkerId tells the gauges of workers apart.
_OF_ACTOR: Mapping[str, str] = {
    "kosmos2_slots": "Images that the engine can process at once",
    "kosmos2_slots_busy": "Slots that hold an image",
    "kosmos2_prompts_waiting": "Prompts of the actor that wait for a free slot",
}
GAUGES: Mapping[str, str] = {**_OF_DRIVER, **_OF_ACTOR}
COUNTERS: Mapping[str, str] = {
    # Reported by each actor.
    "kosmos2_tokens": "Tokens that the model generated",
    "kosmos2_decode_steps": "Decode steps of the engine; each yields a token per busy slot",
    "kosmos2_decode_step_seconds": "Time of the decode steps, without image encoding and prefill",
    # Reported by each reader.
    "kosmos2_images_decoded": "Images decoded or rejected by the decoder",
    "kosmos2_image_decode_seconds": "Time to decode them, summed over all decoding threads",
    # Reported by each reader and by the driver.
    "kosmos2_store_retries": "Requests to the S3 store that were retried",
}
# Reported by each reader and by the driver.
HISTOGRAMS: Mapping[str, str] = {
    "kosmos2_read_seconds": "Time from one table of samples to the next: fetch and decode",
    "kosmos2_put_seconds": "Time of the PUT of a commit",
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
    """Report an engine from now on, in a separate thread: one table may take it minutes."""
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
    """Count the requests that this process retried."""
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
