"""Shard -> samples, whatever kind of input it is a part of."""

from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO, Self, cast

from pipeline.dataset.listings import Listings
from pipeline.dataset.shards import Shard
from pipeline.formats.listed import read_listed
from pipeline.formats.sample import Sample, Skipped, Unreadable
from pipeline.formats.table.arrow import check_readable, read_batches
from pipeline.formats.table.parquet import read_rows
from pipeline.formats.table.rows import PARQUET_EXTENSIONS
from pipeline.formats.tar.webdataset import read_samples
from pipeline.spec.identity import Identity
from pipeline.spec.kinds import LISTED_KINDS
from pipeline.storage import InputStore, ObjectInfo
from pipeline.storage.ranged import RangedFile


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleReader:
    """`listings` are only asked for shards of pictures that are objects of their own."""

    store: InputStore
    image_column: str | None = None
    image_member: str | None = None
    listings: Listings | None = None

    @classmethod
    def of_job(cls, store: InputStore, identity: Identity) -> Self:
        """For whom has the rows of a dataset, and asks for their images."""
        return cls(
            store=store, image_column=identity.image_column, image_member=identity.image_member
        )

    def read(
        self, shard: Shard, start: int = 0
    ) -> Generator[Sample | Unreadable | Skipped, None, None]:
        """In order, each with its index; some before `start` may be left out.

        Raises BrokenArchive, after all that could be read, where the rest cannot be; and
        PipelineError: InputChanged, InputUnreadable, StorageError.
        """
        if shard.kind in LISTED_KINDS:
            yield from self._listed(shard)
        elif shard.kind == "parquet":
            yield from read_rows(
                ranged(self.store, shard.source),
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
        """As `read`, of a kind that is read from its first byte to its last."""
        if shard.kind == "arrow":
            return read_batches(file, shard.uri, shard.size_bytes, self.image_column)
        return read_samples(file, self.image_member)

    def check_arrow(self, source: ObjectInfo) -> None:
        """Look at the beginning of an Arrow file, before anything runs.

        Raises InputUnreadable where it is none, or no column of it holds images, and StorageError.
        """
        with self.store.open(source) as file:
            check_readable(file, source.uri, source.size_bytes, self.image_column)

    def _listed(self, shard: Shard) -> Iterator[Sample | Unreadable | Skipped]:
        assert self.listings is not None, "who reads listed pictures has their lists"
        yield from read_listed(self.listings.rows(shard), self.store, shard.uri, shard.only)


def ranged(store: InputStore, source: ObjectInfo) -> RangedFile:
    """For pyarrow's Parquet reader; each read is guarded by the planned ETag."""

    def fetch(offset: int, size_bytes: int) -> bytes:
        return store.read_range(source.uri, offset, size_bytes, source.etag)

    return RangedFile(fetch, source.size_bytes)


def table_file(store: InputStore, source: ObjectInfo) -> AbstractContextManager[BinaryIO]:
    """A table of names, open to be read: Parquet by its parts, others from front to back."""
    if source.uri.lower().endswith(PARQUET_EXTENSIONS):
        return cast(AbstractContextManager[BinaryIO], ranged(store, source))
    return store.open(source)
