"""The start, the log lines and the end of reader and actor processes."""

import logging
import os
import time
from collections.abc import Iterator
from typing import Any, NoReturn

import pyarrow as pa
import ray

from pipeline.logs import LogStyle, write_lines
from pipeline.storage.clouds.retries import RETRIES

_SAMPLES_NAMED = 5  # number of rejected samples to name; the rejects file has all
_NAMES = ("index", "key", "task", "error_type")

ANY_STYLE = LogStyle()

_log = logging.getLogger(__name__)


def begin_worker(style: LogStyle) -> None:
    """Write log lines in `style` if this process is a Ray worker.

    Any other process belongs to its caller, who configures its logging.
    """
    if ray.is_initialized():
        write_lines(style)


def logged(shard_id: str, tables: Iterator[pa.Table], *, attempt: int) -> Iterator[pa.Table]:
    """Yield the `tables` of a shard as they come, then log the shard."""
    started, sent_again = time.monotonic(), RETRIES.total
    rejections, named, end = 0, list[dict[str, Any]](), dict[str, Any]()
    for table in tables:
        rejected = table["rejected"].drop_null()
        rejections += len(rejected)
        named += _naming(rejected.slice(0, _SAMPLES_NAMED - len(named)).to_pylist())
        end = next(iter(table["end"].drop_null().to_pylist()), end)
        yield table
    error = end.get("error_type")
    why = f"; {error}: {end['message']}" if error else ""
    _log.log(
        logging.WARNING if error else logging.INFO,
        "read %s: %s samples, %d rejections%s",
        shard_id,
        end.get("samples"),
        rejections,
        why,
        extra={
            "shard_id": shard_id,
            "samples": end.get("samples"),
            "rejected": rejections,
            "rejected_samples": named,
            "error_type": error,
            "attempt": attempt,
            "read_s": round(time.monotonic() - started, 3),
            "store_retries": round(RETRIES.total - sent_again),
        },
    )


def log_rejections(rejected: list[dict[str, Any]]) -> None:
    """Log the rejections of an actor, one line per shard."""
    for shard_id in dict.fromkeys(row["shard_id"] for row in rejected):
        own = [row for row in rejected if row["shard_id"] == shard_id]
        named = _naming(own[:_SAMPLES_NAMED])
        _log.warning(
            "not annotated of %s: %s",
            shard_id,
            ", ".join(f"{row['index']} ({row['error_type']})" for row in named),
            extra={"shard_id": shard_id, "rejected": len(own), "rejected_samples": named},
        )


def _naming(rejected: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what identifies each rejected sample, and its error_type."""
    return [{name: row[name] for name in _NAMES} for row in rejected]


def end_process(error: Exception, shard_id: str) -> NoReturn:
    """End this process at once, without an exception.

    After an exception an actor would live on and fail every further table, and a reader's task
    would not be retried. Ray starts another process and gives it the same work.
    """
    _log.critical(
        "this process ends while it processes %s: %s",
        shard_id,
        error,
        exc_info=error,
        extra={"shard_id": shard_id},
    )
    logging.shutdown()
    os._exit(1)
