"""A reader of shards: tables of `schema.READ` with samples, pixels, rejections, and one end row.

It is deterministic: the same shard gives the same tables in the same order. Ray's retry of a reader
skips the tables that were already delivered, so nothing here may depend on timing.
"""

import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

import pyarrow as pa

from kosmos2_core.errors import ImageError
from kosmos2_core.images.decode import DecodedImage, DecodeMode, ExifPolicy
from pipeline.concurrency import SharedCounter
from pipeline.dataset.listings import Listings
from pipeline.dataset.shards import Shard
from pipeline.errors import DecoderHung, PipelineError, WorkerDied
from pipeline.formats.sample import BrokenArchive, Sample, Skipped, Unreadable
from pipeline.reading.copies import Copies, FoundSample, LookedUp
from pipeline.reading.decoding import ChildDecoder, Decoder, ThreadDecoder
from pipeline.reading.read_table import read_table, sample_row
from pipeline.reading.sample_reader import SampleReader
from pipeline.schema import Rejection, ShardEnd
from pipeline.spec.job import JobSpec
from pipeline.storage import InputStore

GROUP_SIZE = 64  # samples per table: 9.6 MB of pixels
# Decoding releases the GIL; the second thread works while the first waits for the archive.
DECODE_THREADS = 2
# Limits on encoded images in memory per reader.
_AHEAD = 8
_AHEAD_BYTES = 64 << 20

_Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardReader:
    """Reads shards from `store`; a rejected sample gets a row for each of `tasks`.

    An image that `copies` finds is not decoded. `decoded` counts all others, even those that cannot
    be decoded. `decode_s` counts the seconds of their threads. `SampleReader` documents the other
    fields.
    """

    store: InputStore
    tasks: tuple[str, ...]
    exif: ExifPolicy
    decode: DecodeMode = "exact"
    image_column: str | None = None
    image_member: str | None = None
    listings: Listings | None = None
    copies: Copies | None = None
    decoded: SharedCounter = field(default_factory=SharedCounter)
    decode_s: SharedCounter = field(default_factory=SharedCounter)

    @classmethod
    def of_job(cls, spec: JobSpec, listings: Listings, copies: Copies | None = None) -> Self:
        """Return the reader of a job; `listings` holds its lists of images."""
        return cls(
            store=InputStore(spec.input_storage),
            tasks=spec.task_names,
            exif=spec.exif,
            decode=spec.decode,
            image_column=spec.image_column,
            image_member=spec.image_member,
            listings=listings,
            copies=copies,
        )

    def read(self, shard: Shard) -> Iterator[pa.Table]:
        """Yield tables of `schema.READ`. The end row describes a damaged input.

        Raises only DecoderHung: a thread of this process hangs, and another process must continue.
        """
        yield from self.read_with(shard, ThreadDecoder(self.exif, self.decode))

    def read_isolated(self, shard: Shard) -> Iterator[pa.Table]:
        """Yield the same tables, more slowly, and reject an image that kills its decoder.

        For a shard that has killed its reader before.
        """
        with ChildDecoder(self.exif, self.decode) as decoder:
            yield from self.read_with(shard, decoder)

    def read_with(self, shard: Shard, decoder: Decoder) -> Iterator[pa.Table]:
        """Yield the tables of `read`, with another decoder. Raises DecoderHung."""
        rows: list[_Row] = []
        for samples, found in enumerate(self._decoded(shard, decoder)):
            if isinstance(found, ShardEnd):
                rows.append(_row(shard, end=asdict(replace(found, samples=samples))))
                break
            rows += found
            if (samples + 1) % GROUP_SIZE == 0 and rows:
                yield read_table(rows)
                rows = []
        yield read_table(rows)

    def give_up(self, shard: Shard, message: str) -> pa.Table:
        """Return the end row of a shard that repeatedly kills its reader."""
        end = ShardEnd(samples=0, error_type=WorkerDied.code, message=message)
        return read_table([_row(shard, end=asdict(end))])

    def _decoded(self, shard: Shard, decoder: Decoder) -> Iterator[list[_Row] | ShardEnd]:
        """Yield the rows of each sample in order, then one ShardEnd without its count."""
        with _decode_threads() as pool:
            waiting: deque[tuple[int, Future[list[_Row]]]] = deque()
            ahead_bytes = 0
            for found, looked_up in self._looked_up(shard):
                if isinstance(found, ShardEnd):
                    yield from (_result(future, decoder) for _, future in waiting)
                    yield found
                    return
                size_bytes = len(found.data) if isinstance(found, Sample) else 0
                rows = pool.submit(self._rows, shard, found, looked_up, decoder)
                waiting.append((size_bytes, rows))
                ahead_bytes += size_bytes
                while len(waiting) > _AHEAD or ahead_bytes > _AHEAD_BYTES:
                    size_bytes, future = waiting.popleft()
                    ahead_bytes -= size_bytes
                    yield _result(future, decoder)

    def _looked_up(self, shard: Shard) -> Iterator[tuple[FoundSample | ShardEnd, LookedUp | None]]:
        """Yield samples, each with what was looked up for it, if copies are skipped.

        Each takes one row either way, so the tables of a shard end at the same samples each time.
        """
        found = self._samples(shard)
        return self.copies.looked_up(found) if self.copies else ((each, None) for each in found)

    def _samples(self, shard: Shard) -> Iterator[FoundSample | ShardEnd]:
        samples = SampleReader(
            store=self.store,
            image_column=self.image_column,
            image_member=self.image_member,
            listings=self.listings,
        )
        try:
            try:
                yield from samples.read(shard)
            except BrokenArchive as broken:
                # Damage is permanent only if the file is still the planned one.
                self.store.verify(shard.source)
                yield broken.lost
                yield ShardEnd(samples=0, truncated=True)
                return
        except PipelineError as error:
            yield ShardEnd(
                samples=0, error_type=error.code, message=str(error), retriable=error.retriable
            )
            return
        yield ShardEnd(samples=0)

    def _rows(
        self, shard: Shard, found: FoundSample, looked_up: LookedUp | None, decoder: Decoder
    ) -> list[_Row]:
        if shard.only is not None and found.index not in shard.only:
            return []
        assert not isinstance(found, Skipped), "only samples that were not requested are skipped"
        if isinstance(found, Unreadable):
            return self._rejected(shard, found, "read", found.error_type, found.message)
        copy = self.copies.row(shard, found, looked_up) if self.copies and looked_up else None
        if copy is not None:
            return [copy]
        try:
            image = self._timed(decoder, found)
        except (ImageError, WorkerDied) as error:
            return self._rejected(shard, found, "decode", error.code, str(error))
        sha256 = looked_up.sha256 if looked_up else None
        return [sample_row(shard, found, image, sha256)]

    def _timed(self, decoder: Decoder, sample: Sample) -> DecodedImage:
        started = time.perf_counter()
        try:
            return decoder.decode(sample)
        finally:
            self.decode_s.add(time.perf_counter() - started)
            self.decoded.add()

    def _rejected(
        self, shard: Shard, found: Sample | Unreadable, stage: str, error_type: str, message: str
    ) -> list[_Row]:
        return [
            _row(
                shard,
                rejected=asdict(
                    Rejection(
                        shard_id=shard.shard_id,
                        index=found.index,
                        task=task,
                        key=found.key,
                        uri=found.uri or shard.uri,
                        member=found.member,
                        stage=stage,
                        error_type=error_type,
                        message=message,
                        retriable=isinstance(found, Unreadable) and found.is_retriable,
                    )
                ),
            )
            for task in self.tasks
        ]


@contextmanager
def _decode_threads() -> Iterator[ThreadPoolExecutor]:
    pool = ThreadPoolExecutor(DECODE_THREADS)
    is_hung = False
    try:
        yield pool
    except DecoderHung:
        is_hung = True
        raise
    finally:
        pool.shutdown(wait=not is_hung, cancel_futures=True)


def _result(future: Future[list[_Row]], decoder: Decoder) -> list[_Row]:
    """Return the rows of the first waiting sample.

    Raises DecoderHung; the thread then continues to run.
    """
    try:
        return future.result(decoder.limit_s)
    except TimeoutError:
        raise DecoderHung(
            f"an image was not decoded within {decoder.limit_s:g} s; the shard is retried with "
            "each image in a child process, which finds the image"
        ) from None


def _row(shard: Shard, **content: Any) -> _Row:
    return {"shard_id": shard.shard_id, **content}
