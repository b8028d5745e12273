"""A survey of the input, from a listing and the beginning of a few shards."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import islice

from pipeline.costs.interval import Estimate, ratio
from pipeline.dataset.listings import HeldListings, Listings
from pipeline.dataset.shards import Shard
from pipeline.errors import InputUnreadable, SpecError
from pipeline.formats.sample import BrokenArchive, Sample, Skipped, Unreadable
from pipeline.plan.cutting import cut
from pipeline.plan.discovery import Found, discover
from pipeline.reading.sample_reader import SampleReader
from pipeline.spacing import evenly_spaced
from pipeline.spec.job import JobSpec
from pipeline.spec.kinds import LISTED_KINDS
from pipeline.storage import InputStore
from pipeline.storage.ignored import Ignored
from pipeline.storage.inputs import BLOCK_BYTES

SHARDS_LOOKED_AT = 8
ENOUGH_COUNTED = 16  # samples read from a shard whose length is known
_NAMES_PER_LIST = 1000  # page size of S3


@dataclass(frozen=True, slots=True, kw_only=True)
class Requests:
    """Number of requests to the stores in one undisturbed run, without those for leases."""

    lists: int
    gets: int
    puts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """A survey of the input.

    `shards_by_format` counts names; `images_by_format` counts the samples that were read.
    """

    shards: tuple[Shard, ...]
    size_bytes: int
    shards_by_format: dict[str, int]
    images: Estimate
    images_looked_at: int
    images_by_format: dict[str, int]
    requests: Requests
    ignored: tuple[Ignored, ...]
    listings: Listings = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    """The first block of a shard: the number of samples in that many bytes."""

    samples: int
    size_bytes: int
    formats: Counter[str]


def survey(spec: JobSpec) -> Survey:
    """Survey the input of a job. Raises InputMissing, InputUnreadable, StorageError."""
    store = InputStore(spec.input_storage)
    store.reach(spec.input)
    found, listings = discover(spec), HeldListings()
    planned = cut(found, spec, listings)
    shards = tuple(s for s in planned.shards if spec.partition.holds(s.shard_id))[: spec.limit]
    samples = SampleReader.of_job(store, spec, listings)
    looks = [_look(samples, shard) for shard in evenly_spaced(shards, SHARDS_LOOKED_AT)]
    size_bytes = sum(shard.own_bytes for shard in shards)
    is_all = len(looks) == len(shards) and sum(look.size_bytes for look in looks) >= size_bytes
    return Survey(
        shards=shards,
        size_bytes=size_bytes,
        shards_by_format=dict(Counter(map(_format, shards)).most_common()),
        images=_counted(shards) or _images(spec.input, looks, size_bytes, is_all=is_all),
        images_looked_at=sum(look.samples for look in looks),
        images_by_format=dict(sum((look.formats for look in looks), Counter()).most_common()),
        requests=_requests(shards, listed=_listed(found)),
        listings=listings,
        ignored=planned.ignored,
    )


def _counted(shards: Sequence[Shard]) -> Estimate | None:
    """Return the number of images if the plan knows it."""
    counts = [shard.count for shard in shards]
    known = [count for count in counts if count is not None]
    if len(known) < len(counts) or not sum(known):
        return None
    return Estimate(value=sum(known), low=sum(known), high=sum(known))


def _images(input_uri: str, looks: Sequence[_Look], size_bytes: int, *, is_all: bool) -> Estimate:
    samples = sum(look.samples for look in looks)
    if is_all:
        return Estimate(value=samples, low=samples, high=samples)
    if not samples:
        raise SpecError(f"{input_uri} holds no image in the shards that were read; check INPUT")
    return ratio([(look.samples, look.size_bytes) for look in looks]).times(size_bytes)


def _look(samples: SampleReader, shard: Shard) -> _Look:
    formats: Counter[str] = Counter()
    with _beginning(samples, shard) as (found, position):
        try:
            for number, each in enumerate(found, start=1):
                formats[_image_format(each) if isinstance(each, Sample) else "unreadable"] += 1
                if (size_bytes := position()) >= BLOCK_BYTES:
                    return _Look(samples=number, size_bytes=size_bytes, formats=formats)
        except (BrokenArchive, InputUnreadable):
            formats["unreadable"] += 1
    return _Look(samples=formats.total(), size_bytes=shard.own_bytes, formats=formats)


@contextmanager
def _beginning(
    samples: SampleReader, shard: Shard
) -> Iterator[tuple[Iterator[Sample | Unreadable | Skipped], Callable[[], int]]]:
    """Yield the first samples and a function that returns the bytes read so far.

    If the plan counts the samples, a few are enough to see their formats.
    """
    if shard.count is None and shard.kind != "parquet":
        with samples.store.open(shard.source) as file:
            yield samples.read_through(file, shard), file.tell
        return
    with closing(samples.read(shard)) as found:
        yield islice(found, ENOUGH_COUNTED), lambda: 0


def _image_format(sample: Sample) -> str:
    _, dot, extension = (sample.member or sample.uri or "").lower().rpartition(".")
    return {"jpg": "jpeg", "tif": "tiff"}.get(extension, extension) if dot else "no name"


def _format(shard: Shard) -> str:
    if shard.kind in LISTED_KINDS:
        return "lists of images"
    return ".".join(shard.uri.rpartition("/")[2].split(".")[1:]) or "none"


def _listed(found: Found) -> int:
    return len(found.objects) + sum(len(each.rows) for each in found.lists)


def _gets(shard: Shard) -> int:
    if shard.kind in LISTED_KINDS:
        return shard.count or 0
    return math.ceil(shard.own_bytes / BLOCK_BYTES)


def _requests(shards: Sequence[Shard], *, listed: int) -> Requests:
    blocks = sum(_gets(shard) for shard in shards)
    pages = math.ceil(listed / _NAMES_PER_LIST)
    # Input and output are listed. A commit is a PUT, and one more if samples were rejected.
    return Requests(lists=4 * pages, gets=blocks, puts=2 * len(shards))
