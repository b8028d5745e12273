"""The task that reads a shard into tables of its samples.

Modules that need torch are imported where they run; the driver, which imports this module, never
imports torch.
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from itertools import chain
from typing import Protocol

import pyarrow as pa

from pipeline.concurrency import SharedCounter
from pipeline.dataset.listings import StoredListings
from pipeline.dataset.originals import Originals, StoredAnswers, outputs_of
from pipeline.dataset.shards import Shard
from pipeline.errors import DecoderHung
from pipeline.execution import metrics
from pipeline.execution.annotate.isolation import ISOLATED_ATTEMPT
from pipeline.execution.ray_private import task_attempt
from pipeline.execution.sizes import LEAST_ROWS
from pipeline.execution.worker_log import ANY_STYLE, begin_worker, end_process, logged
from pipeline.faults import fault
from pipeline.logs import LogStyle
from pipeline.schema import END, READ, unexpected_end
from pipeline.spec.job import JobSpec
from pipeline.storage import open_output

# Ray repeats tasks that ran out of memory without counting retries, by default forever.
READER_ATTEMPTS = 6

_log = logging.getLogger(__name__)


class Reader(Protocol):
    """A reader of shards; `ShardReader` documents it."""

    @property
    def decoded(self) -> SharedCounter: ...

    @property
    def decode_s(self) -> SharedCounter: ...

    def read(self, shard: Shard) -> Iterator[pa.Table]: ...

    def read_isolated(self, shard: Shard) -> Iterator[pa.Table]: ...

    def give_up(self, shard: Shard, message: str) -> pa.Table: ...


MakeReader = Callable[[JobSpec], Reader]


def shard_reader(spec: JobSpec, originals: Originals | None = None) -> Reader:
    """Make the reader of a job, which does not decode copies of `originals`."""
    from pipeline.reading.copies import Copies
    from pipeline.reading.shard_reader import ShardReader

    listings = StoredListings(open_output(spec.output, spec.output_storage))
    copies = None
    if originals is not None:
        copies = Copies(originals=originals, answers=StoredAnswers(outputs_of(spec)))
    return ShardReader.of_job(spec, listings, copies)


class ReadShard:
    """Turns a few shards, a row each, into tables of `rows` rows. It is a Ray task."""

    def __init__(
        self,
        spec: JobSpec,
        rows: int = LEAST_ROWS,
        style: LogStyle = ANY_STYLE,
        make_reader: MakeReader = shard_reader,
    ) -> None:
        self._spec = spec
        self._rows = rows
        self._style = style
        self._make_reader = make_reader

    def __call__(self, shards: pa.Table) -> Iterator[pa.Table]:
        begin_worker(self._style)
        attempt = task_attempt()
        if attempt >= READER_ATTEMPTS and shards.num_rows > 1:
            return  # the next pass reads each alone, and gives up only those that kill their reader
        reader = self._make_reader(self._spec)
        parts = (self._read(reader, Shard(**row), attempt) for row in shards.to_pylist())
        for table in tables_of_size(chain.from_iterable(parts), self._rows):
            yield table
            fault("reader.block", shard_id=table["shard_id"][-1].as_py())

    def _read(self, reader: Reader, shard: Shard, attempt: int) -> Iterator[pa.Table]:
        try:
            tables = tables_of_attempt(reader, shard, attempt=attempt)
            yield from logged(shard.shard_id, _observed(reader, tables), attempt=attempt)
        except DecoderHung as error:
            end_process(error, shard.shard_id)
        # This is a boundary: Ray would drop the rest of the task, and nobody would learn why.
        except Exception as error:  # noqa: BLE001
            _log.exception("%s could not be read", shard.shard_id)
            end = {"shard_id": shard.shard_id, "end": asdict(unexpected_end(error))}
            yield pa.Table.from_pylist([end], schema=READ)


def tables_of_size(tables: Iterable[pa.Table], rows: int) -> Iterator[pa.Table]:
    """Cut and join successive tables so that each has `rows` rows; the last one has the rest."""
    parts, count = list[pa.Table](), 0
    for table in tables:
        rest = table
        while rest.num_rows:
            parts.append(rest[: rows - count])
            rest = rest[rows - count :]
            count += parts[-1].num_rows
            if count == rows:
                yield _joined(parts)
                parts, count = [], 0
    if parts:
        yield _joined(parts)


def _joined(parts: list[pa.Table]) -> pa.Table:
    return parts[0] if len(parts) == 1 else pa.concat_tables(parts).combine_chunks()


def _observed(reader: Reader, tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    cpu_s, read_s, started = time.process_time(), 0.0, time.monotonic()
    for table in tables:
        took_s = time.monotonic() - started
        read_s += took_s
        metrics.observe("kosmos2_read_seconds", took_s)
        metrics.count("kosmos2_images_decoded", reader.decoded.take())
        metrics.count("kosmos2_image_decode_seconds", reader.decode_s.take())
        metrics.count_store_retries()
        yield _with_times(table, read_s=read_s, cpu_s=time.process_time() - cpu_s)
        started = time.monotonic()


def _with_times(table: pa.Table, **times: float) -> pa.Table:
    """Note in the end row, if the table has one, how long reading took."""
    if table["end"].null_count == table.num_rows:
        return table
    ends = [end and {**end, **times} for end in table["end"].to_pylist()]
    place = table.schema.get_field_index("end")
    return table.set_column(place, table.schema.field(place), pa.array(ends, END))


def tables_of_attempt(reader: Reader, shard: Shard, *, attempt: int) -> Iterator[pa.Table]:
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
