"""The images of a list, each a separate object.

An image that is missing, changed, refused or too large is rejected without affecting others. A
store that does not answer fails the shard, which is retried.
"""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa

from kosmos2_core.annotation import Issue
from pipeline.concurrency import in_order
from pipeline.errors import InputChanged, PipelineError, StorageUrlError
from pipeline.formats.limits import MAX_NAME_CHARS, METADATA_LEFT_OUT
from pipeline.formats.sample import Sample, Skipped, Unreadable, with_limited_metadata
from pipeline.formats.table.image_names import refusal
from pipeline.storage import InputStore, ObjectInfo
from pipeline.storage.objects import LOCAL_SCHEMES, WEB_SCHEMES, Location

MAX_LISTED_BYTES = 64 << 20  # several are in memory at once
_AHEAD = 8

_Row = Mapping[str, Any]
# Schemes that a manifest may use. Others can reach internal hosts (ftp, sftp, webhdfs).
_SCHEMES = frozenset({"s3", "gs", "gcs", "az", "abfs", "abfss", "hf", *WEB_SCHEMES})


def read_listed(
    table: pa.Table, store: InputStore, root: str, only: tuple[int, ...] | None
) -> Iterator[Sample | Unreadable | Skipped]:
    """Yield the samples of rows of `schema.LISTING`, in order.

    `root` is the folder or the manifest that they come from. Raises StorageError.
    """
    read = _Reading(store, Location.of(root))
    wanted = None if only is None else set(only)

    def call(index: int, row: _Row) -> Callable[[], Sample | Unreadable | Skipped]:
        is_wanted = wanted is None or index in wanted
        return partial(read.sample, index, row) if is_wanted else partial(Skipped, index)

    calls = (call(index, row) for index, row in enumerate(_rows(table)))
    with ThreadPoolExecutor(_AHEAD, thread_name_prefix="images") as pool:
        yield from with_limited_metadata(in_order(pool, calls, ahead=_AHEAD))


def _rows(table: pa.Table) -> Iterator[_Row]:
    for batch in table.to_batches(max_chunksize=64):
        yield from batch.to_pylist()


@dataclass(frozen=True, slots=True)
class _Reading:
    store: InputStore
    root: Location

    def sample(self, index: int, row: _Row) -> Sample | Unreadable:
        uri = row["uri"]
        key = row["key"] or (uri and not refusal(uri) and self._key(uri)) or str(index)
        named = (row["key"] or str(index))[:MAX_NAME_CHARS]
        lost = partial(Unreadable, index=index, key=named, member=None)
        if not uri:
            said = "the manifest names no image in this row"
            return lost(error_type="no_image", message=said)
        if len(key) > MAX_NAME_CHARS or len(uri) > MAX_NAME_CHARS:
            said = f"its name has more than {MAX_NAME_CHARS} characters"
            return lost(error_type="name_too_long", message=said)
        try:
            data = self._data(uri, row)
        except PipelineError as error:
            is_from_web = uri.startswith(WEB_SCHEMES)
            if error.retriable and not is_from_web:
                raise
            # A dead host must not keep its shard from completing.
            lost = partial(lost, error_type=error.code, message=str(error))
            if isinstance(error, StorageUrlError):  # its URI may hold a secret
                return lost()
            return lost(key=key, uri=uri, is_retriable=error.retriable)
        is_too_large = row["metadata"] == METADATA_LEFT_OUT
        return Sample(
            index=index,
            key=key,
            member=None,
            image_offset=0,
            data=data,
            metadata=None if is_too_large else row["metadata"],
            issues=(Issue.METADATA_TOO_LARGE,) if is_too_large else (),
            uri=uri,
        )

    def _data(self, uri: str, row: _Row) -> bytes:
        check_scheme(uri, self.root)
        planned = None
        if row["etag"] is not None:
            planned = ObjectInfo(uri=uri, size_bytes=row["size_bytes"], etag=row["etag"])
        return self.store.read_whole(uri, max_bytes=MAX_LISTED_BYTES, planned=planned)

    def _key(self, uri: str) -> str:
        """Return the key: the path in the folder without extension, or for a manifest the URI."""
        if not uri.startswith(self.root.uri):
            return uri
        folder, slash, name = uri.removeprefix(self.root.uri).lstrip("/").rpartition("/")
        return folder + slash + (name.rpartition(".")[0] or name)


def is_there(store: InputStore, manifest: Location, uri: str) -> bool:
    """Return whether an object exists; URIs that must not be read are not requested.

    Raises StorageError if a store does not answer.
    """
    if Location.of(uri).scheme in WEB_SCHEMES:
        return False
    try:
        check_scheme(uri, manifest)
        store.read_range(uri, 0, 1)
    except InputChanged:  # it is empty
        return True
    except PipelineError as error:
        # On a disk, the tried names may be folders, or lead through files.
        if error.retriable and Location.of(uri).scheme not in LOCAL_SCHEMES:
            raise
        return False
    return True


def check_scheme(uri: str, root: Location) -> None:
    """Raise StorageUrlError if a manifest may not name this URI, such as a local file."""
    if (said := refusal(uri)) is not None:
        raise StorageUrlError(said)
    scheme = Location.of(uri).scheme
    if scheme == root.scheme or scheme in _SCHEMES:
        return
    why = "from a manifest that is not local" if scheme in LOCAL_SCHEMES else "from a manifest"
    raise StorageUrlError(
        f"{scheme}:// cannot be read {why}; use a URL of the manifest's own store, or of S3, GCS, "
        "Azure, the Hugging Face hub or the web"
    )
