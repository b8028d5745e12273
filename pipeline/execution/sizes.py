"""The sizes of tables and tasks, and their numbers in flight."""

import math
from collections.abc import Sequence

from pipeline.dataset.shards import Shard
from pipeline.schema import PIXELS_SIZE

# Each table costs the driver some milliseconds, whatever its size.
LEAST_ROWS, _MOST_BYTES = 64, 128 << 20
ROW_BYTES = round(1.1 * PIXELS_SIZE)  # of a sample: pixels, and what else is known of it
_STORE_SHARES = 16  # of an actor's part of Ray's store; a table may fill one
_TASK_BYTES, _TASK_SHARDS = 256 << 20, 64  # limits on the inputs of a reader's task
_TASKS_PER_CPU = 4  # at least, if there are as many shards


def rows_per_table(slots: int, store_bytes: float = math.inf) -> int:
    """Return the number of rows in a table: to fill the slots of an actor four times.

    A table takes at most a sixteenth of `store_bytes`, the share of an actor in Ray's store.
    """
    most = min(_MOST_BYTES, store_bytes / _STORE_SHARES) // ROW_BYTES
    return int(max(min(4 * slots, most), LEAST_ROWS))


def calls_per_actor(slots: int, rows: int | None = None) -> int:
    """Return the number of tables of `rows` rows that an actor processes concurrently.

    One is finishing; the others are enough to fill its slots twice.
    """
    return 1 + math.ceil(2 * slots / (rows or rows_per_table(slots)))


def shards_per_task(shards: Sequence[Shard], cpus: float) -> int:
    """Return the number of shards that a reader's task takes, so that tasks are few but enough."""
    largest = max(shard.own_bytes for shard in shards)
    by_size = _TASK_BYTES // max(largest, 1)
    by_number = len(shards) // max(int(_TASKS_PER_CPU * cpus), 1)
    return max(min(by_size, by_number, _TASK_SHARDS), 1)
