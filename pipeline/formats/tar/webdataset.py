"""WebDataset tar shards, in img2dataset's layout: `<key>.jpg`, `<key>.json`, `<key>.txt`.

A sample is a run of adjacent members with one key, which ends at the first dot of the base name.
Its index is the ordinal of the run. By that rule, `22.05.png` has the extension `05.png`. If no
member of a run has a plain image extension, each such member is a separate sample, and its key ends
at the last dot.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO

from kosmos2_core.annotation import Issue
from kosmos2_core.images.formats import HEAD_BYTES, IMAGE_EXTENSIONS, format_of
from pipeline.formats.limits import (
    MAX_IMAGE_BYTES,
    MAX_METADATA_BYTES,
    MAX_NAME_CHARS,
)
from pipeline.formats.sample import (
    BrokenArchive,
    Sample,
    Unreadable,
    unreadable,
    with_limited_metadata,
)
from pipeline.formats.table.cells import json_value
from pipeline.formats.tar.members import TAR_ERRORS, Member, Tar
from pipeline.schema import metadata_json
from pipeline.storage.globs import hidden_part

_METADATA = ("json", "txt")
_ARCHIVES = ("tar", "zip", "tgz", "tar.gz", "7z", "rar")
# Images held until their sample is known: frames of a video can be thousands.
_MOST_HELD, _MOST_HELD_BYTES = 16, 64 << 20


@dataclass(slots=True, kw_only=True)
class _Part:
    """The members of one stem read so far: one image and its metadata."""

    key: str
    member: str | None = None
    offset: int | None = None
    data: bytes | None = None
    problem: tuple[str, str] | None = None
    fields: dict[str, Any] = field(default_factory=dict)
    issues: set[Issue] = field(default_factory=set)


@dataclass(slots=True, kw_only=True)
class _Group:
    """The members of one key; `parts` by stem. `own` holds what applies to all of them."""

    key: str
    own: _Part
    parts: dict[str, _Part] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)
    extensions: set[str] = field(default_factory=set)
    is_given_out: bool = False  # some of its parts were yielded

    @classmethod
    def of(cls, key: str) -> "_Group":
        return cls(key=key, own=_Part(key=key))

    @property
    def is_whole(self) -> bool:
        """Return whether the group already holds a sample."""
        return self.own.member is not None or any(part.member for part in self.parts.values())

    @property
    def holds_much(self) -> bool:
        held_bytes = sum(len(part.data or b"") for part in self.parts.values())
        return len(self.parts) > _MOST_HELD or held_bytes > _MOST_HELD_BYTES


def read_samples(file: BinaryIO, image_member: str | None = None) -> Iterator[Sample | Unreadable]:
    """Yield the samples of a tar, in order.

    `image_member` is the extension of the member to annotate, such as "left.png"; by default the
    first image of a sample. `file` is seekable and is read once, front to back, to its last byte.

    Raises BrokenArchive, after all that could be read, if the archive is damaged, ends too early,
    continues after its end, or exceeds a limit. Errors of `file` itself pass if they are
    PipelineErrors.
    """
    return with_limited_metadata(_samples(file, image_member))


def _samples(file: BinaryIO, image_member: str | None) -> Iterator[Sample | Unreadable]:
    seen: set[bytes] = set()
    index = 0
    parts = _Grouping(file, image_member).parts()
    while True:
        try:
            part = next(parts, None)
        except BrokenArchive as broken:
            broken.lost = replace(broken.lost, index=index)
            raise
        if part is None:
            return
        # Keys can be long, and there can be very many.
        digest = hashlib.blake2b(part.key.encode(), digest_size=16).digest()
        yield _sample(index, part, is_repeated=digest in seen)
        seen.add(digest)
        index += 1


class _Grouping:
    """Groups members into the parts that become samples."""

    def __init__(self, file: BinaryIO, image_member: str | None) -> None:
        self._tar = Tar(file)
        self._wanted = image_member.lower().lstrip(".") if image_member is not None else None
        self._group: _Group | None = None
        self._reading: Member | None = None

    def parts(self) -> Iterator[_Part]:
        """Yield the parts. Raises BrokenArchive in place of a part that cannot be completed."""
        try:
            for member in self._tar.members():
                yield from self._after(member)
        except TAR_ERRORS as error:
            group, reading = self._group, self._reading
            if group is not None and group.is_whole and reading is None:
                yield from _closed(group)
                group = None
            lost = unreadable(
                0,
                group.key if group else "",
                reading.name if reading else None,
                self._tar.code_of(error),
                f"the archive cannot be read from here on: {error}",
            )
            raise BrokenArchive(str(error), lost) from error
        if self._group is not None:
            yield from _closed(self._group)

    def _after(self, member: Member) -> Iterator[_Part]:
        """Yield the parts that this member completes."""
        key, extension = _split(member.name)
        # A link is reported only if its name is an image's.
        counts = member.problem is None or extension.rpartition(".")[2] in IMAGE_EXTENSIONS
        if key is None or not counts:
            return
        group = self._group
        # A repeated name of an image begins another sample, whose key is then taken.
        if group is None or group.key != key or member.name in group.names:
            self._group = _Group.of(key)
            if group is not None:
                yield from _closed(group)
        assert self._group is not None
        self._take(self._group, member, extension)
        self._reading = None  # it is complete: later errors are not its fault
        if self._group.holds_much:
            yield from _all_but_the_last(self._group)

    def _take(self, group: _Group, member: Member, extension: str) -> None:
        group.extensions.add(extension)
        last = extension.rpartition(".")[2]
        if last in _METADATA and member.problem is None:
            self._reading = member
            part = group.own if last == extension else group.parts.get(_stem(member.name))
            if part is not None:
                _take_metadata(part, last, member)
        elif self._is_image(member, extension, last):
            self._reading = member
            self._take_image(group, member, is_own=last == extension)

    def _is_image(self, member: Member, extension: str, last: str) -> bool:
        if self._wanted is not None:
            return extension == self._wanted
        if last in IMAGE_EXTENSIONS:
            return True
        return member.problem is None and format_of(member.head(HEAD_BYTES)) is not None

    def _take_image(self, group: _Group, member: Member, *, is_own: bool) -> None:
        if group.own.member is not None:
            group.own.issues.add(Issue.MORE_IMAGES)
            return
        if is_own or self._wanted is not None:
            part = group.own
        else:
            part = group.parts.setdefault(_stem(member.name), _Part(key=_stem(member.name)))
        if part.member is not None:  # 0.left.png beside 0.left.jpg
            part.issues.add(Issue.MORE_IMAGES)
            return
        group.names.add(member.name)
        part.member = member.name
        if member.problem is not None:
            part.problem = "linked_member", member.problem
        elif member.size_bytes > MAX_IMAGE_BYTES:
            said = f"the image has more than {MAX_IMAGE_BYTES >> 20} MiB"
            part.problem = "member_too_large", said
        else:
            part.offset, part.data = member.offset, member.content()


def _split(name: str) -> tuple[str | None, str]:
    """Split a name into (key, extension) as WebDataset does, at the first dot of the base name.

    The key is None for bookkeeping files, such as the dot files that macOS adds.
    """
    path = "/".join(each for each in name.split("/") if each not in ("", ".", ".."))
    if hidden_part(path) is not None:
        return None, ""
    folder, slash, base = name.rpartition("/")
    stem, _, extension = base.partition(".")
    return (folder + slash + stem, extension.lower()) if stem else (None, "")


def _stem(name: str) -> str:
    """Return the key of a member by the last dot of its name."""
    return name.rpartition(".")[0]


def _all_but_the_last(group: _Group) -> Iterator[_Part]:
    """Yield all parts but the last, which the next member may belong to."""
    *complete, last = group.parts
    group.is_given_out = True
    for stem in complete:
        part = group.parts.pop(stem)
        part.fields = {**group.own.fields, **part.fields}
        yield part
    assert list(group.parts) == [last]


def _closed(group: _Group) -> Iterator[_Part]:
    """Yield one part if an image has a plain extension or there is no image, else one per image."""
    own, parts = group.own, list(group.parts.values())
    if own.member is not None and not group.is_given_out:
        if parts:
            own.issues.add(Issue.MORE_IMAGES)
        parts = []
    for part in parts:
        part.fields = {**own.fields, **part.fields}
        yield part
    if own.member is not None or not (parts or group.is_given_out):
        if own.member is None:
            own.problem = "no_image", _no_image(group.extensions)
        yield own


def _no_image(extensions: set[str]) -> str:
    some = ", ".join(f".{each:.50}" if each else "no extension" for each in sorted(extensions)[:10])
    is_archive = any(each.endswith(_ARCHIVES) for each in extensions)
    remedy = "; an archive inside an archive is not read, so unpack it" if is_archive else ""
    return f"the sample has no image among its members ({some}){remedy}"


def _take_metadata(part: _Part, extension: str, member: Member) -> None:
    if member.size_bytes > MAX_METADATA_BYTES:
        part.issues.add(Issue.METADATA_TOO_LARGE)
        return
    text = member.content().decode("utf-8", "replace")
    if extension == "txt":
        part.fields["txt"] = text
        return
    try:
        # NaN and Infinity are not JSON; DuckDB and others would fail on them.
        fields = json.loads(text, parse_constant=lambda _: None)
        metadata_json(fields)
        fields = json_value(fields)  # other readers cannot take deeper nesting
    except (ValueError, RecursionError):
        fields = None
    if isinstance(fields, dict):
        part.fields = {**fields, **part.fields}
    else:
        part.issues.add(Issue.METADATA_INVALID)


def _sample(index: int, part: _Part, *, is_repeated: bool) -> Sample | Unreadable:
    problem = _problem(part, is_repeated=is_repeated)
    if problem is not None:
        return unreadable(index, part.key, part.member, *problem)
    assert part.data is not None
    return Sample(
        index=index,
        key=part.key,
        member=part.member,
        image_offset=part.offset,
        data=part.data,
        metadata=metadata_json(part.fields) if part.fields else None,
        issues=tuple(sorted(part.issues)),
    )


def _problem(part: _Part, *, is_repeated: bool) -> tuple[str, str] | None:
    if len(part.key) > MAX_NAME_CHARS:
        return (
            "name_too_long",
            f"its name has more than {MAX_NAME_CHARS} characters; it is shown cut",
        )
    if is_repeated:
        return (
            "duplicate_key",
            "the key occurred earlier in this archive; put the members of a sample together",
        )
    return part.problem
