"""What there is to annotate, from a listing and a look at the beginning of a few shards."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

from pipeline.errors import SpecError
from pipeline.estimates import Estimate, ratio
from pipeline.readers.sample import BrokenArchive, Sample
from pipeline.readers.webdataset import read_samples
from pipeline.shards import Shard, shard_of
from pipeline.spec import JobSpec
from pipeline.storage import InputStore
from pipeline.storage.inputs import BLOCK_BYTES

SHARDS_LOOKED_AT = 8
_NAMES_PER_LIST = 1000  # S3's page


@dataclass(frozen=True, slots=True, kw_only=True)
class Requests:
    """To the stores, in one run that nothing disturbs, leases aside."""

    lists: int
    gets: int
    puts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """`shards_by_format` goes by names, `images_by_format` by those that were looked at."""

    shards: tuple[Shard, ...]
    size_bytes: int
    shards_by_format: dict[str, int]
    images: Estimate
    images_looked_at: int
    images_by_format: dict[str, int]
    requests: Requests


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    """At the first block of a shard: so many samples in so many bytes."""

    samples: int
    size_bytes: int
    formats: Counter[str]


def survey(spec: JobSpec) -> Survey:
    """Raises InputMissing, StorageError."""
    store = InputStore(spec.input_storage)
    store.reach(spec.input)
    objects = store.list(spec.input, spec.include, spec.exclude)
    shards = tuple(s for s in map(shard_of, objects) if spec.part.holds(s.shard_id))[: spec.limit]
    looks = [_look(store, shard) for shard in spread(shards, SHARDS_LOOKED_AT)]
    size_bytes = sum(shard.size_bytes for shard in shards)
    is_all = len(looks) == len(shards) and sum(look.size_bytes for look in looks) >= size_bytes
    return Survey(
        shards=shards,
        size_bytes=size_bytes,
        shards_by_format=dict(Counter(map(_format, shards)).most_common()),
        images=_images(looks, size_bytes, is_all=is_all),
        images_looked_at=sum(look.samples for look in looks),
        images_by_format=dict(sum((look.formats for look in looks), Counter()).most_common()),
        requests=_requests(shards, listed=len(objects)),
    )


def spread(shards: Sequence[Shard], most: int) -> list[Shard]:
    """At most so many, from the first to the last."""
    if len(shards) <= most:
        return list(shards)
    return [shards[round(i * (len(shards) - 1) / (most - 1))] for i in range(most)]


def _images(looks: Sequence[_Look], size_bytes: int, *, is_all: bool) -> Estimate:
    samples = sum(look.samples for look in looks)
    if is_all:
        return Estimate(value=samples, low=samples, high=samples)
    if not samples:
        raise SpecError("the shards that were looked at hold no images: is this the right input?")
    return ratio([(look.samples, look.size_bytes) for look in looks]).times(size_bytes)


def _look(store: InputStore, shard: Shard) -> _Look:
    formats: Counter[str] = Counter()
    with store.open(shard.source) as file:
        try:
            for samples, found in zip(count(1), read_samples(file), strict=False):
                formats[_picture(found) if isinstance(found, Sample) else "unreadable"] += 1
                if file.tell() >= BLOCK_BYTES:
                    return _Look(samples=samples, size_bytes=file.tell(), formats=formats)
        except BrokenArchive:
            formats["unreadable"] += 1
    return _Look(samples=formats.total(), size_bytes=shard.size_bytes, formats=formats)


def _picture(sample: Sample) -> str:
    extension = (sample.member or "").rpartition(".")[2].lower()
    return {"jpg": "jpeg", "tif": "tiff"}.get(extension, extension)


def _format(shard: Shard) -> str:
    return ".".join(shard.uri.rpartition("/")[2].split(".")[1:]) or "none"


def _requests(shards: Sequence[Shard], *, listed: int) -> Requests:
    blocks = sum(math.ceil(shard.size_bytes / BLOCK_BYTES) for shard in shards)
    pages = math.ceil(listed / _NAMES_PER_LIST)
    # Input and output are listed; a commit is a PUT, and one more where samples were rejected.
    return Requests(lists=4 * pages, gets=blocks, puts=2 * len(shards))
