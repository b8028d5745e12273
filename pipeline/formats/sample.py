"""What a reader yields: samples, and those that cannot be read."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TypeVar

from kosmos2_core.annotation import Issue
from pipeline.formats.limits import MAX_NAME_CHARS, MAX_SHARD_METADATA_CHARS


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One image, still encoded, and the way back to it.

    `index` is the sample's position in its shard. `uri` names the object that holds it, where
    that is not the shard's own; `member` the file inside an archive. `image_offset` is where its
    bytes begin in that object, None where they are not stored there as they are (a compressed
    archive, Parquet).
    """

    index: int
    key: str
    member: str | None
    image_offset: int | None
    data: bytes
    metadata: str | None
    issues: tuple[str, ...] = ()
    uri: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreadable:
    """A sample that takes an index but has no image to decode."""

    index: int
    key: str
    member: str | None
    error_type: str
    message: str
    uri: str | None = None
    is_retriable: bool = False


@dataclass(frozen=True, slots=True)
class Skipped:
    """A sample that nobody asked for, at that index."""

    index: int


class BrokenArchive(Exception):
    """The file's format ends here; everything before it was read.

    `lost` stands for whatever the rest would have held.
    """

    def __init__(self, message: str, lost: Unreadable) -> None:
        super().__init__(message)
        self.lost = lost


def unreadable(
    index: int, key: str, member: str | None, error_type: str, message: str
) -> Unreadable:
    """Cut names that are too long."""
    return Unreadable(
        index=index,
        key=key[:MAX_NAME_CHARS],
        member=member and member[:MAX_NAME_CHARS],
        error_type=error_type,
        message=message,
    )


_Found = TypeVar("_Found", bound=Sample | Unreadable | Skipped)


def with_limited_metadata(found: Iterable[_Found]) -> Iterator[_Found]:
    """The samples of a shard, the last ones without metadata where all would be too much."""
    chars = 0
    for each in found:
        chars += len(each.metadata or "") if isinstance(each, Sample) else 0
        yield _without_metadata(each) if chars > MAX_SHARD_METADATA_CHARS else each


def _without_metadata(found: _Found) -> _Found:
    if not isinstance(found, Sample) or found.metadata is None:
        return found
    issues = {*found.issues, Issue.METADATA_TOO_LARGE}
    return replace(found, metadata=None, issues=tuple(sorted(issues)))
