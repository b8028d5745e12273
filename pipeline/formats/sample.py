"""What a reader makes of an input file."""

from dataclasses import dataclass


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
