"""The discovery of the files under an input."""

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import pyarrow as pa

from pipeline.dataset.shards import ShardPlan, check_encodable
from pipeline.formats.listed import is_there
from pipeline.formats.table.manifest import manifest_rows
from pipeline.formats.table.parquet import holds_no_images
from pipeline.formats.table.rows import open_table, rows_of
from pipeline.plan.image_tables import with_metadata
from pipeline.plan.kinds import choose
from pipeline.plan.own_outputs import without_outputs
from pipeline.schema import LISTING
from pipeline.spec.job import JobSpec
from pipeline.spec.kinds import InputKind
from pipeline.storage import InputStore, ObjectInfo
from pipeline.storage.ignored import Ignored, IgnoredCount
from pipeline.storage.inputs import Listing
from pipeline.storage.objects import Location

_FOOTERS_AT_ONCE = 16
NO_IMAGES = "tables without images"

_T = TypeVar("_T")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageList:
    """Rows of `schema.LISTING` from a folder or a manifest."""

    source: ObjectInfo
    rows: pa.Table


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The files of an input.

    `lists` are set for kinds of single-image objects, `objects` for others. `known` are URIs of
    manifests that are unchanged since they were planned, and were not read.
    """

    kind: InputKind
    objects: tuple[ObjectInfo, ...] = ()
    lists: tuple[ImageList, ...] = ()
    known: frozenset[str] = frozenset()
    ignored: tuple[Ignored, ...] = ()


def discover(spec: JobSpec, uri: str | None = None, plan: ShardPlan | None = None) -> Found:
    """Find what is under the input (or `uri`), of the requested, planned or detected kind.

    Raises InputMissing, InputUnreadable, StorageError; SpecError if the input is inside the output.
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
        if plan is None or spec.extend:  # an unchanged plan already has the metadata
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


# Single-image objects


def _folder(listing: Listing, objects: Sequence[ObjectInfo]) -> ImageList:
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
    return ImageList(source=source, rows=rows)


def _described(
    images: ImageList, tables: Sequence[ObjectInfo], store: InputStore
) -> tuple[ImageList, tuple[Ignored, ...]]:
    rows, ignored = with_metadata(images.rows, tables, store)
    return replace(images, rows=rows), ignored


def _manifest(store: InputStore, column: str | None, source: ObjectInfo) -> ImageList:
    """Read a manifest. Raises InputUnreadable."""
    at = Location.of(source.uri)
    read, exists = rows_of(source.uri, column), partial(is_there, store, at)
    with open_table(store, source) as file:
        return ImageList(source=source, rows=manifest_rows(file, at, column, read, exists))


# Parquet


def _without_tables(found: Found, planned: set[str], store: InputStore) -> Found:
    """Leave out what the plan left out, and new files without images."""
    new = [source for source in found.objects if source.uri not in planned]
    is_empty = of_each(lambda source: holds_no_images(store.ranged(source), source.uri), new)
    ignored = IgnoredCount(found.ignored)
    for source in (source for source in new if is_empty[source]):
        ignored.add(NO_IMAGES, source.uri)
    objects = tuple(source for source in found.objects if not is_empty.get(source, False))
    return replace(found, objects=objects, ignored=ignored.result())


def of_each(
    look: Callable[[ObjectInfo], _T], objects: Sequence[ObjectInfo]
) -> dict[ObjectInfo, _T]:
    """Call `look` for each object, several at once."""
    with ThreadPoolExecutor(_FOOTERS_AT_ONCE, thread_name_prefix="footers") as pool:
        return dict(zip(objects, pool.map(look, objects), strict=True))
