"""The results of a reader: samples, and samples that cannot be read."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TypeVar

from kosmos2_core.annotation import Issue
from pipeline.formats.limits import MAX_NAME_CHARS, MAX_SHARD_METADATA_CHARS


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """An image, still encoded, and where its bytes are.

    `index` is the sample's position in its shard. `uri` names the object that holds it, if that is
    not the shard's own; `member` names the file inside an archive. `image_offset` is the position
    of its bytes in that object; it is None if they are not stored there unchanged (a compressed
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
    """A sample that has an index but no image to decode."""

    index: int
    key: str
    member: str | None
    error_type: str
    message: str
    uri: str | None = None
    is_retriable: bool = False


@dataclass(frozen=True, slots=True)
class Skipped:
    """The index of a sample that was not requested."""

    index: int


class BrokenArchive(Exception):
    """Raised at damage in a file, after everything before it was read.

    `lost` represents the samples of the rest.
    """

    def __init__(self, message: str, lost: Unreadable) -> None:
        super().__init__(message)
        self.lost = lost


def unreadable(
    index: int, key: str, member: str | None, error_type: str, message: str
) -> Unreadable:
    """Make an Unreadable, with names cut to their maximum length."""
    return Unreadable(
        index=index,
        key=key[:MAX_NAME_CHARS],
        member=member and member[:MAX_NAME_CHARS],
        error_type=error_type,
        message=message,
    )


_Found = TypeVar("_Found", bound=Sample | Unreadable | Skipped)


def with_limited_metadata(found: Iterable[_Found]) -> Iterator[_Found]:
    """Yield the samples of a shard, without metadata once these exceed the limit."""
    chars = 0
    for each in found:
        chars += len(each.metadata or "") if isinstance(each, Sample) else 0
        yield _without_metadata(each) if chars > MAX_SHARD_METADATA_CHARS else each


def _without_metadata(found: _Found) -> _Found:
    if not isinstance(found, Sample) or found.metadata is None:
        return found
    issues = {*found.issues, Issue.METADATA_TOO_LARGE}
    return replace(found, metadata=None, issues=tuple(sorted(issues)))
