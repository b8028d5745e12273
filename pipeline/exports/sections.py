"""The streaming of an export: shards of a section -> examples -> the writer of a format.

Threads read shards and fetch images ahead; they mostly wait for the store. The output keeps the
order of the plan, so the same export gives the same files. Memory holds a few shards' tables, some
dozens of images and the open files.
"""

from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import tee
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.concurrency import in_order
from pipeline.dataset.commit import open_commit, open_rejects
from pipeline.dataset.shards import Shard
from pipeline.exports.categories import Categories
from pipeline.exports.coverage import Coverage
from pipeline.exports.destination import Destination
from pipeline.exports.example import (
    EXAMPLE_COLUMNS,
    LAST_ORDINAL,
    Example,
    ImageFile,
    example_of,
    image_id,
)
from pipeline.exports.formats.protocol import FinishedShard, Setting, ShardWriter
from pipeline.exports.formats.registry import EXPORT_FORMATS
from pipeline.exports.manifest import ExportedShard, shards_in_files
from pipeline.exports.options import ExportOptions
from pipeline.exports.references import reference
from pipeline.faults import fault
from pipeline.reading.row_images import Fetch, extension_of, fetches, upright_bytes
from pipeline.reading.sample_reader import SampleReader
from pipeline.review.curve import Curve
from pipeline.schema import REJECTION
from pipeline.spec.fields import carried_columns
from pipeline.spec.identity import JobRecord
from pipeline.storage import InputStore, OutputStore

_SHARDS_AHEAD = 4
_IMAGES_AHEAD = 64
_THREADS = 16
_OF_REJECTS = ["index", "task", "key", "uri", "error_type"]
_ROWS = 256  # rows of a shard held as Python objects at a time

PlannedShard: TypeAlias = tuple[int, Shard]  # position in the plan, and shard


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """Consecutive shards of the plan, exported into separate files.

    `number`, from 0 on, appears in the names of these files; it is None if there is only one
    section. A section without shards makes files without examples, which give readers the columns
    or classes.
    """

    shards: tuple[PlannedShard, ...] = ()
    number: int | None = None

    def __str__(self) -> str:
        if not self.shards:
            return "section without shards"
        (_, first), (_, last) = self.shards[0], self.shards[-1]
        return f"section {self.number or 0} (shards {first.shard_id} to {last.shard_id})"

    @property
    def first_id(self) -> int:
        """First id of this section. Sections use disjoint id ranges; the first starts at 1.

        A later section may begin with the first shard, if that was committed late.
        """
        if not self.number:
            return 1
        return image_id(self.shards[0][0] or LAST_ORDINAL, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportContext:
    """The values that all sections of an export share. Ray ships them to other processes.

    `root` is the folder that image references start from.
    """

    export_id: str
    source: OutputStore
    record: JobRecord
    inputs: InputStore
    destination: OutputStore
    options: ExportOptions  # `images` is no longer "auto"
    tasks: tuple[str, ...]
    root: str
    categories: Categories
    lengths: Mapping[str, int] = field(default_factory=dict)  # see `Setting`
    curve: Curve | None = None  # calibrates the scores


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """Counts of a section so far. `classes` are the possible classes, by ids from 1 on.

    `shards` are known at the end.
    """

    coverage: Coverage
    files: int
    size_bytes: int
    classes: tuple[str, ...]
    shards: tuple[ExportedShard, ...] = ()


RunSections = Callable[[ExportContext, Iterable[Section]], Iterator[tuple[Section, Written]]]


def in_turn(work: ExportContext, sections: Iterable[Section]) -> Iterator[tuple[Section, Written]]:
    """Export sections in this process; yield their counts after each shard and at the end."""
    for section in sections:
        with closing(export_section(work, section)) as steps:  # else its threads outlive an error
            yield from ((section, written) for written in steps)


def export_section(work: ExportContext, section: Section) -> Generator[Written, None, None]:
    """Write a section; yield its counts after each shard, and at the end, when all is written.

    A repetition writes the same bytes under the same names. Raises Conflict if another export took
    the destination over, and PipelineError as `exporting.export_dataset` does.
    """
    options, identity = work.options, work.record.identity
    coverage = Coverage(
        shards_planned=len(section.shards), by_split=Counter(dict.fromkeys(options.shares, 0))
    )
    with (
        Destination(work.destination) as place,
        ThreadPoolExecutor(_THREADS, thread_name_prefix="fetch") as pool,
    ):
        setting = Setting(
            destination=place,
            options=options,
            categories=work.categories.anew(),
            model=f"{work.record.model.id} {work.record.model.weights_digest[:12]}",
            carried=carried_columns(identity.carry),
            section=section.number,
            first_id=section.first_id,
            tasks=work.tasks,
            lengths=work.lengths,
            empty_split=None if section.shards else next(iter(options.shares)),
        )

        commits: list[tuple[str, str]] = []

        def written() -> Written:
            coverage.boxes_without_class = setting.categories.left_out
            return Written(
                coverage=coverage,
                files=place.files,
                size_bytes=place.size_bytes,
                classes=tuple(setting.categories.names),
            )

        place.join(work.export_id)
        writer = EXPORT_FORMATS[options.format].open(setting)
        reads = (partial(_read, work, ordinal, shard) for ordinal, shard in section.shards)
        for rows in in_order(pool, reads, ahead=_SHARDS_AHEAD):
            for example in _examples(work, rows, pool):
                writer.add(example)
                coverage.add(example)
            if isinstance(writer, ShardWriter):
                writer.end_shard(rows.finished)
            commits.append((rows.shard.shard_id, rows.commit_id))
            coverage.shards_exported += 1
            coverage.rejected += rows.finished.rejects.num_rows
            yield written()
            fault("export.shard", shard_id=rows.shard.shard_id)
            place.join(work.export_id)
        writer.close()
        place.settle()
        shards = shards_in_files(commits, place.shards_by_file, section.number or 0)
        yield replace(written(), shards=shards)


@dataclass(frozen=True, slots=True, kw_only=True)
class _ShardRows:
    ordinal: int
    commit_id: str
    finished: FinishedShard
    table: pa.Table

    @property
    def shard(self) -> Shard:
        return self.finished.shard


def _carried(work: ExportContext) -> list[str]:
    return [column.name for column in carried_columns(work.record.identity.carry)]


def _examples(work: ExportContext, rows: _ShardRows, pool: ThreadPoolExecutor) -> Iterator[Example]:
    carried = _carried(work)

    def of_row(row: dict[str, Any]) -> Example:
        return example_of(
            row,
            ordinal=rows.ordinal,
            options=work.options,
            has_task_in_name=len(work.tasks) > 1,
            file_name=reference(row, rows.shard, work.root),
            carried=carried,
            curve=work.curve,
        )

    if work.options.images != "embed":
        yield from map(of_row, _row_dicts(rows.table))
        return
    found, fetched = tee(_row_dicts(rows.table))
    identity = work.record.identity
    reader = SampleReader.of_job(work.inputs, identity)
    calls = (
        partial(_with_image, of_row(row), fetch, row["exif_orientation"], identity.exif)
        for row, fetch in zip(found, fetches(fetched, rows.shard, reader), strict=True)
    )
    yield from in_order(pool, calls, ahead=_IMAGES_AHEAD)


def _with_image(example: Example, fetch: Fetch, orientation: int, exif: Any) -> Example:
    data = upright_bytes(fetch(), orientation=orientation, exif=exif)
    return replace(example, image=ImageFile(data=data, extension=extension_of(data)))


def _read(work: ExportContext, ordinal: int, shard: Shard) -> _ShardRows:
    rejected = REJECTION.empty_table().select(_OF_REJECTS)
    with open_commit(work.source, shard.shard_id) as commit:
        table = commit.parquet.read(columns=[*EXAMPLE_COLUMNS, *_carried(work)])
        rejects, committed = commit.footer.rejects, commit.footer.committed()
    if rejects:
        with open_rejects(work.source, rejects) as parquet:
            rejected = _of_tasks(parquet.read(columns=_OF_REJECTS), work.tasks)
    finished = FinishedShard(shard=shard, samples=committed.samples, rejects=rejected)
    return _ShardRows(
        ordinal=ordinal,
        commit_id=committed.commit_id,
        finished=finished,
        table=_of_tasks(table, work.tasks),
    )


def _of_tasks(table: pa.Table, tasks: tuple[str, ...]) -> pa.Table:
    return table.filter(pc.is_in(table["task"], pa.array(tasks, pa.string())))


def _row_dicts(table: pa.Table) -> Iterator[dict[str, Any]]:
    for batch in table.to_batches(max_chunksize=_ROWS):
        yield from batch.to_pylist()
