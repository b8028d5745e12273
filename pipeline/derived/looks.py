"""The perceptual hashes of a dataset's images, each computed once.

`looks/<shard_id>.parquet` of the derived dataset holds them, so that neither a resumed command nor
a later round reads an image again. A file that is lost, damaged or of another version is computed
again.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa

from kosmos2_core.errors import ImageError
from pipeline.concurrency import in_order
from pipeline.dataset.commit import open_commit
from pipeline.dataset.dataset import StoredDataset
from pipeline.dataset.layout import looks_key
from pipeline.dataset.shards import Shard
from pipeline.derived.perceptual import LOOKS_VERSION, looks_of
from pipeline.errors import CorruptOutput, InputChanged, ObjectMissing
from pipeline.parquet import parquet_bytes, read_parquet
from pipeline.reading.row_images import Fetch, fetches
from pipeline.reading.sample_reader import SampleReader
from pipeline.schema import IMAGE_LOOKS
from pipeline.storage import OutputStore

_IMAGES_AHEAD = 64
_PLACES = ["index", "uri", "image_offset", "image_size", "image_sha256"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Looks:
    """Perceptual hashes of the images of `dataset`, kept in the derived dataset `destination`."""

    dataset: StoredDataset
    destination: OutputStore
    reader: SampleReader
    pool: ThreadPoolExecutor

    def of_shard(self, shard: Shard, wanted: Sequence[int]) -> dict[int, int]:
        """Return the hashes of these images, by index. Raises InputChanged, PipelineError."""
        known = self._stored(shard)
        if missing := [index for index in wanted if index not in known]:
            found = in_order(self.pool, self._calls(shard, missing), ahead=_IMAGES_AHEAD)
            known |= dict(zip(missing, found, strict=True))
            self._store(shard, known)
        return {index: known[index] for index in wanted}

    def _stored(self, shard: Shard) -> dict[int, int]:
        key = looks_key(shard.shard_id)
        try:
            file = read_parquet(key, self.destination.get(key).data, IMAGE_LOOKS)
        except ObjectMissing:
            return {}
        except CorruptOutput as error:
            _log.warning("the images of %s are read again: %s", shard.shard_id, error)
            return {}
        if file.metadata.get("version") != LOOKS_VERSION:
            return {}
        return dict(zip(*file.table.to_pydict().values(), strict=True))

    def _store(self, shard: Shard, known: Mapping[int, int]) -> None:
        indices = sorted(known)
        table = pa.table([indices, [known[index] for index in indices]], schema=IMAGE_LOOKS)
        data = parquet_bytes(table, {"version": LOOKS_VERSION})
        self.destination.put(looks_key(shard.shard_id), data)

    def _calls(self, shard: Shard, wanted: Sequence[int]) -> Iterator[Callable[[], int]]:
        """Yield the calls by ascending index, as `fetches` needs them."""
        with open_commit(self.dataset.store, shard.shard_id) as commit:
            rows = {row["index"]: row for row in commit.parquet.read(_PLACES).to_pylist()}
        asked = [rows[index] for index in wanted]
        exif = self.dataset.record.identity.exif
        for row, fetch in zip(asked, fetches(asked, shard, self.reader), strict=True):
            yield partial(_look, shard, row, fetch, exif)


def _look(shard: Shard, row: Mapping[str, Any], fetch: Fetch, exif: Any) -> int:
    try:
        return looks_of(fetch(), exif)
    except ImageError as error:
        raise InputChanged(
            f"{shard.uri}: sample {row['index']} can no longer be decoded ({error}); restore the "
            "input, or leave out --near"
        ) from error
