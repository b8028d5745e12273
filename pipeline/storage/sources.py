"""The sources of inputs: buckets, the local file system, any other fsspec file system.

Buckets check the ETag together with the request (If-Match). Other sources look it up again after
each block, so bytes are returned only if the object had not changed by the end of the read.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pipeline.errors import (
    InputChanged,
    InputMissing,
    ObjectMissing,
    StorageRefused,
    StorageUrlError,
)
from pipeline.storage.clouds.contract import BucketClient
from pipeline.storage.failures import our_errors
from pipeline.storage.globs import is_hidden
from pipeline.storage.objects import Data, Location, ObjectInfo, check_size

if TYPE_CHECKING:
    from fsspec.spec import AbstractFileSystem

# Fields that identify the content, best first, as the fsspec file systems name them.
_DIGESTS = (
    *("ETag", "etag", "generation", "blob_id"),
    *("content_md5", "Content-MD5", "md5Hash", "md5", "checksum"),
)
_NO_ENTRY = "folders that cannot be read"
_FOLDER_MARK = "_$folder$"
_TIMES = (
    *("Last-Modified", "last_modified", "LastModified", "updated"),
    *("mtime", "modified", "created"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A name beneath an input.

    `look` returns the object, or raises why it cannot be read. It is None if there is nothing to
    read, for `reason`.
    """

    uri: str
    look: Callable[[], ObjectInfo] | None
    reason: str = ""


class InputSource(Protocol):
    def find_one(self, at: Location) -> ObjectInfo | None:
        """Return the object of exactly that name, if there is one."""

    def find_under(self, under: Location) -> Iterator[Entry]:
        """Yield what is beneath a folder (its path ends with "/"), in any order.

        The content of a hidden folder may be left out, but not the folder itself.
        """

    def look(self, at: Location) -> ObjectInfo:
        """Return the object. Raises InputMissing, StorageError."""

    def fetch(self, at: Location, etag: str | None, offset: int, size_bytes: int) -> Data:
        """Read at most `size_bytes` (> 0), fewer at the end.

        Raises InputChanged unless `etag` holds.
        """

    def whole(self, at: Location, max_bytes: int) -> bytes:
        """Read a whole object, unchanged while it is read.

        Raises InputTooLarge before any of its bytes are read.
        """


def check_etag(at: Location, planned: str | None, now: str) -> None:
    if planned is not None and now != planned:
        raise InputChanged(
            f"{at.uri}: changed since it was planned (ETag {planned}, now {now}); "
            "restore it, or plan a new output"
        )


def fetch_exactly(
    source: InputSource, at: Location, etag: str | None, offset: int, size_bytes: int
) -> Data:
    """Read `size_bytes`. Raises InputChanged if there are fewer, StorageRefused if more come."""
    data = source.fetch(at, etag, offset, size_bytes) if size_bytes else b""
    if len(data) > size_bytes:
        raise StorageRefused(
            f"{at.uri}: the server ignores range requests; copy it to another store"
        )
    if len(data) < size_bytes:
        raise InputChanged(
            f"{at.uri}: changed since it was planned (shorter than {offset + size_bytes} bytes); "
            "restore it, or plan a new output"
        )
    return data


def _looked_up(source: InputSource, at: Location, max_bytes: int) -> bytes:
    info = source.look(at)
    check_size(at.uri, info.size_bytes, max_bytes)
    return bytes(fetch_exactly(source, at, info.etag, 0, info.size_bytes))


@dataclass(frozen=True, slots=True)
class BucketSource:
    client: BucketClient

    def find_one(self, at: Location) -> ObjectInfo | None:
        if not at.key:
            return None
        try:
            return self.look(at)
        except InputMissing:
            return None

    def find_under(self, under: Location) -> Iterator[Entry]:
        with _missing_as_input():
            for info in self.client.list(under):
                if not _marks_folder(info):
                    yield _known(info)

    def look(self, at: Location) -> ObjectInfo:
        with _missing_as_input():
            return self.client.head(at)

    def fetch(self, at: Location, etag: str | None, offset: int, size_bytes: int) -> Data:
        with _missing_as_input():
            return self.client.get_range(at, offset, size_bytes, etag=etag)

    def whole(self, at: Location, max_bytes: int) -> bytes:
        with _missing_as_input():
            return self.client.get(at, max_bytes=max_bytes).data


@contextmanager
def _missing_as_input() -> Iterator[None]:
    """Raise InputMissing where a client of buckets, which serves outputs too, misses an object."""
    try:
        yield
    except ObjectMissing as error:
        raise InputMissing(str(error)) from error.__cause__


class LocalSource:
    def find_one(self, at: Location) -> ObjectInfo | None:
        return self.look(at) if os.path.isfile(at.path) else None

    def find_under(self, under: Location) -> Iterator[Entry]:
        with our_errors(under.uri, missing=InputMissing):
            for path, reason in _walk(under.path, ()):
                at = Location("file", path)
                look = partial(self.look, at) if not reason else None
                if reason == _NO_ENTRY:
                    look = partial(_refuse, at)
                yield Entry(uri=at.uri, look=look, reason=reason)

    def look(self, at: Location) -> ObjectInfo:
        with our_errors(at.uri, missing=InputMissing):
            return _local_info(at, os.stat(at.path))

    def fetch(self, at: Location, etag: str | None, offset: int, size_bytes: int) -> bytes:
        with our_errors(at.uri, missing=InputMissing), open(at.path, "rb") as file:
            file.seek(offset)
            data = file.read(size_bytes)
            now = _local_info(at, os.fstat(file.fileno()))
        check_etag(at, etag, now.etag)
        return data

    def whole(self, at: Location, max_bytes: int) -> bytes:
        return _looked_up(self, at, max_bytes)


class FsspecSource:
    def find_one(self, at: Location) -> ObjectInfo | None:
        try:
            details = self._details(at)
        except InputMissing:
            return None
        return _fsspec_info(at, details) if details["type"] == "file" else None

    def find_under(self, under: Location) -> Iterator[Entry]:
        fs = _file_system(under)
        with our_errors(under.uri, missing=InputMissing):
            # Without on_error, a folder that cannot be listed is silently left out.
            found = fs.find(under.uri, detail=True, on_error="raise")
        for name, details in found.items():
            at = Location.of(fs.unstrip_protocol(name))
            # A listing may format times differently than `info` does, or give no size.
            is_enough = details.get("size") is not None and _identity(details, _DIGESTS)
            if is_enough:
                info = _fsspec_info(at, details)
                if not _marks_folder(info):
                    yield _known(info)
            elif not at.path.endswith(("/", _FOLDER_MARK)):
                yield Entry(uri=at.uri, look=partial(self.look, at))

    def look(self, at: Location) -> ObjectInfo:
        return _fsspec_info(at, self._details(at))

    def fetch(self, at: Location, etag: str | None, offset: int, size_bytes: int) -> bytes:
        fs = _file_system(at)
        with our_errors(at.uri, missing=InputMissing, condition=InputChanged):
            data: bytes = fs.cat_file(at.uri, start=offset, end=offset + size_bytes)
        if etag is not None:
            check_etag(at, etag, self.look(at).etag)
        return data

    def whole(self, at: Location, max_bytes: int) -> bytes:
        return _looked_up(self, at, max_bytes)

    def put_file(self, path: Path, to: Location) -> None:
        """Send a file of this machine."""
        fs = _file_system(to)
        with our_errors(to.uri):
            fs.put_file(str(path), to.uri)

    def _details(self, at: Location) -> dict[str, Any]:
        fs = _file_system(at)
        with our_errors(at.uri, missing=InputMissing):
            details: dict[str, Any] = fs.info(at.uri)
        return details


def _file_system(at: Location) -> "AbstractFileSystem":
    from fsspec.core import url_to_fs  # most processes need none of fsspec

    try:
        # Only the host matters here. A name may hold "::", which fsspec would treat as a chain.
        with our_errors(at.uri):  # some connect at once
            fs, _ = url_to_fs(at.uri.partition("::")[0])
    except (ValueError, ImportError) as error:
        raise StorageUrlError(
            f"{at.scheme}:// cannot be used here ({error}); check the scheme, or install the "
            "package that fsspec needs for it"
        ) from error
    fs.invalidate_cache()  # instances are shared, and their listings may be old
    return fs


def _fsspec_info(at: Location, details: dict[str, Any]) -> ObjectInfo:
    if details.get("size") is None:
        raise StorageRefused(
            f"{at.uri}: the server does not report its size; copy it to another store"
        )
    size_bytes = int(details["size"])
    identity = _identity(details, _DIGESTS) or _identity(details, _TIMES)
    return ObjectInfo(uri=at.uri, size_bytes=size_bytes, etag=f"{size_bytes}-{identity}")


def _identity(details: dict[str, Any], names: tuple[str, ...]) -> str:
    return next((str(details[name]) for name in names if details.get(name)), "")


def _local_info(at: Location, stat: os.stat_result) -> ObjectInfo:
    etag = f"{stat.st_size}-{stat.st_mtime_ns}"
    return ObjectInfo(uri=at.uri, size_bytes=stat.st_size, etag=etag)


def _refuse(at: Location) -> ObjectInfo:
    raise StorageRefused(
        f"{at.uri}: the folder cannot be read; check the permissions, or leave it out (--exclude)"
    )


def _known(info: ObjectInfo) -> Entry:
    return Entry(uri=info.uri, look=lambda: info)


def _marks_folder(info: ObjectInfo) -> bool:
    """Return whether an object marks a folder, as written by consoles, Hadoop and EMR."""
    return info.size_bytes == 0 and info.uri.endswith(("/", _FOLDER_MARK))


def _walk(folder: str, above: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Yield each file beneath `folder`, through links, with the reason why it cannot be read ("").

    `above` holds the real paths of the folders above. A hidden folder is not entered.
    """
    real = os.path.realpath(folder)
    if real in above:
        yield folder, "links to a folder above"
        return
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except PermissionError:
        if not above:
            raise
        yield folder, _NO_ENTRY
        return
    for entry in entries:
        if entry.is_dir():
            if is_hidden(entry.name):
                yield entry.path, "hidden"
            else:
                yield from _walk(entry.path, (*above, real))
        elif entry.is_file():
            yield entry.path, ""
        else:
            yield entry.path, "broken links" if entry.is_symlink() else "special files"
