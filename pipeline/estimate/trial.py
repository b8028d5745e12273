"""A trial: annotate some images in this process, to estimate the time for all of them."""

import math
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from random import Random
from typing import Any, get_args

import pyarrow as pa
import pyarrow.compute as pc

from kosmos2_core.errors import CheckpointError
from kosmos2_core.images.decode import DecodeMode
from kosmos2_core.shared_annotator import SharedAnnotator
from pipeline.costs.interval import Estimate, ratio
from pipeline.dataset.listings import Listings
from pipeline.dataset.shards import Shard
from pipeline.errors import InputMissing, InputUnreadable, SpecError
from pipeline.estimate.reader_cost import ReaderCost, reader_cost
from pipeline.estimate.survey import SHARDS_LOOKED_AT
from pipeline.execution.annotate.actor import switch_threads_often
from pipeline.execution.annotate.tables import TableAnnotator
from pipeline.execution.model import load_annotator, resolved_model
from pipeline.execution.sizes import calls_per_actor
from pipeline.formats.sample import BrokenArchive
from pipeline.parquet import parquet_bytes
from pipeline.reading.sample_reader import SampleReader
from pipeline.reading.shard_reader import ShardReader
from pipeline.spec.identity import ResolvedModel
from pipeline.spec.job import JobSpec
from pipeline.storage import InputStore

ROUNDS = 4  # timed separately, to measure their spread
LEAST_IMAGES = 2 * ROUNDS
_READ_AGAIN = 64  # images, for what reading costs
# A shard of unknown length is read up to this many times as far as needed, to choose among more.
_WINDOW = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """The result of a trial: `seconds_per_image` of one actor, `bytes_per_image` of the output.

    `reader`: what reading costs, in CPU time on this machine, with each mode of `--decode`.
    `answers` are the rows of `schema.ANNOTATION` that were made.
    """

    model: ResolvedModel
    images: int
    rejected: int
    seconds_per_image: Estimate
    bytes_per_image: float
    reader: dict[DecodeMode, ReaderCost]
    answers: tuple[dict[str, Any], ...] = field(repr=False, compare=False)


def trial(
    spec: JobSpec, shards: Sequence[Shard], images: int, listings: Listings, seed: int = 0
) -> Trial:
    """Annotate about `images` images of a few of `shards` in this process, chosen at random.

    The same `seed` chooses the same images. Raises SpecError for a model that does not load,
    InputMissing if there is no image.
    """
    if images < LEAST_IMAGES:
        raise SpecError(
            f"--sample {images} is too small for an estimate; use at least {LEAST_IMAGES}"
        )
    draw = Random(seed)  # noqa: S311 - not for secrets
    places = sorted(draw.sample(range(len(shards)), min(SHARDS_LOOKED_AT, len(shards))))
    shards = [shards[place] for place in places]
    samples = _samples(spec, shards, images, listings, draw)
    reader = _reader_costs(spec, shards, min(images, _READ_AGAIN), listings)
    actor, model = _actor(spec)
    slots = model.slots or 1
    warm_up, *rounds = _rounds(samples)
    actor(warm_up)
    answers, seconds = zip(*(_timed(actor, each, slots) for each in rounds), strict=True)
    table = pa.concat_tables(answers)
    sizes = [each.num_rows for each in rounds]
    return Trial(
        model=model,
        images=sum(sizes),
        rejected=table.num_rows - table["rejected"].null_count,
        seconds_per_image=ratio(list(zip(seconds, sizes, strict=True))),
        bytes_per_image=_output_bytes(table) / sum(sizes),
        reader=reader,
        answers=tuple(table["annotated"].drop_null().to_pylist()),
    )


def input_samples(spec: JobSpec, listings: Listings | None = None) -> SampleReader:
    """Return a reader of the input's samples. It needs `listings` for shards of listed images."""
    return SampleReader.of_job(InputStore(spec.input_storage), spec, listings)


def _reader_costs(
    spec: JobSpec, shards: Sequence[Shard], images: int, listings: Listings
) -> dict[DecodeMode, ReaderCost]:
    samples = input_samples(spec, listings)
    each = math.ceil(images / max(len(shards), 1))
    costs = dict[DecodeMode, ReaderCost]()
    for mode in get_args(DecodeMode):
        cost = reader_cost(samples, shards, images=each, exif=spec.exif, decode=mode)
        assert cost, "the images of the sample were read before"
        costs[mode] = cost
    return costs


def _samples(
    spec: JobSpec, shards: Sequence[Shard], images: int, listings: Listings, draw: Random
) -> pa.Table:
    each = math.ceil(images / max(len(shards), 1))
    reader = ShardReader.of_job(spec, listings)
    samples = input_samples(spec, listings)
    chosen = (_some_of(samples, shard, each, draw) for shard in shards)
    tables = [table for shard in chosen for table in _first(reader, shard, each)]
    if not sum(table.num_rows for table in tables):
        raise InputMissing(
            f"{spec.input} holds no readable image in the shards that were read; check INPUT"
        )
    return pa.concat_tables(tables)[:images]


def _some_of(samples: SampleReader, shard: Shard, count: int, draw: Random) -> Shard:
    """Return the shard with only `count` of its samples, chosen at random."""
    length = shard.count
    if length is None:
        with closing(samples.read(shard)) as found, suppress(BrokenArchive, InputUnreadable):
            length = 0
            for _ in islice(found, _WINDOW * count):
                length += 1
    assert length is not None, "either known or counted"
    places = draw.sample(range(length), min(count, length))
    return replace(shard, only=tuple(sorted(places)))


def _first(reader: ShardReader, shard: Shard, images: int) -> Iterator[pa.Table]:
    """Yield tables of `schema.READ` that hold only samples."""
    for table in reader.read(shard):
        found = table.filter(pc.is_valid(table["sample"]))[:images]
        yield found
        images -= found.num_rows
        if images <= 0:
            return


def _actor(spec: JobSpec) -> tuple[TableAnnotator, ResolvedModel]:
    try:
        annotator = load_annotator(spec)
    except CheckpointError as error:
        raise SpecError(str(error)) from error
    model = resolved_model(annotator)
    switch_threads_often()
    return TableAnnotator(spec, SharedAnnotator(annotator)), model


def _rounds(samples: pa.Table) -> Iterator[pa.Table]:
    """Yield the warm-up round, which is not timed, and then the others."""
    size = math.ceil(samples.num_rows / ROUNDS)
    yield samples[: min(size, LEAST_IMAGES)]
    for start in range(0, samples.num_rows, size):
        yield samples[start : start + size]


def _timed(actor: TableAnnotator, samples: pa.Table, slots: int) -> tuple[pa.Table, float]:
    """Annotate as a job does, several tables at a time."""
    size = math.ceil(samples.num_rows / calls_per_actor(slots))
    tables = [samples[start : start + size] for start in range(0, samples.num_rows, size)]
    with ThreadPoolExecutor(len(tables)) as pool:
        started = time.perf_counter()
        answers = list(pool.map(actor, tables))
        return pa.concat_tables(answers), time.perf_counter() - started


def _output_bytes(answers: pa.Table) -> int:
    rows = answers["annotated"].drop_null()
    schema = pa.schema(list(rows.type))
    columns = [pc.struct_field(rows, [i]) for i in range(len(schema))]
    return len(parquet_bytes(pa.Table.from_arrays(columns, schema=schema)))
