"""The members of a tar, in order, read once from its first byte to its last.

Links inside a plain tar are followed to earlier members.
"""

import hashlib
import lzma
import posixpath
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, cast

from pipeline.formats.tar.archive import MAX_HEADER_BYTES, ArchiveBytes, ArchiveTooLarge

# Errors of damaged archives: the decompressors raise their own and OSError, tarfile the others
# while it reads a header (found by fuzzing). A file of InputStore raises none of these.
TAR_ERRORS = (
    *(tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError, ArchiveTooLarge),
    *(ValueError, LookupError, OverflowError, MemoryError, RecursionError),
)
_MAX_TARGETS = 200_000  # members that a link may lead to; each takes some 200 bytes of memory
_PADDING_BYTES = 1 << 20  # checked at a time


class TrailingData(tarfile.ReadError):
    """Raised when an archive was read completely, but the file continues."""


@dataclass(frozen=True, slots=True)
class _Extent:
    """Position of a member's bytes in the file of the archive."""

    offset: int
    size_bytes: int


@dataclass(slots=True, kw_only=True)
class Member:
    """A file of the archive; its content can be read until the next member is requested.

    `offset` is the position of its bytes in the file; it is None if they are not stored there
    unchanged. `problem` says why a member that is not a regular file cannot be read.
    """

    name: str
    size_bytes: int
    offset: int | None
    problem: str | None
    _info: tarfile.TarInfo
    _extent: _Extent | None
    _archive: tarfile.TarFile
    _stream: ArchiveBytes
    _head: bytes = b""

    def head(self, size_bytes: int) -> bytes:
        """Return the first bytes. Raises one of TAR_ERRORS."""
        if self._extent is None:
            return self.content()[:size_bytes]
        if not self._head:
            self._stream.allow(self.size_bytes)
            self._stream.seek(self._extent.offset)
            self._head = self._exactly(min(size_bytes, self.size_bytes))
        return self._head[:size_bytes]

    def content(self) -> bytes:
        """Return the whole content. Raises one of TAR_ERRORS."""
        if self._extent is None:  # a sparse file, which only tarfile can assemble
            self._stream.allow(self.size_bytes)
            file = self._archive.extractfile(self._info)
            assert file is not None, "a regular member has content"
            return file.read()
        if not self._head:
            self._stream.allow(self.size_bytes)
            self._stream.seek(self._extent.offset)
        return self._head + self._exactly(self.size_bytes - len(self._head))

    def _exactly(self, size_bytes: int) -> bytes:
        data = self._stream.read(size_bytes)
        if len(data) < size_bytes:
            raise tarfile.ReadError("unexpected end of data")
        return data


@dataclass(slots=True)
class _Targets:
    """Members that links may lead to, by their path in the archive."""

    _extents: dict[bytes, _Extent] = field(default_factory=dict)

    def add(self, name: str, extent: _Extent) -> None:
        if len(self._extents) < _MAX_TARGETS:
            self._extents[_digest(name)] = extent

    def find(self, name: str) -> _Extent | None:
        return self._extents.get(_digest(name))


def _digest(name: str) -> bytes:
    """Hash a name: names can be long, and there can be very many."""
    path = posixpath.normpath(name.lstrip("/"))
    return hashlib.blake2b(path.encode("utf-8", "surrogateescape"), digest_size=16).digest()


class Tar:
    """A tar that is read once, front to back; its first bytes identify the compression."""

    def __init__(self, file: BinaryIO) -> None:
        self._stream = ArchiveBytes(file)

    def members(self) -> Iterator[Member]:
        """Yield the files, without directories.

        Like reading a member, raises one of TAR_ERRORS if the archive is damaged, ends too early,
        continues after its end, or exceeds a limit.
        """
        stream, targets = self._stream, _Targets()
        with tarfile.open(fileobj=cast(BinaryIO, stream), mode="r:", encoding="utf-8") as archive:
            for info in _entries(archive, stream):
                if not info.isdir():
                    yield _member(info, archive, stream, targets)

    def code_of(self, error: BaseException) -> str:
        """Return the error type of a rejection for one of TAR_ERRORS."""
        if isinstance(error, ArchiveTooLarge):
            return "archive_too_large"
        if isinstance(error, TrailingData):
            return "trailing_data"
        is_cut = self._stream.is_at_end or isinstance(error, EOFError)
        return "truncated_archive" if is_cut else "corrupt_archive"


def _member(
    info: tarfile.TarInfo, archive: tarfile.TarFile, stream: ArchiveBytes, targets: _Targets
) -> Member:
    extent, problem = _extent(info, stream, targets)
    if extent is not None:
        targets.add(info.name, extent)
    return Member(
        name=_text(info.name),
        size_bytes=extent.size_bytes if extent else info.size,
        offset=extent.offset if extent and not stream.is_compressed else None,
        problem=problem,
        _info=info,
        _extent=extent,
        _archive=archive,
        _stream=stream,
    )


def _extent(
    info: tarfile.TarInfo, stream: ArchiveBytes, targets: _Targets
) -> tuple[_Extent | None, str | None]:
    """Return the bytes of a member, or why they cannot be read; neither for a sparse file."""
    if info.isreg():
        return (None if info.issparse() else _Extent(info.offset_data, info.size)), None
    if not (info.islnk() or info.issym()):
        return None, "it is a device or a pipe"
    where = info.linkname
    if info.issym():
        where = posixpath.join(posixpath.dirname(info.name), info.linkname)
    kind = "hard link" if info.islnk() else "symbolic link"
    said = f"it is a {kind} to {_text(info.linkname):.200}"
    if stream.is_compressed:
        return (
            None,
            f"{said}, but links are followed only in uncompressed tars; pack the files themselves",
        )
    if (extent := targets.find(where)) is None:
        remedy = "pack the files themselves (tar --dereference --hard-dereference)"
        return None, f"{said}, which is not in the archive before it; {remedy}"
    return extent, None


def _text(name: str) -> str:
    """Return a name in valid UTF-8.

    tarfile keeps undecodable bytes as surrogates, which no UTF-8 column can hold. Escaped, two such
    names stay distinct.
    """
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _entries(archive: tarfile.TarFile, stream: ArchiveBytes) -> Iterator[tarfile.TarInfo]:
    """Yield entries up to the end marker. Raises one of TAR_ERRORS if there is none."""
    position = -1
    while (info := _next(archive, stream)) is not None:
        # A negative size would lead tarfile back, in an endless loop.
        if info.size < 0 or archive.offset <= position:
            raise tarfile.ReadError(f"the header at byte {info.offset} is damaged")
        position = archive.offset
        yield info
    _check_end(archive, stream)


def _next(archive: tarfile.TarFile, stream: ArchiveBytes) -> tarfile.TarInfo | None:
    stream.allow(MAX_HEADER_BYTES)
    info = archive.next()
    # else they would grow with the archive
    archive.members = []  # type: ignore[attr-defined]
    archive.pax_headers = {}
    return info


def _check_end(archive: tarfile.TarFile, stream: ArchiveBytes) -> None:
    """Check that the archive ends with zeros; tarfile treats a damaged header as the end too.

    The check reads to the last byte: compressed data end with their checksum, and a second archive
    after the end marker would be lost silently.
    """
    stream.allow(tarfile.BLOCKSIZE)
    stream.seek(archive.offset)
    block = stream.read(tarfile.BLOCKSIZE)
    if len(block) < tarfile.BLOCKSIZE:
        raise tarfile.ReadError("the archive ends without its end marker")
    if any(block):
        raise tarfile.ReadError(f"the header at byte {archive.offset} is damaged")
    while block:
        stream.allow(_PADDING_BYTES)
        block = stream.read(_PADDING_BYTES)
        if block.count(0) < len(block):
            raise TrailingData("there are data after the end marker, as in concatenated archives")
