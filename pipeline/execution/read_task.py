"""The task that reads a shard into tables of its samples.

Modules that need torch are imported where they run; the driver, which imports this module, never
imports torch.
"""

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pyarrow as pa

from pipeline.dataset.listings import StoredListings
from pipeline.dataset.shards import Shard
from pipeline.errors import DecoderHung
from pipeline.execution import metrics
from pipeline.execution.annotate.isolation import ISOLATED_ATTEMPT
from pipeline.execution.ray_private import task_attempt
from pipeline.execution.worker_log import ANY_STYLE, begin_worker, end_process, logged
from pipeline.faults import fault
from pipeline.logs import LogStyle
from pipeline.spec.job import JobSpec
from pipeline.storage import InputStore, open_output

if TYPE_CHECKING:
    from pipeline.reading.shard_reader import ShardReader

# Ray repeats tasks that ran out of memory without counting retries, by default forever.
READER_ATTEMPTS = 6


class ReadShard:
    """Turns one row (a shard) into its samples. It is a Ray task."""

    def __init__(self, spec: JobSpec, style: LogStyle = ANY_STYLE) -> None:
        self._spec = spec
        self._style = style

    def __call__(self, shards: pa.Table) -> Iterator[pa.Table]:
        from pipeline.reading.shard_reader import ShardReader

        begin_worker(self._style)
        output = open_output(self._spec.output, self._spec.output_storage)
        reader = ShardReader(
            store=InputStore(self._spec.input_storage),
            tasks=self._spec.task_names,
            exif=self._spec.exif,
            decode=self._spec.decode,
            image_column=self._spec.image_column,
            image_member=self._spec.image_member,
            listings=StoredListings(output),
        )
        for row in shards.to_pylist():
            shard_id, attempt = row["shard_id"], task_attempt()
            try:
                tables = tables_of_attempt(reader, Shard(**row), attempt=attempt)
                for table in logged(shard_id, _observed(reader, tables), attempt=attempt):
                    yield table
                    fault("reader.block", shard_id=shard_id)
            except DecoderHung as error:
                end_process(error, shard_id)


def _observed(reader: "ShardReader", tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    started = time.monotonic()
    for table in tables:
        metrics.observe("kosmos2_read_seconds", time.monotonic() - started)
        metrics.count("kosmos2_images_decoded", reader.decoded.take())
        metrics.count("kosmos2_image_decode_seconds", reader.decode_s.take())
        metrics.count_store_retries()
        yield table
        started = time.monotonic()


def tables_of_attempt(reader: "ShardReader", shard: Shard, *, attempt: int) -> Iterator[pa.Table]:
    """Yield the tables of `shard`, with more isolation the more often its readers have died."""
    if attempt >= READER_ATTEMPTS:
        yield reader.give_up(
            shard,
            f"its reader died {attempt} times, even with each image decoded in a child process; "
            "check the memory of the nodes, then run `kosmos2 retry`",
        )
    elif attempt >= ISOLATED_ATTEMPT:
        yield from reader.read_isolated(shard)
    else:
        yield from reader.read(shard)
