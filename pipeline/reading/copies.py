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
class Copies:
    """Finds the images that are annotated already, and their answers."""

    originals: Originals
    answers: StoredAnswers

    def looked_up(
        self, found: Iterable[FoundSample | ShardEnd]
    ) -> Iterator[tuple[FoundSample | ShardEnd, Original | None]]:
        """Yield each sample with an annotated image of the same bytes, or None."""
        for group in _groups(found):
            samples = [each for each in group if isinstance(each, Sample)]
            originals = iter(self.originals.find([sha256_of(sample) for sample in samples]))
            for each in group:
                yield each, next(originals) if isinstance(each, Sample) else None

    def row(self, shard: Shard, sample: Sample, original: Original) -> dict[str, Any] | None:
        """Return the row of a copy, for `read_table`; None if the answers cannot be read."""
        sha256 = sha256_of(sample)
        answered = self.answers.of(original, sha256)
        if answered is None:
            return None
        return copy_row(shard, sample, sha256, original, answered)


def _groups(found: Iterable[FoundSample | ShardEnd]) -> Iterator[list[FoundSample | ShardEnd]]:
    group, size_bytes = list[FoundSample | ShardEnd](), 0
    for each in found:
        group.append(each)
        size_bytes += len(each.data) if isinstance(each, Sample) else 0
        if len(group) == _GROUP or size_bytes > _GROUP_BYTES:
            yield group
            group, size_bytes = [], 0
    yield group
