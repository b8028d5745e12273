"""What there is to annotate, from a listing and a look at the beginning of a few shards."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import islice

from pipeline.dataset.listings import HeldListings, Listings
from pipeline.dataset.shards import Shard
from pipeline.errors import InputUnreadable, SpecError
from pipeline.estimate.interval import Estimate, ratio
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
ENOUGH_COUNTED = 16  # samples of a shard whose number is known
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
    ignored: tuple[Ignored, ...]
    listings: Listings = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    """At the first block of a shard: so many samples in so many bytes."""

    samples: int
    size_bytes: int
    formats: Counter[str]


def survey(spec: JobSpec) -> Survey:
    """Raises InputMissing, InputUnreadable, StorageError."""
    store = InputStore(spec.input_storage)
    store.reach(spec.input)
    found, listings = discover(spec), HeldListings()
    planned = cut(found, spec, listings)
    shards = tuple(s for s in planned.shards if spec.partition.holds(s.shard_id))[: spec.limit]
    samples = SampleReader(
        store=store,
        image_column=spec.image_column,
        image_member=spec.image_member,
        listings=listings,
    )
    looks = [_look(samples, shard) for shard in evenly_spaced(shards, SHARDS_LOOKED_AT)]
    size_bytes = sum(shard.own_bytes for shard in shards)
    is_all = len(looks) == len(shards) and sum(look.size_bytes for look in looks) >= size_bytes
    return Survey(
        shards=shards,
        size_bytes=size_bytes,
        shards_by_format=dict(Counter(map(_format, shards)).most_common()),
        images=_counted(shards) or _images(looks, size_bytes, is_all=is_all),
        images_looked_at=sum(look.samples for look in looks),
        images_by_format=dict(sum((look.formats for look in looks), Counter()).most_common()),
        requests=_requests(shards, listed=_listed(found)),
        listings=listings,
        ignored=planned.ignored,
    )


def _counted(shards: Sequence[Shard]) -> Estimate | None:
    """Where the plan knows how many there are."""
    counts = [shard.count for shard in shards]
    known = [count for count in counts if count is not None]
    if len(known) < len(counts) or not sum(known):
        return None
    return Estimate(value=sum(known), low=sum(known), high=sum(known))


def _images(looks: Sequence[_Look], size_bytes: int, *, is_all: bool) -> Estimate:
    samples = sum(look.samples for look in looks)
    if is_all:
        return Estimate(value=samples, low=samples, high=samples)
    if not samples:
        raise SpecError("the shards that were looked at hold no images: is this the right input?")
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
    """The first samples, and how many bytes were read for those that were taken.

    Where the plan counts the samples, some are enough to see what they are like.
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
        return "lists of pictures"
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
    # Input and output are listed; a commit is a PUT, and one more where samples were rejected.
    return Requests(lists=4 * pages, gets=blocks, puts=2 * len(shards))
