"""The contract of the client of a cloud: S3 by `pipeline.storage.s3`, the others by `Cloud`."""

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Protocol

from pipeline.storage.objects import Data, Fetched, Location, ObjectInfo, StorageOptions


class BucketClient(Protocol):
    """Requests to buckets. It pickles as its options.

    Every method may raise StorageError, those that read ObjectMissing.
    """

    @property
    def options(self) -> StorageOptions:
        """How the store is reached."""

    def reach(self, at: Location) -> None:
        """Raise StorageError within seconds if no server answers; any answer suffices."""

    def head(self, at: Location) -> ObjectInfo:
        """Return the object as it is now."""

    def get(self, at: Location, *, max_bytes: int | None = None) -> Fetched:
        """Read a whole object. Raises InputTooLarge before any of its bytes are read."""

    def get_range(
        self, at: Location, offset: int, size_bytes: int, *, etag: str | None = None
    ) -> Data:
        """Read at most `size_bytes` (> 0). Raises InputChanged if the ETag is not `etag`."""

    def put(self, at: Location, data: bytes) -> str:
        """Write by one request, over what is there; return the new ETag."""

    def create(self, at: Location, data: bytes) -> str:
        """Write only if no object is there; return the new ETag. Raises Conflict."""

    def replace(self, at: Location, data: bytes, etag: str) -> str:
        """Write only over the object with that ETag; return the new one. Raises Conflict."""

    def put_file(self, path: Path, to: Location) -> None:
        """Send a file of any size, in parts if it is large. It appears when all are there."""

    def delete(self, at: Location, etag: str | None = None) -> None:
        """Delete an object. Not every store looks at `etag`."""

    def list(self, under: Location, *, delimiter: str = "") -> Iterator[ObjectInfo]:
        """Yield the objects whose key starts with `under.key` (it ends with "/"), uncached.

        With the delimiter "/", only those directly in that folder.
        """

    def times(self, under: Location, *, delimiter: str = "") -> Iterator[tuple[str, datetime]]:
        """Yield the URIs of the same objects, and when each was last written."""
