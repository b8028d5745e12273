"""How much of a sample is taken, whatever the kind of input."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TypeVar

from kosmos2_core.annotation import Issue
from pipeline.formats.sample import Sample, Skipped, Unreadable

T = TypeVar("T", bound=Sample | Unreadable | Skipped)

# Above any photograph; an input that claims more for one is wrong or hostile.
MAX_IMAGE_BYTES = 256 << 20
# Metadata beyond these are left out, which an issue says: the driver holds a shard's until its
# commit.
MAX_METADATA_BYTES = 1 << 20  # of one member, or row
MAX_SHARD_METADATA_CHARS = 256 << 20
MAX_ROW_CHARS = 4 << 20  # of a manifest's row as text
# In a list of images, in place of what is too large.
METADATA_LEFT_OUT = "-"
LEAST_ROW_BYTES = 16  # a table that claims more rows than its file has room for is none
MAX_NAME_CHARS = 4096  # as Linux has it for paths; object stores stop at 1,024 bytes


def with_limited_metadata(found: Iterable[T]) -> Iterator[T]:
    """The samples of a shard, the last ones without metadata where all would be too much."""
    chars = 0
    for each in found:
        chars += len(each.metadata or "") if isinstance(each, Sample) else 0
        yield _without_metadata(each) if chars > MAX_SHARD_METADATA_CHARS else each


def _without_metadata(found: T) -> T:
    if not isinstance(found, Sample) or found.metadata is None:
        return found
    issues = {*found.issues, Issue.METADATA_TOO_LARGE}
    return replace(found, metadata=None, issues=tuple(sorted(issues)))
