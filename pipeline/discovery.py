"""What kind of input there is, and how it is cut into shards."""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import BinaryIO, cast

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import InputMissing, InputUnreadable
from pipeline.listings import Listings
from pipeline.readers.listed import is_there
from pipeline.readers.manifest import manifest_rows, names_images
from pipeline.readers.parquet import ImageTable, RowGroup, image_table, is_image_table
from pipeline.readers.rows import MANIFEST_EXTENSIONS, rows_of
from pipeline.readers.webdataset import IMAGE_EXTENSIONS
from pipeline.samples import ranged
from pipeline.schema import LISTING
from pipeline.shards import (
    LISTED,
    Kind,
    PlanDrift,
    Shard,
    ShardPlan,
    check_encodable,
    shard_of,
    shard_of_rows,
)
from pipeline.spec import JobSpec
from pipeline.storage import InputStore, ObjectInfo
from pipeline.storage.objects import Location, locate

# By how surely a file of that name is meant: tars have Parquet and JSON beside them, Parquet has
# pictures for its page, and a folder of pictures often a table of them.
_EXTENSIONS: Mapping[Kind, tuple[str, ...]] = {
    "webdataset": (".tar", ".tar.gz", ".tgz"),
    "arrow": (".arrow",),
    "parquet": (".parquet",),
    "files": tuple(f".{name}" for name in sorted(IMAGE_EXTENSIONS)),
    "manifest": MANIFEST_EXTENSIONS,
}
_CACHE = "cache-"  # what `datasets` leaves beside its own files
_FOOTERS_AT_ONCE = 16

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

    kind: Kind
    objects: tuple[ObjectInfo, ...] = ()
    lists: tuple[Pictures, ...] = ()
    known: frozenset[str] = frozenset()


def discover(spec: JobSpec, uri: str | None = None, plan: ShardPlan | None = None) -> Found:
    """What is under the input (or `uri`), of the kind that is asked for, planned or there.

    Raises InputMissing, InputUnreadable, StorageError.
    """
    store = InputStore(spec.input_storage)
    uri = uri or spec.input
    objects = store.list(uri, spec.include, spec.exclude)
    kind = _kind(store, spec, objects, plan)
    chosen = _of_kind(kind, objects) if not spec.include else objects
    if not chosen and len(objects) > 1:
        raise InputMissing(
            f"{uri}: nothing to read as {kind}: check the name, --input-format and --include"
        )
    chosen = chosen or objects  # one object that was named is meant, whatever its name
    _log.info("input: %s, %d of %d files", kind, len(chosen), len(objects))
    if kind == "files":
        return Found(kind=kind, lists=(_folder(uri, chosen),))
    if kind == "manifest":
        read = partial(_manifest, store, spec.image_column)
        planned = {shard.source for shard in plan.shards} if plan is not None else set()
        return Found(
            kind=kind,
            lists=tuple(read(source) for source in chosen if source not in planned),
            known=frozenset(source.uri for source in chosen if source in planned),
        )
    return Found(kind=kind, objects=tuple(chosen))


def split(
    found: Found, spec: JobSpec, listings: Listings, store: InputStore | None = None
) -> list[Shard]:
    """The shards of the plan. Raises InputUnreadable where no file at all can be read."""
    if found.kind in LISTED:
        return [shard for each in found.lists for shard in _parts(each, found.kind, spec, listings)]
    if found.kind == "parquet":
        return _parquet_shards(found.objects, spec, store or InputStore(spec.input_storage))
    return [shard_of(source, found.kind) for source in found.objects]


def nothing_like(plan: ShardPlan) -> Found:
    """What is found where all of the inputs are gone."""
    return Found(kind=plan.shards[0].kind if plan.shards else "webdataset")


def drift_of(plan: ShardPlan, found: Found, listings: Listings) -> PlanDrift:
    """How the inputs of today differ from the plan."""
    if found.kind not in LISTED:
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
    if found.kind not in LISTED:
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


# ---- which kind


def _kind(
    store: InputStore, spec: JobSpec, objects: Sequence[ObjectInfo], plan: ShardPlan | None
) -> Kind:
    if spec.input_format != "auto":
        return spec.input_format
    if plan is not None and plan.shards:
        return plan.shards[0].kind
    kind = next((kind for kind in _EXTENSIONS if _of_kind(kind, objects)), None)
    if kind is None and (spec.include or len(objects) == 1):
        kind = "webdataset"
    if kind is None:
        raise InputMissing(
            f"{spec.input}: nothing to read, of {len(objects)} files: no tars, Parquet, Arrow, "
            "pictures or manifests; name the kind with --input-format and the files with --include"
        )
    if kind == "parquet":
        kind = _kind_of_parquet(store, spec, _of_kind(kind, objects)[0])
    return kind


def _kind_of_parquet(store: InputStore, spec: JobSpec, source: ObjectInfo) -> Kind:
    """A table of images, or of their names?"""
    if is_image_table(ranged(store, source), source.uri, spec.image_column):
        return "parquet"
    rows = rows_of(source.uri, spec.image_column)(_ranged(store, source))
    at = Location(*source.uri.split("://", 1))
    is_manifest = names_images(rows, at, spec.image_column, partial(is_there, store, at))
    return "manifest" if is_manifest else "parquet"


def _of_kind(kind: Kind, objects: Iterable[ObjectInfo]) -> list[ObjectInfo]:
    names = ((info, info.uri.rpartition("/")[2].lower()) for info in objects)
    return [
        info
        for info, name in names
        if name.endswith(_EXTENSIONS[kind]) and not (kind == "arrow" and name.startswith(_CACHE))
    ]


# ---- pictures that are objects of their own


def _folder(uri: str, objects: Sequence[ObjectInfo]) -> Pictures:
    at = locate(uri)
    is_one = [info.uri for info in objects] == [at.uri]
    folder = at.uri.rpartition("/")[0] if is_one else at.uri.rstrip("/")
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


def _manifest(store: InputStore, column: str | None, source: ObjectInfo) -> Pictures:
    """Raises InputUnreadable."""
    at = Location(*source.uri.split("://", 1))
    is_parquet = source.uri.lower().endswith(".parquet")
    with _ranged(store, source) if is_parquet else store.open(source) as file:
        rows = manifest_rows(
            file, at, column, rows_of(source.uri, column), partial(is_there, store, at)
        )
    return Pictures(source=source, rows=rows)


def _ranged(store: InputStore, source: ObjectInfo) -> BinaryIO:
    return cast(BinaryIO, ranged(store, source))


def _parts(each: Pictures, kind: Kind, spec: JobSpec, listings: Listings) -> Iterator[Shard]:
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


def _parquet_shards(objects: Sequence[ObjectInfo], spec: JobSpec, store: InputStore) -> list[Shard]:
    def table(source: ObjectInfo) -> ImageTable | InputUnreadable:
        try:
            return image_table(ranged(store, source), source.uri, spec.image_column)
        except InputUnreadable as error:
            return error

    with ThreadPoolExecutor(_FOOTERS_AT_ONCE, thread_name_prefix="footers") as pool:
        found = list(pool.map(table, objects))
    failed = [each for each in found if isinstance(each, InputUnreadable)]
    if failed and len(failed) == len(objects):
        raise failed[0]
    files = Counter(each.column for each in found if isinstance(each, ImageTable))
    for column, number in files.items():
        _log.info("images: the column %s of %d files", column, number)
    # One that cannot be read is a shard that fails, and says why.
    return [
        shard
        for source, each in zip(objects, found, strict=True)
        for shard in (
            [shard_of(source, "parquet")]
            if isinstance(each, InputUnreadable)
            else _row_shards(source, each.groups, spec.samples_per_shard)
        )
    ]


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
