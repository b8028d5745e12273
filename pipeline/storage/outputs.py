"""The contract of an output store, and the resolution of unclear conditional writes."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime
from typing import BinaryIO, Protocol, TypeAlias
from uuid import uuid4

from pipeline.errors import AlreadyExists, Conflict, ObjectMissing, OutputUnsupported, StorageError
from pipeline.storage.objects import Fetched, Location

Keys: TypeAlias = list[str]
Times: TypeAlias = dict[str, datetime]

PROBE = ".probe-"
TEMPORARY = ".tmp"


class OutputStore(Protocol):
    """A store of an output.

    A key is a relative path such as "annotations/a.parquet"; ETags are opaque. Every method may
    raise StorageError. What a failed write leaves is never visible.
    """

    @property
    def uri(self) -> str:
        """URI, absolute, with its scheme, without a slash at the end."""

    def list(self, folder: str) -> Keys:
        """Return the sorted keys of the objects directly in `folder` ("" is the root), uncached.

        Names that start with "." are left out. A missing folder counts as empty.
        """

    def times(self, folder: str) -> Times:
        """Return when each object of `list` was written, in UTC by the store's clock.

        For a copied object, that is the time of the copy.
        """

    def partials(self, folder: str) -> Keys:
        """List temporary files and probes directly in `folder`.

        Active writers have some, and dead writers leave some.
        """

    def get(self, key: str) -> Fetched:
        """Read an object. Raises ObjectMissing."""

    def open(self, key: str) -> AbstractContextManager[BinaryIO]:
        """Open a seekable file; pyarrow.parquet reads only its footer at first.

        Raises ObjectMissing.
        """

    def create(self, key: str, data: bytes) -> str:
        """Write only if the object does not exist; return the new ETag. Raises AlreadyExists.

        An unclear outcome (a lost answer; a retry that meets its own first attempt) is resolved by
        the bytes in the store. Every committed file holds a random commit id, so equal bytes are
        this writer's. StorageError means that nothing was written: the call may be repeated.
        """

    def replace(self, key: str, data: bytes, etag: str) -> str:
        """Write only over the object with that ETag; return the new ETag. Raises Conflict.

        Unclear outcomes are resolved as in `create`.
        """

    def put(self, key: str, data: bytes) -> None:
        """Write unconditionally: for objects that no decision depends on, such as _SUCCESS.json."""

    def delete(self, key: str, etag: str | None = None) -> None:
        """Delete an object, if it exists. Raises Conflict if it has another ETag."""

    def probe(self) -> None:
        """Try conditional writes on a separate object, and remove it.

        Raises OutputUnsupported if the store ignores a condition, StorageRefused.
        """


def settle(
    store: OutputStore,
    key: str,
    data: bytes,
    before: str | None,
    unclear: Exception | None,
    again: Callable[[], str] | None = None,
) -> str:
    """Return the ETag of `data` if the store holds it now.

    `before` is the ETag that the write required; None required that no object exists. Otherwise
    raises AlreadyExists or Conflict, or StorageError if nothing has changed, so the write did not
    arrive. If a create was refused, but nothing is there by now, `again` repeats it.
    """
    uri = f"{store.uri}/{key}"
    now = _now(store, key)
    if now is not None and now.data == data:
        return now.etag
    if before == (now and now.etag):
        if again is not None and isinstance(unclear, Conflict | FileExistsError):
            return again()
        raise StorageError(
            f"{uri}: not written, but nothing is lost; run the same command again"
        ) from unclear
    if before is None:
        raise AlreadyExists(
            f"{uri}: already exists, because another writer was faster; run the same command again"
        ) from unclear
    raise Conflict(
        f"{uri}: changed or deleted since it was read; run the same command again"
    ) from unclear


def _now(store: OutputStore, key: str) -> Fetched | None:
    try:
        return store.get(key)
    except ObjectMissing:
        return None


def probe(store: OutputStore) -> None:
    """Run OutputStore.probe with only the other methods."""
    key = f"{PROBE}{uuid4().hex}"
    first = store.create(key, b"1")
    try:
        if _is_taken(lambda: store.create(key, b"2")):
            raise _unsupported(store, "If-None-Match: *")
        second = store.replace(key, b"3", first)
        if second == first or _is_taken(lambda: store.replace(key, b"4", first)):
            raise _unsupported(store, "If-Match")
    except Conflict as error:
        raise _unsupported(store, "If-Match") from error
    finally:
        store.delete(key)


def _is_taken(write: Callable[[], str]) -> bool:
    try:
        write()
    except Conflict:
        return False
    return True


def _unsupported(store: OutputStore, condition: str) -> OutputUnsupported:
    return OutputUnsupported(
        f"{store.uri}: the store does not honour {condition}, so two runs could overwrite each "
        "other; use a local directory or a store with conditional PUT (AWS S3, MinIO, SeaweedFS)"
    )


def within(root: Location, key: str) -> Location:
    """Return the location of a key.

    Raises ValueError for a key outside the root, which is a bug.
    """
    segments = key.split("/") if key else []
    if any(segment in ("", ".", "..") for segment in segments):
        raise ValueError(f"not a relative key: {key!r}")
    return root._replace(path="/".join([root.path, *segments]))


def is_partial(key: str) -> bool:
    name = key.rpartition("/")[2]
    return name.startswith(PROBE) or (name.startswith(".") and name.endswith(TEMPORARY))


def is_visible(key: str) -> bool:
    """Return whether a key is visible: temporary files, locks and probes begin with a dot.

    An empty name marks a folder on S3.
    """
    name = key.rpartition("/")[2]
    return name != "" and not name.startswith(".")
