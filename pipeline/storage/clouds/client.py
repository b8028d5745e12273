"""Requests to Azure and Google Cloud, by obstore.

Every attempt is ours, not obstore's, so that retries are counted, and waits grow from one attempt
to the next. A name that obstore would change is refused (`names`).
"""

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pipeline.errors import (
    Conflict,
    InputChanged,
    ObjectMissing,
    PipelineError,
    StorageError,
    StorageRefused,
)
from pipeline.storage.clouds.azure import open_container
from pipeline.storage.clouds.google import open_bucket
from pipeline.storage.clouds.names import is_spelt
from pipeline.storage.clouds.requests import client_config, range_options, unquoted
from pipeline.storage.clouds.retries import RETRIES
from pipeline.storage.clouds.runtime import enter_runtime
from pipeline.storage.failures import our_errors
from pipeline.storage.objects import (
    AZURE_SCHEMES,
    Data,
    Fetched,
    Location,
    ObjectInfo,
    StorageOptions,
    check_size,
)

if TYPE_CHECKING:
    from obstore import ObjectMeta, PutMode
    from obstore.store import AzureStore, GCSStore

_T = TypeVar("_T")

_ATTEMPTS = 8
_REACH_ATTEMPTS = 2  # a wrong endpoint must be reported within seconds
_REACH_TIMEOUT_S = 5.0
_TIMEOUT_S = 30.0  # without an answer, or without the next bytes of one
_UPLOAD_TIMEOUT_S = 300.0  # an upload has no answer until all is sent
_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 15.0
_LARGE_BYTES = 1 << 20
_KEY = ".reach"  # of no object


@dataclass(frozen=True, slots=True)
class Cloud:
    """A BucketClient of Azure and Google Cloud. The threads of a process share its connections."""

    options: StorageOptions

    def reach(self, at: Location) -> None:
        store = self._store(at, _REACH_TIMEOUT_S)
        try:
            _patiently(at.uri, lambda: store.head(_KEY), attempts=_REACH_ATTEMPTS)
        except (ObjectMissing, StorageRefused):
            return

    def head(self, at: Location) -> ObjectInfo:
        store, key = self._object(at)
        return _info(at.uri, _patiently(at.uri, lambda: store.head(key)))

    def get(self, at: Location, *, max_bytes: int | None = None) -> Fetched:
        store, key = self._object(at)

        def read() -> Fetched:
            answer = store.get(key)
            check_size(at.uri, answer.meta["size"], max_bytes)
            return Fetched(answer.bytes().to_bytes(), unquoted(answer.meta["e_tag"]))

        return _patiently(at.uri, read)

    def get_range(
        self, at: Location, offset: int, size_bytes: int, *, etag: str | None = None
    ) -> Data:
        store, key = self._object(at)
        sent = range_options(offset, size_bytes, etag)

        def read() -> memoryview:
            return memoryview(store.get(key, options=sent).bytes())

        try:
            return _patiently(at.uri, read, condition=InputChanged)
        except InputChanged:
            self.head(at)  # Azure says the same of an object that is gone
            raise

    def put(self, at: Location, data: bytes) -> str:
        return self._put(at, data, "overwrite")

    def create(self, at: Location, data: bytes) -> str:
        return self._put(at, data, "create")

    def replace(self, at: Location, data: bytes, etag: str) -> str:
        if at.scheme in AZURE_SCHEMES:
            return self._put(at, data, {"e_tag": f'"{etag}"'})
        # Google Cloud has its condition on the generation, which only this content had.
        store, key = self._object(at)
        found = _patiently(at.uri, lambda: store.head(key))
        if unquoted(found["e_tag"]) != etag or not found["version"]:
            raise Conflict(f"{at.uri}: changed by another writer; run the same command again")
        return self._put(at, data, {"version": found["version"]})

    def put_file(self, path: Path, to: Location) -> None:
        store, key = self._object(to, _UPLOAD_TIMEOUT_S)
        _patiently(to.uri, lambda: store.put(key, path))

    def delete(self, at: Location, etag: str | None = None) -> None:
        store, key = self._object(at)
        _patiently(at.uri, lambda: store.delete(key))

    def list(self, under: Location, *, delimiter: str = "") -> Iterator[ObjectInfo]:
        for found in self._listed(under, delimiter):
            yield _info(f"{under.scheme}://{under.bucket}/{found['path']}", found)

    def times(self, under: Location, *, delimiter: str = "") -> Iterator[tuple[str, datetime]]:
        for found in self._listed(under, delimiter):
            yield f"{under.scheme}://{under.bucket}/{found['path']}", found["last_modified"]

    def _listed(self, under: Location, delimiter: str) -> "Iterator[ObjectMeta]":
        store, prefix = self._store(under), under.key.rstrip("/")

        def every() -> "list[ObjectMeta]":
            if delimiter:
                return list(store.list_with_delimiter(prefix)["objects"])
            return [found for page in store.list(prefix) for found in page]

        found = sorted(_patiently(under.uri, every), key=lambda o: o["path"])
        # obstore names the mark of a folder, "a/", as the empty object "a".
        folders = {path.rpartition("/")[0] for path in (each["path"] for each in found)}
        return (each for each in found if each["size"] or each["path"] not in folders)

    def _put(self, at: Location, data: bytes, mode: "PutMode") -> str:
        timeout_s = _TIMEOUT_S if len(data) < _LARGE_BYTES else _UPLOAD_TIMEOUT_S
        store, key = self._object(at, timeout_s)

        def write() -> str:
            return unquoted(store.put(key, data, mode=mode, use_multipart=False)["e_tag"])

        return _patiently(at.uri, write, condition=Conflict)

    def _object(
        self, at: Location, timeout_s: float | None = None
    ) -> "tuple[AzureStore | GCSStore, str]":
        if not is_spelt(at.key):
            raise StorageRefused(
                f"{at.uri!a}: names with line breaks, empty parts or dots for folders cannot be "
                "used in this store; rename the object"
            )
        return self._store(at, timeout_s), at.key

    def _store(self, at: Location, timeout_s: float | None = None) -> "AzureStore | GCSStore":
        if not enter_runtime():
            raise StorageRefused(
                f"{at.uri}: cannot be reached by a forked process, because its parent has used the "
                "store; start processes by `spawn`"
            )
        with our_errors(at.uri):
            return _opened(self.options, at.scheme, at.bucket, timeout_s or _TIMEOUT_S)


def _patiently(
    uri: str,
    call: Callable[[], _T],
    *,
    condition: type[PipelineError] = Conflict,
    attempts: int | None = None,
) -> _T:
    """Call until there is an answer. Each wait is up to twice as long as the one before."""
    pause_s = _FIRST_PAUSE_S
    for left in reversed(range(attempts or _ATTEMPTS)):
        try:
            with our_errors(uri, condition=condition):
                return call()
        except StorageError as error:
            if not error.retriable or not left:
                raise
        RETRIES.add()
        time.sleep(pause_s * random.uniform(0.5, 1))  # noqa: S311 - it only spreads requests
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
    raise AssertionError("the last attempt returns or raises")


@lru_cache(maxsize=64)
def _opened(
    options: StorageOptions, scheme: str, bucket: str, timeout_s: float
) -> "AzureStore | GCSStore":
    opened = open_container if scheme in AZURE_SCHEMES else open_bucket
    return opened(bucket, options, client_config(timeout_s))


def _info(uri: str, found: "ObjectMeta") -> ObjectInfo:
    return ObjectInfo(uri=uri, size_bytes=found["size"], etag=unquoted(found["e_tag"]))
