"""Deduplication: keep one of each image, and reject all annotations of its copies.

Each rejection names the image that is kept.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa

from kosmos2_core.errors import ImageError
from pipeline.concurrency import in_order
from pipeline.dataset.commit import Committed, open_commit
from pipeline.dataset.dataset import StoredDataset
from pipeline.dataset.ledger import Ledger
from pipeline.dataset.shards import Shard
from pipeline.derived.account import Account
from pipeline.derived.deriving import Derived, Pruned, derive
from pipeline.derived.duplicates import Duplicates, Twin
from pipeline.derived.options import DedupOptions
from pipeline.derived.perceptual import looks_of
from pipeline.derived.pruning import amount, rejections
from pipeline.errors import InputChanged
from pipeline.progress import ObserveShards
from pipeline.reading.row_images import Fetch, fetches
from pipeline.reading.sample_reader import SampleReader
from pipeline.spec.identity import Derivation
from pipeline.storage import InputStore, OutputStore

_STAGE = "dedup"
SAME, ALIKE = "duplicate", "near_duplicate"
_IMAGES_AHEAD = 64
_THREADS = 8
_HASHES = ["index", "image_sha256", "width", "height"]
_PLACES = ["index", "uri", "image_offset", "image_size", "image_sha256"]


def dedup_dataset(
    dataset: StoredDataset,
    inputs: InputStore,
    destination: OutputStore,
    options: DedupOptions,
    observe: ObserveShards = lambda done, of: None,
) -> Derived:
    """Write a dataset with one of each annotated image of `dataset` to `destination`.

    Raises SpecError if the destination holds something else, InputChanged if an image to compare
    differs from the one that was annotated, PipelineError if storage fails.
    """
    commits = Ledger(dataset.store).summaries()
    derivation = Derivation(
        operation="dedup",
        source_fingerprint=dataset.record.fingerprint,
        parameters=options.parameters,
        source_commits=_digest(commits),
    )
    prepare = partial(_keeping_one, dataset, inputs, options, commits)
    return derive(dataset, destination, options.dest_storage, derivation, commits, prepare, observe)


def _digest(commits: Mapping[str, Committed]) -> str:
    # The choice of the images to keep depends on all commits.
    pairs = sorted((commit.shard_id, commit.commit_id) for commit in commits.values())
    return hashlib.sha256(repr(pairs).encode()).hexdigest()[:16]


@contextmanager
def _keeping_one(
    dataset: StoredDataset,
    inputs: InputStore,
    options: DedupOptions,
    commits: Mapping[str, Committed],
) -> Iterator["_KeepOne"]:
    shards = [
        (i, shard) for i, shard in enumerate(dataset.plan.shards) if shard.shard_id in commits
    ]
    with TemporaryDirectory(prefix="kosmos2-dedup-") as folder:
        found = Duplicates(Path(folder) / "images.duckdb", keep=options.keep)
        with closing(found):
            for ordinal, shard in shards:
                found.add_images(ordinal, _columns(dataset.store, shard, _HASHES))
            found.rank()
            if options.near is not None:
                reader = SampleReader.of_job(inputs, dataset.record.identity)
                _compare(dataset, reader, shards, found, near=options.near)
            yield _KeepOne(found, [shard.shard_id for shard in dataset.plan.shards])


class _KeepOne:
    def __init__(self, duplicates: Duplicates, shard_ids: list[str]) -> None:
        self._duplicates = duplicates
        self._shard_ids = shard_ids
        self._ordinals = {shard_id: ordinal for ordinal, shard_id in enumerate(shard_ids)}

    def __call__(self, shard: Shard, rows: pa.Table) -> Pruned:
        twins = self._duplicates.of_shard(self._ordinals[shard.shard_id])
        indices = rows["index"].to_pylist()
        is_copy = np.array([index in twins for index in indices], np.bool_)
        kept = rows.filter(pa.array(~is_copy))
        of_copies = [twins[index] for index in indices if index in twins]
        kinds = [SAME if twin.distance is None else ALIKE for twin in of_copies]
        return Pruned(
            annotated=kept,
            rejected=rejections(
                rows.filter(pa.array(is_copy)),
                stage=_STAGE,
                error_types=kinds,
                messages=[self._said(twin) for twin in of_copies],
            ),
            account=Account(
                before=amount(rows),
                after=amount(kept),
                dropped=Counter(f"annotation: {kind}" for kind in kinds),
            ),
        )

    def _said(self, twin: Twin) -> str:
        place = f"{self._shard_ids[twin.place.shard]} #{twin.place.index}"
        if twin.distance is None:
            return f"the same bytes as {place}"
        return f"looks like {place}: {twin.distance} of 64 bits differ"


def _columns(store: OutputStore, shard: Shard, names: list[str]) -> pa.Table:
    with open_commit(store, shard.shard_id) as commit:
        return commit.parquet.read(columns=names)


def _compare(
    dataset: StoredDataset,
    reader: SampleReader,
    shards: list[tuple[int, Shard]],
    found: Duplicates,
    *,
    near: int,
) -> None:
    # Images with the same bytes are already known as copies.
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="looks") as pool:
        for ordinal, shard in shards:
            wanted = found.different(ordinal)
            calls = _calls(dataset, reader, shard, wanted)
            looks = in_order(pool, calls, ahead=_IMAGES_AHEAD)
            found.add_looks(ordinal, dict(zip(wanted, looks, strict=True)))
    found.compare(near=near)


def _calls(
    dataset: StoredDataset, reader: SampleReader, shard: Shard, wanted: list[int]
) -> Iterator[Callable[[], int]]:
    """Yield the calls by ascending index, as `fetches` needs them."""
    rows = {row["index"]: row for row in _columns(dataset.store, shard, _PLACES).to_pylist()}
    asked = [rows[index] for index in wanted]
    if asked:
        for row, fetch in zip(asked, fetches(asked, shard, reader), strict=True):
            yield partial(_looks, shard, row, fetch, dataset.record.identity.exif)


def _looks(shard: Shard, row: Mapping[str, Any], fetch: Fetch, exif: Any) -> int:
    try:
        return looks_of(fetch(), exif)
    except ImageError as error:
        raise InputChanged(
            f"{shard.uri}: sample {row['index']} can no longer be decoded ({error}); restore the "
            "input, or leave out --near"
        ) from error
