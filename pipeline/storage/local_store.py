"""An output in a local or mounted directory."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from errno import EINVAL, ENOSYS, EOPNOTSUPP, EPERM
from fcntl import LOCK_EX, flock
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

from pipeline.errors import Conflict, OutputUnsupported
from pipeline.faults import fault
from pipeline.storage.failures import our_errors
from pipeline.storage.objects import Fetched, Location
from pipeline.storage.outputs import (
    TEMPORARY,
    Keys,
    Times,
    is_partial,
    is_visible,
    probe,
    settle,
    within,
)

_NO_HARD_LINKS = (EPERM, EOPNOTSUPP, ENOSYS)


@dataclass(frozen=True, slots=True)
class LocalStore:
    """An output store in a directory: data are written to a temporary file, synced, then renamed.

    Create-only is a hard link, which fails if the name is taken. Compare-and-swap holds a lock on
    `.lock` in the root. ETags are hashes of the content: two writes of the same size can fall into
    one tick of the file clock.
    """

    root: Location

    @property
    def uri(self) -> str:
        return self.root.uri

    def list(self, folder: str) -> Keys:
        return [key for key in self._files(folder) if is_visible(key)]

    def times(self, folder: str) -> Times:
        with self._errors(folder):
            return {
                key: datetime.fromtimestamp(self._path(key).stat().st_mtime, UTC)
                for key in self.list(folder)
            }

    def partials(self, folder: str) -> Keys:
        return [key for key in self._files(folder) if is_partial(key)]

    def get(self, key: str) -> Fetched:
        with self._errors(key):
            data = self._path(key).read_bytes()
        return Fetched(data, _etag(data))

    def open(self, key: str) -> AbstractContextManager[BinaryIO]:
        with self._errors(key):
            return self._path(key).open("rb")

    def create(self, key: str, data: bytes) -> str:
        with self._errors(key), self._temporary(key, data) as temporary:
            try:
                os.link(temporary, self._path(key))
            except FileExistsError as taken:
                return settle(self, key, data, None, taken, again=lambda: self.create(key, data))
            except OSError as error:
                if error.errno in _NO_HARD_LINKS:
                    raise self._no_hard_links() from error
                raise
            _sync_folder(temporary.parent)
        return _etag(data)

    def replace(self, key: str, data: bytes, etag: str) -> str:
        with self._locked(), self._errors(key), self._temporary(key, data) as temporary:
            if not self._holds(key, etag):
                return settle(self, key, data, etag, None)
            os.replace(temporary, self._path(key))
            _sync_folder(temporary.parent)
        return _etag(data)

    def put(self, key: str, data: bytes) -> None:
        with self._errors(key), self._temporary(key, data) as temporary:
            os.replace(temporary, self._path(key))
            _sync_folder(temporary.parent)

    def delete(self, key: str, etag: str | None = None) -> None:
        with self._locked(), self._errors(key):
            path = self._path(key)
            if not path.exists():
                return
            if etag is not None and not self._holds(key, etag):
                raise Conflict(
                    f"{self.uri}/{key}: not deleted, because another writer changed it; "
                    "run the same command again"
                )
            path.unlink()
            _sync_folder(path.parent)

    def probe(self) -> None:
        probe(self)

    def _files(self, folder: str) -> Keys:
        path = self._path(folder := folder.strip("/"))
        with our_errors(f"file://{path}"):
            if not path.exists():
                return []
            with os.scandir(path) as entries:
                names = [entry.name for entry in entries if entry.is_file()]
        return sorted(f"{folder}/{name}" if folder else name for name in names)

    def _path(self, key: str) -> Path:
        return Path(within(self.root, key).path)

    def _errors(self, key: str) -> AbstractContextManager[None]:
        return our_errors(f"{self.uri}/{key}")

    def _holds(self, key: str, etag: str) -> bool:
        path = self._path(key)
        return path.exists() and _etag(path.read_bytes()) == etag

    @contextmanager
    def _temporary(self, key: str, data: bytes) -> Iterator[Path]:
        """Write `data` to a synced temporary file beside the key; remove it at the end."""
        path = self._path(key)
        _make_folder(path.parent)
        temporary = path.with_name(f".{path.name}.{uuid4().hex}{TEMPORARY}")
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                fault("local_store.written", key=key)
                os.fsync(file.fileno())
            yield temporary
        finally:
            temporary.unlink(missing_ok=True)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Lock between processes and threads. The file stays, since removing it would be a race."""
        with self._errors(".lock"):
            _make_folder(Path(self.root.path))
            lock = self._path(".lock").open("ab")
        with lock:
            flock(lock, LOCK_EX)
            yield

    def _no_hard_links(self) -> OutputUnsupported:
        return OutputUnsupported(
            f"{self.uri}: this file system has no hard links; use another directory"
        )


def _etag(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _make_folder(folder: Path) -> None:
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    """Sync a folder: a new name survives a power cut only once its folder is on disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != EINVAL:  # some network mounts cannot sync folders
            raise
    finally:
        os.close(descriptor)
