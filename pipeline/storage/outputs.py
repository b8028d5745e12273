"""The contract of an output store; and how an unclear conditional write is settled."""

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
    """A key is a relative path such as "annotations/a.parquet"; ETags are opaque.

    Every method may raise StorageError. What a failed write leaves behind is never visible.
    """

    @property
    def uri(self) -> str:
        """Absolute, with its scheme, without a slash at the end."""

    def list(self, folder: str) -> Keys:
        """Sorted keys of the objects directly in `folder` ("" is the root), never from a cache.

        Names that start with "." are left out. A missing folder is an empty one.
        """

    def times(self, folder: str) -> Times:
        """When each of `list` was written, by the store's clock, in UTC; of a copy, when copied."""

    def partials(self, folder: str) -> Keys:
        """List temporary files and probes directly in `folder`, which dead writers leave.

        A writer that is at work has some, too.
        """

    def get(self, key: str) -> Fetched:
        """Raises ObjectMissing."""

    def open(self, key: str) -> AbstractContextManager[BinaryIO]:
        """A seekable file; pyarrow.parquet reads just the footer from it. Raises ObjectMissing."""

    def create(self, key: str, data: bytes) -> str:
        """Write only if there is no such object; the new ETag. Raises AlreadyExists.

        An unclear outcome (a lost answer; our own retry meeting our own first try) is settled by
        the bytes in the store: every committed file holds a random commit id, so equal bytes are
        ours. StorageError means that nothing was seen there: the same call may be made again.
        """

    def replace(self, key: str, data: bytes, etag: str) -> str:
        """Write only over the object with that ETag; the new ETag. Raises Conflict.

        Unclear outcomes are settled as in `create`.
        """

    def put(self, key: str, data: bytes) -> None:
        """Write, whatever is there: for what no decision rests on, such as _SUCCESS.json."""

    def delete(self, key: str, etag: str | None = None) -> None:
        """Delete it, if it is there. Raises Conflict if it has another ETag."""

    def probe(self) -> None:
        """Try conditional writes on an object of its own, and remove it.

        Raises OutputUnsupported if the store ignores a condition, StorageRefused.
        """


def settle(
    store: OutputStore, key: str, data: bytes, before: str | None, unclear: Exception | None
) -> str:
    """The ETag of `data` if it is what the store holds now.

    `before` is the ETag that the write asked for; None asked for no object. Otherwise raises
    AlreadyExists or Conflict, or StorageError if nothing has changed: the write did not arrive.
    """
    uri = f"{store.uri}/{key}"
    now = _now(store, key)
    if now is not None and now.data == data:
        return now.etag
    if before == (now and now.etag):
        raise StorageError(f"{uri}: not written, nothing is lost: try again") from unclear
    if before is None:
        raise AlreadyExists(f"{uri}: exists already: another run was faster") from unclear
    raise Conflict(f"{uri}: changed or gone since it was read: read it again") from unclear


def _now(store: OutputStore, key: str) -> Fetched | None:
    try:
        return store.get(key)
    except ObjectMissing:
        return None


def probe(store: OutputStore) -> None:
    """The work of OutputStore.probe, with nothing but the other methods."""
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
        "other: use a local directory or a store with conditional PUT (AWS S3, MinIO, SeaweedFS)"
    )


def within(root: Location, key: str) -> Location:
    """Raises ValueError for a key that would leave the root: a bug of the caller."""
    segments = key.split("/") if key else []
    if any(segment in ("", ".", "..") for segment in segments):
        raise ValueError(f"not a relative key: {key!r}")
    return root._replace(path="/".join([root.path, *segments]))


def is_partial(key: str) -> bool:
    name = key.rpartition("/")[2]
    return name.startswith(PROBE) or (name.startswith(".") and name.endswith(TEMPORARY))


def is_visible(key: str) -> bool:
    """Temporary files, locks and probes hide behind a dot; "" marks a folder on S3."""
    name = key.rpartition("/")[2]
    return name != "" and not name.startswith(".")
