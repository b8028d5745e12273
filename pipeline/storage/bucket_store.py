"""An output in a bucket: on S3, Azure or Google Cloud."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import BinaryIO

from pipeline.errors import Conflict, ObjectMissing, StorageError, StorageRefused
from pipeline.storage.clouds.contract import BucketClient
from pipeline.storage.inputs import InputStore
from pipeline.storage.objects import Fetched, Location
from pipeline.storage.outputs import Keys, Times, is_partial, is_visible, probe, settle, within


@dataclass(frozen=True, slots=True)
class BucketStore:
    """An output store in a bucket. Each write is one PUT, with its condition in the request."""

    root: Location
    client: BucketClient

    @property
    def uri(self) -> str:
        return self.root.uri

    def list(self, folder: str) -> Keys:
        return [key for key in self._keys(folder) if is_visible(key)]

    def times(self, folder: str) -> Times:
        found = self.client.times(self._prefix(folder), delimiter="/")
        keys = ((uri.removeprefix(self.uri + "/"), written) for uri, written in found)
        return {key: written for key, written in sorted(keys) if is_visible(key)}

    def partials(self, folder: str) -> Keys:
        return [key for key in self._keys(folder) if is_partial(key)]

    def get(self, key: str) -> Fetched:
        return self.client.get(within(self.root, key))

    def open(self, key: str) -> AbstractContextManager[BinaryIO]:
        return InputStore(self.client.options).open(self.client.head(within(self.root, key)))

    def create(self, key: str, data: bytes) -> str:
        return self._put_if(key, data, None, again=lambda: self._put_if(key, data, None))

    def replace(self, key: str, data: bytes, etag: str) -> str:
        return self._put_if(key, data, etag)

    def put(self, key: str, data: bytes) -> None:
        self.client.put(within(self.root, key), data)

    def delete(self, key: str, etag: str | None = None) -> None:
        at = within(self.root, key)
        try:
            # Not every store has a condition here. Checking first leaves such stores a small gap.
            if etag is not None and self.client.head(at).etag != etag:
                raise Conflict(
                    f"{at.uri}: not deleted, because another writer changed it; "
                    "run the same command again"
                )
            self.client.delete(at, etag)
        except ObjectMissing:
            return

    def probe(self) -> None:
        self.client.reach(self.root)
        probe(self)

    def _keys(self, folder: str) -> Keys:
        found = self.client.list(self._prefix(folder), delimiter="/")
        return sorted(info.uri.removeprefix(self.uri + "/") for info in found)

    def _prefix(self, folder: str) -> Location:
        under = within(self.root, folder.strip("/"))
        return under._replace(path=under.path + "/")

    def _put_if(
        self, key: str, data: bytes, etag: str | None, again: Callable[[], str] | None = None
    ) -> str:
        at = within(self.root, key)
        try:
            if etag is None:
                return self.client.create(at, data)
            return self.client.replace(at, data, etag)
        except StorageRefused:
            raise
        except (Conflict, StorageError) as unclear:
            return settle(self, key, data, etag, unclear, again)
        except ObjectMissing as missing:
            if etag is None:
                raise  # the bucket is missing
            return settle(self, key, data, etag, missing)
