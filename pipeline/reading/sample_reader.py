"""A reader of samples from shards of any kind."""

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO, Self

from pipeline.dataset.listings import Listings
from pipeline.dataset.shards import Shard
from pipeline.formats.listed import read_listed
from pipeline.formats.sample import Sample, Skipped, Unreadable
from pipeline.formats.table.arrow import read_batches
from pipeline.formats.table.parquet import read_rows
from pipeline.formats.tar.webdataset import read_samples
from pipeline.spec.identity import Identity
from pipeline.spec.job import JobSpec
from pipeline.spec.kinds import LISTED_KINDS
from pipeline.storage import InputStore


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleReader:
    """Reads the samples of shards.

    `listings` are needed only for shards of single-image objects.
    """

    store: InputStore
    image_column: str | None = None
    image_member: str | None = None
    listings: Listings | None = None

    @classmethod
    def of_job(
        cls, store: InputStore, job: Identity | JobSpec, listings: Listings | None = None
    ) -> Self:
        """Make a reader for the input of a job, or for the images of a dataset's rows."""
        return cls(
            store=store,
            image_column=job.image_column,
            image_member=job.image_member,
            listings=listings,
        )

    def read(
        self, shard: Shard, start: int = 0
    ) -> Generator[Sample | Unreadable | Skipped, None, None]:
        """Yield the samples in order, each with its index; some before `start` may be left out.

        Raises BrokenArchive, after all that could be read, if the rest is damaged; and
        PipelineError: InputChanged, InputUnreadable, StorageError.
        """
        if shard.kind in LISTED_KINDS:
            yield from self._listed(shard)
        elif shard.kind == "parquet":
            yield from read_rows(
                self.store.ranged(shard.source),
                shard.uri,
                first=shard.first,
                count=shard.count,
                image_column=self.image_column,
                confirm=partial(self.store.verify, shard.source),
                start=start,
            )
        else:
            with self.store.open(shard.source) as file:
                yield from self.read_through(file, shard)

    def read_through(self, file: BinaryIO, shard: Shard) -> Iterator[Sample | Unreadable]:
        """Read a kind of input that is read from its first byte to its last."""
        if shard.kind == "arrow":
            return read_batches(file, shard.uri, shard.size_bytes, self.image_column)
        return read_samples(file, self.image_member)

    def _listed(self, shard: Shard) -> Iterator[Sample | Unreadable | Skipped]:
        assert self.listings is not None, "a reader of listed images needs their lists"
        yield from read_listed(self.listings.rows(shard), self.store, shard.uri, shard.only)
