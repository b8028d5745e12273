"""Samples whose images are annotated already: they come with the answers, and are not decoded."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

from pipeline.dataset.originals import Originals, StoredAnswers
from pipeline.dataset.shards import Shard
from pipeline.formats.sample import Sample, Skipped, Unreadable
from pipeline.reading.read_table import copy_row, sha256_of
from pipeline.schema import Original, ShardEnd

FoundSample: TypeAlias = Sample | Unreadable | Skipped

# Samples whose hashes are looked up together, and the limit of their encoded images.
_GROUP = 64
_GROUP_BYTES = 16 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class LookedUp:
    """The hash of a sample's bytes, and an annotated image that seems to have the same."""

    sha256: bytes
    original: Original | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Copies:
    """Finds the images that are annotated already, and their answers."""

    originals: Originals
    answers: StoredAnswers

    def looked_up(
        self, found: Iterable[FoundSample | ShardEnd]
    ) -> Iterator[tuple[FoundSample | ShardEnd, LookedUp | None]]:
        """Yield each sample with what was looked up for it; the others have None."""
        for group in _groups(found):
            hashes = [sha256_of(each) for each in group if isinstance(each, Sample)]
            looked_up = zip(hashes, self.originals.find(hashes), strict=True)
            for each in group:
                if isinstance(each, Sample):
                    sha256, original = next(looked_up)
                    yield each, LookedUp(sha256=sha256, original=original)
                else:
                    yield each, None

    def row(self, shard: Shard, sample: Sample, looked_up: LookedUp) -> dict[str, Any] | None:
        """Return the row of a copy, for `read_table`; None if there is no answer to take."""
        if (original := looked_up.original) is None:
            return None
        answered = self.answers.of(original, looked_up.sha256)
        if answered is None:
            return None
        return copy_row(shard, sample, looked_up.sha256, original, answered)


def _groups(found: Iterable[FoundSample | ShardEnd]) -> Iterator[list[FoundSample | ShardEnd]]:
    group, size_bytes = list[FoundSample | ShardEnd](), 0
    for each in found:
        group.append(each)
        size_bytes += len(each.data) if isinstance(each, Sample) else 0
        if len(group) == _GROUP or size_bytes > _GROUP_BYTES:
            yield group
            group, size_bytes = [], 0
    yield group
