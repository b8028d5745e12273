"""The division of inputs into shards."""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import pyarrow.compute as pc

from pipeline.dataset.listings import Listings
from pipeline.dataset.shards import Shard, shard_of, shard_of_rows
from pipeline.errors import InputUnreadable
from pipeline.formats.table.arrow import check_readable
from pipeline.formats.table.parquet import ImageTable, RowGroup, holds_no_images, image_table
from pipeline.plan.discovery import NO_IMAGES, Found, ImageList, of_each
from pipeline.spec.job import JobSpec
from pipeline.spec.kinds import LISTED_KINDS, InputKind
from pipeline.storage import InputStore, ObjectInfo
from pipeline.storage.ignored import Ignored, IgnoredCount

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """The shards of an input. `ignored` lists files that turned out to hold no images."""

    shards: list[Shard]
    ignored: tuple[Ignored, ...] = ()


def cut(found: Found, spec: JobSpec, listings: Listings, store: InputStore | None = None) -> Cut:
    """Divide inputs into shards. Raises InputUnreadable if no file can be read."""
    store = store or InputStore(spec.input_storage)
    if found.kind in LISTED_KINDS:
        lists = (_parts(each, found.kind, spec, listings) for each in found.lists)
        return Cut(shards=[shard for parts in lists for shard in parts], ignored=found.ignored)
    if found.kind == "parquet":
        return _parquet_shards(found, spec, store)
    if found.kind == "arrow":
        _check_arrow(found.objects, store, spec.image_column)
    shards = [shard_of(source, found.kind) for source in found.objects]
    return Cut(shards=shards, ignored=found.ignored)


def _parts(each: ImageList, kind: InputKind, spec: JobSpec, listings: Listings) -> Iterator[Shard]:
    size = spec.samples_per_shard
    rows, total = each.rows.combine_chunks(), each.rows.num_rows
    if not total:
        return
    key = listings.keep(rows, size)
    source = each.source if each.source.etag else replace(each.source, etag=key)
    for first in range(0, total, size):
        part = rows.slice(first, size)
        known = pc.sum(part["size_bytes"]).as_py()
        yield shard_of_rows(
            source,
            kind,
            first=first,
            count=part.num_rows,
            # The sizes of a manifest's images are unknown; an equal share of the manifest replaces
            # them.
            part_bytes=source.size_bytes * part.num_rows // total if known is None else known,
            listing=key,
        )


def _parquet_shards(found: Found, spec: JobSpec, store: InputStore) -> Cut:
    def table(source: ObjectInfo) -> ImageTable | InputUnreadable:
        try:
            return image_table(store.ranged(source), source.uri, spec.image_column)
        except InputUnreadable as error:
            return error

    tables = of_each(table, found.objects)
    failed = [each for each in tables.values() if isinstance(each, InputUnreadable)]
    if failed and len(failed) == len(tables):
        raise failed[0]
    files = Counter(each.column for each in tables.values() if isinstance(each, ImageTable))
    for column, number in files.items():
        _log.info("images are in the column %s of %d files", column, number)
    shards, ignored = list[Shard](), IgnoredCount(found.ignored)
    for source, each in tables.items():
        if isinstance(each, ImageTable):
            shards += _row_shards(source, each.groups, spec.samples_per_shard)
        elif holds_no_images(store.ranged(source), source.uri):
            ignored.add(NO_IMAGES, source.uri)
        else:  # it cannot be read: its shard fails and says why
            shards.append(shard_of(source, "parquet"))
    return Cut(shards=shards, ignored=ignored.result())


def _check_arrow(objects: Sequence[ObjectInfo], store: InputStore, column: str | None) -> None:
    """Raise InputUnreadable if no file can be read.

    One bad file among others is a shard that fails.
    """

    def problem(source: ObjectInfo) -> InputUnreadable | None:
        try:
            with store.open(source) as file:
                check_readable(file, source.uri, source.size_bytes, column)
        except InputUnreadable as error:
            return error
        return None

    problems = list(of_each(problem, objects).values())
    if problems and problems[0] is not None and all(problems):
        raise problems[0]


def _row_shards(source: ObjectInfo, groups: Sequence[RowGroup], rows: int) -> Iterator[Shard]:
    """Yield shards of whole row groups, each with at least `rows` rows."""
    if not groups:
        yield shard_of(source, "parquet")
    first = count = part_bytes = 0
    for number, group in enumerate(groups):
        count += group.rows
        part_bytes += group.size_bytes
        if count >= rows or number == len(groups) - 1:
            yield shard_of_rows(source, "parquet", first=first, count=count, part_bytes=part_bytes)
            first, count, part_bytes = first + count, 0, 0
