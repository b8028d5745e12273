"""WebDataset tar shards, in img2dataset's layout: `<key>.jpg`, `<key>.json`, `<key>.txt`.

A sample is a run of adjacent members with one key, and one picture of a name; its index is the
ordinal of the run.
"""

import hashlib
import json
import lzma
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO, cast

from kosmos2_core.annotation import Issue
from pipeline.readers.archive import MAX_HEADER_BYTES, ArchiveBytes, ArchiveTooLarge
from pipeline.readers.columns import plain
from pipeline.readers.limits import (
    MAX_IMAGE_BYTES,
    MAX_METADATA_BYTES,
    MAX_NAME_CHARS,
    with_limited_metadata,
)
from pipeline.readers.sample import BrokenArchive, Sample, Unreadable
from pipeline.schema import metadata_json

IMAGE_EXTENSIONS = frozenset({"jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff"})

_PADDING_BYTES = 1 << 20  # looked at at a time

# What damaged archives raise: the decompressors their own and OSError, tarfile the others where
# a header lies (fuzzing found them). A file of InputStore raises none of these.
_FORMAT_ERRORS = (
    *(tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, OSError, ArchiveTooLarge),
    *(ValueError, LookupError, OverflowError, MemoryError, RecursionError),
)


@dataclass(slots=True, kw_only=True)
class _Group:
    """The members of one key, as far as they are read."""

    key: str
    member: str | None = None
    offset: int | None = None
    data: bytes | None = None
    too_large: bool = False
    fields: dict[str, Any] = field(default_factory=dict)
    issues: set[Issue] = field(default_factory=set)


def read_samples(file: BinaryIO) -> Iterator[Sample | Unreadable]:
    """The samples of a tar, in order.

    `file` is seekable and is read once, front to back, to its last byte. Raises BrokenArchive,
    after all that could be read, where the archive is damaged, ends too early, goes on after its
    end or asks for more than an honest one; errors of `file` itself pass, as long as they are
    PipelineErrors.
    """
    return with_limited_metadata(_samples(file))


def _samples(file: BinaryIO) -> Iterator[Sample | Unreadable]:
    seen: set[bytes] = set()
    index = 0
    groups = _groups(file)
    while True:
        try:
            group = next(groups, None)
        except _Broken as broken:
            raise BrokenArchive(broken.message, _lost(index, broken)) from broken
        if group is None:
            return
        digest = _digest(group.key)
        yield _sample(index, group, is_repeated=digest in seen)
        seen.add(digest)
        index += 1


def _digest(key: str) -> bytes:
    """Keys can be long, and there can be very many."""
    return hashlib.blake2b(key.encode(), digest_size=16).digest()


class _Broken(Exception):
    def __init__(
        self, error_type: str, message: str, key: str = "", member: str | None = None
    ) -> None:
        super().__init__(message)
        self.error_type, self.message = error_type, message
        self.key, self.member = key, member


class _TrailingData(tarfile.ReadError):
    """All of the archive was read, but the file goes on."""


def _groups(file: BinaryIO) -> Iterator[_Group]:
    """Raises _Broken in place of a group that cannot be completed."""
    group: _Group | None = None
    reading: tarfile.TarInfo | None = None
    stream = ArchiveBytes(file)
    try:
        with tarfile.open(fileobj=cast(BinaryIO, stream), mode="r:", encoding="utf-8") as archive:
            for member in _members(archive, stream):
                key, extension = _split(member)
                if key is None:
                    continue
                # The same picture's name again is another sample, of a key that is taken by then.
                if group is None or group.key != key or group.member == _name(member):
                    if group is not None:
                        yield group
                    group = _Group(key=key)
                reading = member
                _take(group, archive, stream, member, extension)
                reading = None  # it is whole: what goes wrong from here on is not its fault
    except _FORMAT_ERRORS as error:
        if group is not None and group.member is not None and reading is None:
            yield group
            group = None
        raise _Broken(
            _error_type(error, stream),
            str(error),
            group.key if group else "",
            _name(reading) if reading else None,
        ) from error
    if group is not None:
        yield group


def _error_type(error: Exception, stream: ArchiveBytes) -> str:
    if isinstance(error, ArchiveTooLarge):
        return "archive_too_large"
    if isinstance(error, _TrailingData):
        return "trailing_data"
    is_cut = stream.is_at_end or isinstance(error, EOFError)
    return "truncated_archive" if is_cut else "corrupt_archive"


def _members(archive: tarfile.TarFile, stream: ArchiveBytes) -> Iterator[tarfile.TarInfo]:
    """In order, up to the end marker. Raises one of _FORMAT_ERRORS where there is none."""
    position = -1
    while (member := _next(archive, stream)) is not None:
        # A negative size would lead tarfile back, and round and round.
        if member.size < 0 or archive.offset <= position:
            raise tarfile.ReadError(f"damaged header at byte {member.offset}")
        position = archive.offset
        yield member
    _check_end(archive, stream)


def _next(archive: tarfile.TarFile, stream: ArchiveBytes) -> tarfile.TarInfo | None:
    stream.allow(MAX_HEADER_BYTES)
    member = archive.next()
    # Or they would grow with the archive.
    archive.members = []  # type: ignore[attr-defined]
    archive.pax_headers = {}
    return member


def _split(member: tarfile.TarInfo) -> tuple[str | None, str]:
    """(key, extension) as WebDataset splits them, at the first dot of the base name.

    None for what is no sample: directories, links, and names that begin with a dot, which
    some archivers add on their own.
    """
    folder, slash, base = _name(member).rpartition("/")
    stem, _, extension = base.partition(".")
    if not member.isreg() or not stem:
        return None, ""
    return folder + slash + stem, extension.lower()


def _name(member: tarfile.TarInfo) -> str:
    """tarfile keeps undecodable bytes as surrogates, which no UTF-8 column can hold."""
    return member.name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _take(
    group: _Group,
    archive: tarfile.TarFile,
    stream: ArchiveBytes,
    member: tarfile.TarInfo,
    extension: str,
) -> None:
    stream.allow(member.size)
    if extension in IMAGE_EXTENSIONS and group.member is None:
        group.member = _name(member)
        group.too_large = member.size > MAX_IMAGE_BYTES
        if not group.too_large:
            is_stored_as_is = not stream.is_compressed and not member.issparse()
            group.offset = member.offset_data if is_stored_as_is else None
            group.data = _content(archive, member)
    elif extension in ("json", "txt"):
        if member.size > MAX_METADATA_BYTES:
            group.issues.add(Issue.METADATA_TOO_LARGE)
        else:
            _take_metadata(group, extension, _content(archive, member))


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    assert file is not None, "a regular member has content"
    return file.read()


def _take_metadata(group: _Group, extension: str, content: bytes) -> None:
    text = content.decode("utf-8", "replace")
    if extension == "txt":
        group.fields["txt"] = text
        return
    try:
        # NaN and Infinity are no JSON; DuckDB and others would stop at them.
        fields = json.loads(text, parse_constant=lambda _: None)
        metadata_json(fields)
        fields = plain(fields)  # what is nested so deeply that it can just be read, others cannot
    except (ValueError, RecursionError):
        fields = None
    if isinstance(fields, dict):
        group.fields = {**fields, **group.fields}
    else:
        group.issues.add(Issue.METADATA_INVALID)


def _check_end(archive: tarfile.TarFile, stream: ArchiveBytes) -> None:
    """tarfile takes a damaged header, or no more data, for the end; a tar ends with zeros.

    To the last byte: compressed data end with their checksum, and a second archive after the
    end marker would be lost in silence.
    """
    stream.allow(tarfile.BLOCKSIZE)
    stream.seek(archive.offset)
    block = stream.read(tarfile.BLOCKSIZE)
    if len(block) < tarfile.BLOCKSIZE:
        raise tarfile.ReadError("the archive ends without its end marker")
    if any(block):
        raise tarfile.ReadError(f"damaged header at byte {archive.offset}")
    while padding := _padding(stream):
        if padding.count(0) < len(padding):
            raise _TrailingData("data after the end marker: were archives concatenated?")


def _padding(stream: ArchiveBytes) -> bytes:
    stream.allow(_PADDING_BYTES)
    return stream.read(_PADDING_BYTES)


def _sample(index: int, group: _Group, *, is_repeated: bool) -> Sample | Unreadable:
    problem = _problem(group, is_repeated=is_repeated)
    if problem is not None:
        return Unreadable(
            index=index,
            key=group.key[:MAX_NAME_CHARS],
            member=None if group.member is None else group.member[:MAX_NAME_CHARS],
            error_type=problem[0],
            message=problem[1],
        )
    assert group.data is not None
    return Sample(
        index=index,
        key=group.key,
        member=group.member,
        image_offset=group.offset,
        data=group.data,
        metadata=metadata_json(group.fields) if group.fields else None,
        issues=tuple(sorted(group.issues)),
    )


def _problem(group: _Group, *, is_repeated: bool) -> tuple[str, str] | None:
    if len(group.key) > MAX_NAME_CHARS:
        return "name_too_long", f"its name has more than {MAX_NAME_CHARS} characters; here is some"
    if is_repeated:
        return "duplicate_key", "the key was seen before in this archive; are its members in order?"
    if group.too_large:
        return "member_too_large", f"the image has more than {MAX_IMAGE_BYTES >> 20} MiB"
    if group.data is None:
        return "no_image", f"no member with one of {', '.join(sorted(IMAGE_EXTENSIONS))}"
    return None


def _lost(index: int, broken: _Broken) -> Unreadable:
    return Unreadable(
        index=index,
        key=broken.key[:MAX_NAME_CHARS],
        member=None if broken.member is None else broken.member[:MAX_NAME_CHARS],
        error_type=broken.error_type,
        message=f"the archive cannot be read from here on: {broken.message}",
    )
