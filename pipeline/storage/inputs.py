"""Access to inputs at any URL. Every read is guarded by the planned ETag."""

import io
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, BinaryIO, cast

from pipeline.errors import InputMissing
from pipeline.storage.clouds.choosing import bucket_client, check_options
from pipeline.storage.globs import TypedGlob, hidden_part, is_excluded, is_included
from pipeline.storage.ignored import HIDDEN, Ignored, IgnoredCount, ignored_in_one_line
from pipeline.storage.objects import (
    WEB_SCHEMES,
    Location,
    ObjectInfo,
    StorageOptions,
    check_size,
    is_text,
    locate,
)
from pipeline.storage.ranged import RangedFile
from pipeline.storage.sources import (
    BucketSource,
    FsspecSource,
    InputSource,
    LocalSource,
    check_etag,
    fetch_exactly,
)

BLOCK_BYTES = 8 * 2**20  # a request costs as much as 1 MiB; s3fs and pyarrow are slow below


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """The objects at or beneath an input, sorted by URI.

    `root` is the folder, which ends with "/", or a single object (`is_one`).
    """

    root: Location
    objects: tuple[ObjectInfo, ...]
    ignored: tuple[Ignored, ...] = ()
    is_one: bool = False


@dataclass(frozen=True, slots=True)
class InputStore:
    """Reads inputs. It pickles as its options."""

    options: StorageOptions = field(default_factory=StorageOptions)

    def list(
        self, uri: str, include: tuple[str, ...] = (), exclude: tuple[str, ...] = ()
    ) -> Listing:
        """List the objects at or beneath `uri`, as a user typed it.

        A `uri` of one object gives that object; one that ends with "/" is a folder. If nothing has
        that name, its wildcards and braces are expanded. Patterns (see `globs`) match the path
        relative to the folder. Links are followed. Objects that only mark a directory are left out;
        other empty objects are not.

        Raises InputMissing if everything is ignored or there is nothing, StorageError,
        StorageUrlError.
        """
        at = locate(uri)
        check_options(at, self.options)
        source = self._source(at)
        single = None if uri.endswith("/") else source.find_one(at)
        is_one = single is not None and (single.size_bytes > 0 or not _has_any(source, at))
        if single is not None and is_one:
            return Listing(root=at, objects=(single,), is_one=True)
        listing = _listed(source, at, include, exclude)
        if not listing.objects:
            raise InputMissing(
                f"{at.uri} has nothing to read (ignored: {ignored_in_one_line(listing.ignored)}); "
                "check the name and the patterns"
            )
        return listing

    def reach(self, uri: str) -> None:
        """Check the endpoint.

        Raises StorageError within seconds if none answers, StorageUrlError.
        """
        at = locate(uri)
        check_options(at, self.options)
        if (client := bucket_client(at, self.options)) is not None:
            client.reach(at)

    def open(self, info: ObjectInfo) -> AbstractContextManager[BinaryIO]:
        """Open a seekable binary file, fetched in blocks of 8 MiB.

        A read raises InputChanged as soon as the object is not the planned one, InputMissing, and
        StorageError if the store or the network fails. None of these is an OSError or ValueError,
        so a format reader does not mistake it for a damaged file.
        """
        at = Location.of(info.uri)
        if info.size_bytes == 0:
            self.verify(info)  # no read will follow that could notice a change
        fetch = partial(fetch_exactly, self._source(at), at, info.etag)
        block_bytes = max(1, min(BLOCK_BYTES, info.size_bytes))
        reader = io.BufferedReader(_Blocks(fetch, info.size_bytes), block_bytes)
        return cast(AbstractContextManager[BinaryIO], reader)

    def verify(self, info: ObjectInfo) -> None:
        """Raise InputChanged or InputMissing unless the object is still the planned one."""
        at = Location.of(info.uri)
        check_etag(at, info.etag, self._source(at).look(at).etag)

    def ranged(self, source: ObjectInfo) -> RangedFile:
        """Open a file for pyarrow's Parquet reader; the planned ETag guards each read."""

        at = Location.of(source.uri)
        fetch = partial(fetch_exactly, self._source(at), at, source.etag)
        return RangedFile(fetch, source.size_bytes)

    def read_range(self, uri: str, offset: int, size_bytes: int, etag: str | None = None) -> bytes:
        """Read exactly `size_bytes`, of the object with that ETag if one is given."""
        at = Location.of(uri)
        return bytes(fetch_exactly(self._source(at), at, etag, offset, size_bytes))

    def read_whole(self, uri: str, *, max_bytes: int, planned: ObjectInfo | None = None) -> bytes:
        """Read a whole object, unchanged while it is read; the planned one, if there is one.

        The web is read only if that is allowed, and never at a private address (see `web`). Raises
        InputTooLarge, InputChanged, InputMissing, StorageError, StorageUrlError.
        """
        at = Location.of(uri)
        if at.scheme in WEB_SCHEMES:
            from pipeline.storage.web import fetch_from_web  # its library takes long to import

            at = locate(uri)  # checks again that it holds no secret
            return fetch_from_web(at, is_allowed=self.options.allow_http, max_bytes=max_bytes)
        source = self._source(at)
        if planned is None:
            return source.whole(at, max_bytes)
        check_size(at.uri, planned.size_bytes, max_bytes)
        return bytes(fetch_exactly(source, at, planned.etag, 0, planned.size_bytes))

    def _source(self, at: Location) -> InputSource:
        if at.scheme == "file":
            return LocalSource()
        client = bucket_client(at, self.options)
        return FsspecSource() if client is None else BucketSource(client)


def _folder(at: Location) -> Location:
    return at if at.path.endswith("/") else at._replace(path=f"{at.path}/")


def _has_any(source: InputSource, at: Location) -> bool:
    """Return whether an empty object only marks a folder, as some clients write it."""
    return at.scheme != "file" and any(True for _ in source.find_under(_folder(at)))


def _listed(
    source: InputSource, at: Location, include: tuple[str, ...], exclude: tuple[str, ...]
) -> Listing:
    """List what is beneath `at`; if there is nothing, treat `at` as a pattern."""
    glob = TypedGlob.of(at.path)
    try:
        listing = _filtered(source, _folder(at), None, include, exclude)
    except InputMissing:
        if glob is None:
            raise
        listing = Listing(root=at, objects=())
    if glob is None or listing.objects or listing.ignored:
        return listing
    return _filtered(source, _folder(at._replace(path=glob.folder)), glob, include, exclude)


def _filtered(
    source: InputSource,
    root: Location,
    glob: TypedGlob | None,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
) -> Listing:
    """Filter entries by patterns first, so that excluded objects are not requested."""
    objects, ignored = list[ObjectInfo](), IgnoredCount()
    hidden = set[str]()
    for entry in source.find_under(root):
        path = entry.uri.removeprefix(root.uri)
        if glob is not None and not glob.matches(path):
            continue
        if (part := hidden_part(path)) is not None:
            if part not in hidden:  # count each hidden folder once
                hidden.add(part)
                ignored.add(HIDDEN, root.uri + part)
        elif is_excluded(path, exclude):
            ignored.add("left out by --exclude", entry.uri)
        elif not is_included(path, include):
            ignored.add("not in --include", entry.uri)
        elif not is_text(entry.uri):
            ignored.add("names not in UTF-8", entry.uri)
        elif entry.look is None:
            ignored.add(entry.reason, entry.uri)
        else:
            objects.append(entry.look())
    objects.sort(key=lambda info: info.uri)
    return Listing(root=root, objects=tuple(objects), ignored=ignored.result())


class _Blocks(RangedFile):
    """A raw file whose blocks io.BufferedReader requests."""

    def readinto(self, buffer: Any) -> int:
        data = self.read_buffer(min(len(buffer), BLOCK_BYTES))
        buffer[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:  # io's own method reads 8 KiB at a time
        return b"".join(iter(partial(self.read_buffer, BLOCK_BYTES), b""))
