"""The images that are annotated, found by the hash of their bytes, and their answers."""

import logging
import sqlite3
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from threading import Lock
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from pipeline.dataset.commit import open_commit
from pipeline.dataset.ledger import READERS, Ledger
from pipeline.errors import PipelineError
from pipeline.schema import ANSWER_FIELDS, Original
from pipeline.spec.job import JobSpec
from pipeline.storage import OutputStore, open_output

_ROWS = 32  # bits of a place that hold the image's index in its shard
_TABLES = 16  # shards whose answers are held in memory
_CACHE_KIB = 64 << 10
_AT_A_TIME = 256  # commits that are read

_log = logging.getLogger(__name__)


class Originals(Protocol):
    """The images that are annotated, by the SHA-256 of their bytes."""

    def find(self, hashes: Sequence[bytes]) -> Sequence[Original | None]:
        """Return an annotated image for each hash, None for one that is not known.

        It may have other bytes: only the first 64 bits of the hashes are compared. The row of the
        image has the whole hash.
        """

    def add(self, shard_id: str, images: Mapping[int, bytes]) -> None:
        """Add the images of a shard of the job that is now committed: their hashes by index."""


class OriginalIndex:
    """An index of hashes in an SQLite file, with 64 MiB of it in memory.

    The file is in the folder for temporary files, without a name: it is gone when this process is,
    however that ends. Nothing is lost then: the commits have all that it holds. Beside that part,
    the names of the shards are in memory. Several threads may use it.
    """

    def __init__(self) -> None:
        no_name = ""
        self._database = sqlite3.connect(no_name, isolation_level=None, check_same_thread=False)
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute("PRAGMA synchronous = OFF")
        self._database.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        self._database.execute("CREATE TABLE images (hash INTEGER PRIMARY KEY, place INTEGER)")
        self._shards = list[tuple[str, str]]()
        self._lock = Lock()

    def add(self, shard_id: str, images: Mapping[int, bytes], output: str = "") -> None:
        """Add images (see `Originals`). The first image with a hash stays."""
        with self._lock:
            base = len(self._shards) << _ROWS
            self._shards.append((output, shard_id))
            rows = ((_short(sha256), base + index) for index, sha256 in images.items())
            self._database.execute("BEGIN")
            self._database.executemany("INSERT OR IGNORE INTO images VALUES (?, ?)", rows)
            self._database.execute("COMMIT")

    def find(self, hashes: Sequence[bytes]) -> list[Original | None]:
        """Find images (see `Originals`)."""
        with self._lock:
            return [self._find(_short(sha256)) for sha256 in hashes]

    def _find(self, short: int) -> Original | None:
        found = self._database.execute("SELECT place FROM images WHERE hash = ?", (short,))
        row = found.fetchone()
        if row is None:
            return None
        output, shard_id = self._shards[row[0] >> _ROWS]
        return Original(output=output, shard_id=shard_id, index=row[0] & ((1 << _ROWS) - 1))


def _short(sha256: bytes) -> int:
    return int.from_bytes(sha256[:8], "big", signed=True)


def annotated_images(rows: pa.Table, tasks: int) -> dict[int, bytes]:
    """Return the SHA-256 of images, by index, that have an annotation for each of the tasks.

    `rows` has the columns `index` and `image_sha256`.
    """
    index = rows["index"].to_numpy()
    found, first, counts = np.unique(index, return_index=True, return_counts=True)
    whole = counts == tasks
    hashes = rows["image_sha256"].take(pa.array(first[whole])).to_pylist()
    return dict(zip(found[whole].tolist(), hashes, strict=True))


def images_of_commit(store: OutputStore, shard_id: str, tasks: int) -> dict[int, bytes]:
    """Return `annotated_images` of a committed shard. Raises ObjectMissing, CorruptOutput."""
    with open_commit(store, shard_id) as commit:
        return annotated_images(commit.parquet.read(["index", "image_sha256"]), tasks)


def outputs_of(spec: JobSpec) -> dict[str, OutputStore]:
    """Return the outputs whose answers a job may take, by the names that originals have.

    The job's own output is the first: `verify` can check copies of its images.
    """
    names = ({"": spec.output} if spec.skip_copies else {}) | {uri: uri for uri in spec.reuse}
    return {name: open_output(uri, spec.output_storage) for name, uri in names.items()}


def index_outputs(index: OriginalIndex, outputs: Mapping[str, OutputStore], *, tasks: int) -> int:
    """Add all images of these outputs, and return how many there are.

    Of several images with the same bytes, one of the first output stays. A commit that cannot be
    read is left out: its images are then annotated again.
    """
    total = 0
    with ThreadPoolExecutor(READERS) as pool:
        for name, store in outputs.items():
            shard_ids = sorted(Ledger(store).committed())
            for start in range(0, len(shard_ids), _AT_A_TIME):
                some = shard_ids[start : start + _AT_A_TIME]
                found = pool.map(partial(_readable_images, store, tasks=tasks), some)
                for shard_id, images in zip(some, found, strict=True):
                    index.add(shard_id, images, name)
                    total += len(images)
    return total


def _readable_images(store: OutputStore, shard_id: str, *, tasks: int) -> dict[int, bytes]:
    try:
        return images_of_commit(store, shard_id, tasks)
    except PipelineError as error:
        _log.warning("copies of its images are annotated again: %s", error)
        return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """The answers to an original: a row of `ANSWER_FIELDS` per task, and the image's own fields."""

    width: int
    height: int
    exif_orientation: int
    answers: tuple[Mapping[str, Any], ...]


_COLUMNS = ["index", "image_sha256", "width", "height", "exif_orientation", *ANSWER_FIELDS]


@dataclass(frozen=True)
class StoredAnswers:
    """The answers of committed shards, of which the last few are in memory. For several threads."""

    outputs: Mapping[str, OutputStore]  # by the name that originals have
    _tables: "OrderedDict[tuple[str, str], pa.Table]" = field(default_factory=OrderedDict)
    _lock: Lock = field(default_factory=Lock)

    def of(self, original: Original, sha256: bytes) -> Answered | None:
        """Return the answers, None if its file cannot be read or its image has other bytes."""
        try:
            table = self._table(original)
        except PipelineError:
            return None
        index = table["index"].to_numpy()
        start, end = np.searchsorted(index, [original.index, original.index + 1])
        rows = table.slice(start, end - start).to_pylist()
        if not rows or rows[0]["image_sha256"] != sha256:
            return None
        return Answered(
            **{name: rows[0][name] for name in ("width", "height", "exif_orientation")},
            answers=tuple({name: row[name] for name in ANSWER_FIELDS} for row in rows),
        )

    def _table(self, original: Original) -> pa.Table:
        name = (original.output, original.shard_id)
        with self._lock:
            if name in self._tables:
                self._tables.move_to_end(name)
                return self._tables[name]
        with open_commit(self.outputs[original.output], original.shard_id) as commit:
            table = commit.parquet.read(_COLUMNS).combine_chunks()
        with self._lock:
            self._tables[name] = table
            while len(self._tables) > _TABLES:
                self._tables.popitem(last=False)
        return table
