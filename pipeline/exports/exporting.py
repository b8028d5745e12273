"""The streaming frame: committed shards -> examples -> the writer of a format.

Shards are read ahead and pictures fetched ahead by threads, which mostly wait for the store; what
comes out keeps the order of the plan, so the same export gives the same files. In memory are a few
shards' tables, some dozens of pictures and the files that are being made.
"""

from collections import Counter
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import tee
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.ahead import in_order
from pipeline.committer import annotations_key, job_metadata
from pipeline.errors import SpecError
from pipeline.exports.card import card
from pipeline.exports.categories import categories_from
from pipeline.exports.coverage import Coverage
from pipeline.exports.destination import Destination
from pipeline.exports.example import COLUMNS, Example, Picture, example_of
from pipeline.exports.formats import Format, Setting
from pipeline.exports.registry import FORMATS
from pipeline.fields import columns_of
from pipeline.files import footer_metadata
from pipeline.job import Job
from pipeline.ledger import Ledger
from pipeline.pictures import Fetch, extension_of, fetches, upright_bytes
from pipeline.samples import SampleReader
from pipeline.shards import Shard
from pipeline.spec import ExportOptions
from pipeline.storage import InputStore, OutputStore

README_KEY = "README.md"
_SHARDS_AHEAD = 4
_PICTURES_AHEAD = 64
_THREADS = 16
_ROWS = 256  # of a shard, as Python objects at a time

Observer = Callable[[Coverage], None]


def export(
    job: Job,
    inputs: InputStore,
    destination: OutputStore,
    options: ExportOptions,
    observe: Observer = lambda _: None,
) -> Coverage:
    """Write all that is committed of `job` to `destination`.

    `observe` is called after each shard. Raises SpecError where the format cannot do what the
    options ask for or the destination is taken, and PipelineError where storage fails or an input
    whose pictures are wanted has changed.
    """
    chosen = FORMATS[options.format]
    tasks = _tasks(job, options, chosen)
    options = options.model_copy(update={"images": _images(options, chosen)})
    splits = list(options.shares)
    with Destination(destination) as place:
        setting = Setting(
            destination=place,
            options=options,
            categories=categories_from(options.categories),
            model=_model_name(job),
            carried=columns_of(job.record.identity.carry),
        )
        place.begin(
            options.format,
            folders=_folders(chosen, splits),
            files=(README_KEY, *chosen.files),
            overwrite=options.overwrite,
        )
        committed = Ledger(job.store).committed()
        coverage = Coverage(
            shards_planned=len(job.plan.shards), by_split=Counter(dict.fromkeys(splits, 0))
        )
        writer = chosen.open(setting)
        examples = _examples(job, inputs, options, tasks, committed, coverage, observe)
        with closing(examples):  # or its threads outlive an error
            for example in examples:
                writer.add(example)
                coverage.add(example)
        writer.close()
        coverage.boxes_without_class = setting.categories.left_out
        place.write(README_KEY, card(job, options, chosen, coverage).encode())
        place.finish(_details(job, options, coverage, place))
    return coverage


@dataclass(frozen=True, slots=True, kw_only=True)
class _ShardRows:
    ordinal: int
    shard: Shard
    rejected: int
    table: pa.Table


def _examples(
    job: Job,
    inputs: InputStore,
    options: ExportOptions,
    tasks: tuple[str, ...],
    committed: set[str],
    coverage: Coverage,
    observe: Observer,
) -> Generator[Example, None, None]:
    carried = [column.name for column in columns_of(job.record.identity.carry)]
    reads = (
        partial(_read, job.store, ordinal, shard, tasks, [*COLUMNS, *carried])
        for ordinal, shard in enumerate(job.plan.shards)
        if shard.shard_id in committed
    )
    of_row = partial(example_of, options=options, has_task_in_name=len(tasks) > 1, carried=carried)
    exif = job.record.identity.exif
    reader = SampleReader(store=inputs, image_column=job.record.identity.image_column)
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="fetch") as pool:
        for rows in in_order(pool, reads, ahead=_SHARDS_AHEAD):
            if options.images == "embed":
                calls = _picture_calls(rows, of_row, reader, exif)
                yield from in_order(pool, calls, ahead=_PICTURES_AHEAD)
            else:
                yield from (of_row(r, ordinal=rows.ordinal) for r in _row_dicts(rows.table))
            coverage.shards_exported += 1
            coverage.rejected += rows.rejected
            observe(coverage)


def _picture_calls(
    rows: _ShardRows, of_row: Callable[..., Example], reader: SampleReader, exif: Any
) -> Iterator[Callable[[], Example]]:
    found, fetched = tee(_row_dicts(rows.table))
    fetching = fetches(fetched, rows.shard, reader)
    for row, fetch in zip(found, fetching, strict=True):
        example = of_row(row, ordinal=rows.ordinal)
        yield partial(_with_picture, example, fetch, row["exif_orientation"], exif)


def _with_picture(example: Example, fetch: Fetch, orientation: int, exif: Any) -> Example:
    data = upright_bytes(fetch(), orientation=orientation, exif=exif)
    return replace(example, picture=Picture(data=data, extension=extension_of(data)))


def _read(
    store: OutputStore, ordinal: int, shard: Shard, tasks: tuple[str, ...], columns: list[str]
) -> _ShardRows:
    with store.open(annotations_key(shard.shard_id)) as file, pq.ParquetFile(file) as parquet:
        table = parquet.read(columns=columns)
        rejects = footer_metadata(parquet.metadata)["rejects"]
    return _ShardRows(
        ordinal=ordinal,
        shard=shard,
        rejected=_rejected(store, rejects, tasks) if rejects else 0,
        table=_of_tasks(table, tasks),
    )


def _rejected(store: OutputStore, key: str, tasks: tuple[str, ...]) -> int:
    with store.open(key) as file:
        return int(_of_tasks(pq.read_table(file, columns=["task"]), tasks).num_rows)


def _of_tasks(table: pa.Table, tasks: tuple[str, ...]) -> pa.Table:
    return table.filter(pc.is_in(table["task"], pa.array(tasks, pa.string())))


def _row_dicts(table: pa.Table) -> Iterator[dict[str, Any]]:
    for batch in table.to_batches(max_chunksize=_ROWS):
        yield from batch.to_pylist()


def _tasks(job: Job, options: ExportOptions, chosen: Format) -> tuple[str, ...]:
    there = tuple(task.name for task in job.record.identity.tasks)
    if unknown := [task for task in options.task if task not in there]:
        raise SpecError(
            f"{job.store.uri} has no task {unknown[0]!r}; --task takes: {', '.join(there)}"
        )
    tasks = options.task or there
    if chosen.is_by_picture and len(tasks) > 1:
        raise SpecError(
            f"{options.format} has one entry per picture, and {job.store.uri} has annotations of "
            f"{len(tasks)} tasks; choose one with --task: {', '.join(tasks)}"
        )
    return tasks


def _images(options: ExportOptions, chosen: Format) -> str:
    if options.images == "embed" and not chosen.can_embed:
        raise SpecError(f"{options.format} has no place for pictures; leave out --images embed")
    if options.categories != "object" and not chosen.has_classes:
        raise SpecError(f"{options.format} has phrases, no classes; leave out --categories")
    if options.images == "auto":
        return "embed" if chosen.embeds else "reference"
    return options.images


def _folders(chosen: Format, splits: list[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(f.format(split=s) for f in chosen.folders for s in splits))


def _model_name(job: Job) -> str:
    return f"{job.record.model.id} {job.record.model.weights_digest[:12]}"


def _details(
    job: Job, options: ExportOptions, coverage: Coverage, place: Destination
) -> dict[str, Any]:
    return {
        "source": job.store.uri,
        **job_metadata(job.record),
        "options": options.model_dump(exclude_defaults=True),
        "coverage": coverage.summary(),
        "files": place.files,
        "size_bytes": place.size_bytes,
    }
