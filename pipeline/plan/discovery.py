"""What kind of input there is, and how it is cut into shards."""

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.dataset.listings import Listings
from pipeline.dataset.shards import Shard, ShardPlan, check_encodable, shard_of, shard_of_rows
from pipeline.errors import InputUnreadable
from pipeline.formats.listed import is_there
from pipeline.formats.table.manifest import manifest_rows
from pipeline.formats.table.parquet import ImageTable, RowGroup, holds_no_images, image_table
from pipeline.formats.table.rows import rows_of
from pipeline.plan.drift import PlanDrift
from pipeline.plan.image_tables import with_metadata
from pipeline.plan.kinds import choose
from pipeline.plan.own_outputs import without_outputs
from pipeline.reading.sample_reader import SampleReader, ranged, table_file
from pipeline.schema import LISTING
from pipeline.spec.job import JobSpec
from pipeline.spec.kinds import LISTED_KINDS, InputKind
from pipeline.storage import InputStore, ObjectInfo
from pipeline.storage.ignored import Ignored, IgnoredCount
from pipeline.storage.inputs import Listing
from pipeline.storage.objects import Location

_FOOTERS_AT_ONCE = 16
_NO_IMAGES = "tables without images"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pictures:
    """Rows of `schema.LISTING` from a folder or a manifest."""

    source: ObjectInfo
    rows: pa.Table


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """`lists` are there for kinds of pictures that are objects of their own, `objects` for
    others. `known` are URIs of manifests that are as they were planned, and were not read."""

    kind: InputKind
    objects: tuple[ObjectInfo, ...] = ()
    lists: tuple[Pictures, ...] = ()
    known: frozenset[str] = frozenset()
    ignored: tuple[Ignored, ...] = ()


def discover(spec: JobSpec, uri: str | None = None, plan: ShardPlan | None = None) -> Found:
    """Find what is under the input (or `uri`), of the kind that is asked for, planned or there.

    Raises InputMissing, InputUnreadable, StorageError; SpecError where the input lies in the
    output.
    """
    store = InputStore(spec.input_storage)
    listing = store.list(uri or spec.input, spec.include, spec.exclude)
    listing = without_outputs(listing, spec.output)
    planned = plan.shards[0].kind if plan is not None and plan.shards else None
    chosen = choose(store, spec, listing, planned)
    kind, objects = chosen.kind, chosen.objects
    found = Found(kind=kind, ignored=chosen.ignored)
    if kind == "files":
        images, ignored = _folder(listing, objects), tuple[Ignored, ...]()
        if plan is None or spec.extend:  # of a plan that stays as it is, metadata are known
            images, ignored = _described(images, chosen.tables, store)
        found = replace(found, lists=(images,), ignored=(*chosen.ignored, *ignored))
    elif kind == "manifest":
        read = partial(_manifest, store, spec.image_column)
        known = {shard.source for shard in plan.shards} if plan is not None else set()
        found = replace(
            found,
            lists=tuple(read(source) for source in objects if source not in known),
            known=frozenset(source.uri for source in objects if source in known),
        )
    else:
        found = replace(found, objects=objects)
        if kind == "parquet" and plan is not None:
            found = _without_tables(found, {shard.uri for shard in plan.shards}, store)
    _log.info("input: %s, %d of %d files", kind, len(objects), len(listing.objects))
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """The shards of an input; `ignored` are files that turned out to hold no images."""

    shards: list[Shard]
    ignored: tuple[Ignored, ...] = ()


def cut(found: Found, spec: JobSpec, listings: Listings, store: InputStore | None = None) -> Cut:
    """Cut what was found into shards. Raises InputUnreadable where no file at all can be read."""
    store = store or InputStore(spec.input_storage)
    if found.kind in LISTED_KINDS:
        lists = (_parts(each, found.kind, spec, listings) for each in found.lists)
        return Cut(shards=[shard for parts in lists for shard in parts], ignored=found.ignored)
    if found.kind == "parquet":
        return _parquet_shards(found, spec, store)
    if found.kind == "arrow":
        _check_arrow(found.objects, SampleReader(store=store, image_column=spec.image_column))
    shards = [shard_of(source, found.kind) for source in found.objects]
    return Cut(shards=shards, ignored=found.ignored)


def nothing_like(plan: ShardPlan) -> Found:
    """What is found where all of the inputs are gone."""
    return Found(kind=plan.shards[0].kind if plan.shards else "webdataset")


def drift_of(plan: ShardPlan, found: Found, listings: Listings) -> PlanDrift:
    """How the inputs of today differ from the plan."""
    if found.kind not in LISTED_KINDS:
        return plan.drift(found.objects)
    planned, today = _planned(plan, listings, without=found.known), _today(found)
    etags = planned["etag"].take(pc.index_in(today["uri"], planned["uri"]))
    changed = today["uri"].filter(pc.fill_null(pc.not_equal(etags, today["etag"]), False))
    vanished = _without(planned["uri"], today["uri"])
    return PlanDrift(
        new=_texts(_without(today["uri"], planned["uri"])),
        changed=_texts(changed),
        vanished=_texts(vanished),
        kept=planned.num_rows - len(vanished) + len(found.known),
    )


def beyond(plan: ShardPlan, found: Found, listings: Listings) -> Found:
    """What of it the plan does not have."""
    if found.kind not in LISTED_KINDS:
        planned = {shard.uri for shard in plan.shards}
        return replace(found, objects=tuple(o for o in found.objects if o.uri not in planned))
    known = _planned(plan, listings)["uri"] if found.lists else pa.chunked_array([], pa.string())
    lists = (
        replace(
            each,
            rows=each.rows.filter(pc.invert(pc.is_in(each.rows["uri"], known.combine_chunks()))),
        )
        for each in found.lists
    )
    return replace(found, lists=tuple(each for each in lists if each.rows.num_rows))


# ---- pictures that are objects of their own


def _folder(listing: Listing, objects: Sequence[ObjectInfo]) -> Pictures:
    folder = listing.root.uri.rpartition("/")[0]
    for info in objects:
        check_encodable(info.uri)
    rows = pa.table(
        {
            "uri": [info.uri for info in objects],
            "size_bytes": [info.size_bytes for info in objects],
            "etag": [info.etag for info in objects],
            "key": pa.nulls(len(objects), pa.string()),
            "metadata": pa.nulls(len(objects), pa.string()),
        },
        schema=LISTING,
    )
    size_bytes = sum(info.size_bytes for info in objects)
    source = ObjectInfo(uri=f"{folder}/", size_bytes=size_bytes, etag="")
    return Pictures(source=source, rows=rows)


def _described(
    images: Pictures, tables: Sequence[ObjectInfo], store: InputStore
) -> tuple[Pictures, tuple[Ignored, ...]]:
    rows, ignored = with_metadata(images.rows, tables, store)
    return replace(images, rows=rows), ignored


def _manifest(store: InputStore, column: str | None, source: ObjectInfo) -> Pictures:
    """Raises InputUnreadable."""
    at = Location.of(source.uri)
    read, exists = rows_of(source.uri, column), partial(is_there, store, at)
    with table_file(store, source) as file:
        return Pictures(source=source, rows=manifest_rows(file, at, column, read, exists))


def _parts(each: Pictures, kind: InputKind, spec: JobSpec, listings: Listings) -> Iterator[Shard]:
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
            # Of a manifest's pictures the sizes are not known; a share of it stands for them.
            part_bytes=source.size_bytes * part.num_rows // total if known is None else known,
            listing=key,
        )


def _planned(
    plan: ShardPlan, listings: Listings, without: frozenset[str] = frozenset()
) -> pa.Table:
    listed = (shard for shard in plan.shards if shard.uri not in without)
    keys = dict.fromkeys(shard.listing for shard in listed if shard.listing is not None)
    return _named([listings.whole(key) for key in keys])


def _today(found: Found) -> pa.Table:
    return _named([each.rows for each in found.lists])


def _named(tables: Sequence[pa.Table]) -> pa.Table:
    table = pa.concat_tables([LISTING.empty_table(), *tables]).select(["uri", "etag"])
    return table.filter(pc.is_valid(table["uri"])).combine_chunks()


def _without(values: pa.ChunkedArray, known: pa.ChunkedArray) -> pa.ChunkedArray:
    return values.filter(pc.invert(pc.is_in(values, known.combine_chunks())))


def _texts(values: pa.ChunkedArray) -> tuple[str, ...]:
    return tuple(dict.fromkeys(values.to_pylist()))


# ---- Parquet


def _parquet_shards(found: Found, spec: JobSpec, store: InputStore) -> Cut:
    def table(source: ObjectInfo) -> ImageTable | InputUnreadable:
        try:
            return image_table(ranged(store, source), source.uri, spec.image_column)
        except InputUnreadable as error:
            return error

    tables = _at_once(table, found.objects)
    failed = [each for each in tables.values() if isinstance(each, InputUnreadable)]
    if failed and len(failed) == len(tables):
        raise failed[0]
    files = Counter(each.column for each in tables.values() if isinstance(each, ImageTable))
    for column, number in files.items():
        _log.info("images: the column %s of %d files", column, number)
    shards, ignored = list[Shard](), IgnoredCount()
    ignored.include(found.ignored)
    for source, each in tables.items():
        if isinstance(each, ImageTable):
            shards += _row_shards(source, each.groups, spec.samples_per_shard)
        elif holds_no_images(ranged(store, source), source.uri):
            ignored.add(_NO_IMAGES, source.uri)
        else:  # it cannot be read: a shard that fails, and says why
            shards.append(shard_of(source, "parquet"))
    return Cut(shards=shards, ignored=ignored.result())


def _without_tables(found: Found, planned: set[str], store: InputStore) -> Found:
    """Leave out again what the plan left out, and new ones of that kind."""
    new = [source for source in found.objects if source.uri not in planned]
    is_empty = _at_once(lambda source: holds_no_images(ranged(store, source), source.uri), new)
    ignored = IgnoredCount()
    ignored.include(found.ignored)
    for source in (source for source in new if is_empty[source]):
        ignored.add(_NO_IMAGES, source.uri)
    objects = tuple(source for source in found.objects if not is_empty.get(source, False))
    return replace(found, objects=objects, ignored=ignored.result())


def _check_arrow(objects: Sequence[ObjectInfo], samples: SampleReader) -> None:
    """Raises InputUnreadable where none can be read; one among others is a shard that fails."""

    def problem(source: ObjectInfo) -> InputUnreadable | None:
        try:
            samples.check_arrow(source)
        except InputUnreadable as error:
            return error
        return None

    problems = list(_at_once(problem, objects).values())
    if problems and problems[0] is not None and all(problems):
        raise problems[0]


T = TypeVar("T")


def _at_once(look: Callable[[ObjectInfo], T], objects: Sequence[ObjectInfo]) -> dict[ObjectInfo, T]:
    with ThreadPoolExecutor(_FOOTERS_AT_ONCE, thread_name_prefix="footers") as pool:
        return dict(zip(objects, pool.map(look, objects), strict=True))


def _row_shards(source: ObjectInfo, groups: Sequence[RowGroup], rows: int) -> Iterator[Shard]:
    """Whole row groups, until there are so many rows."""
    if not groups:
        yield shard_of(source, "parquet")
    first = count = part_bytes = 0
    for number, group in enumerate(groups):
        count += group.rows
        part_bytes += group.size_bytes
        if count >= rows or number == len(groups) - 1:
            yield shard_of_rows(source, "parquet", first=first, count=count, part_bytes=part_bytes)
            first, count, part_bytes = first + count, 0, 0
