"""Deduplicated datasets in a directory, and the images that they keep."""

from pathlib import Path
from typing import Any

from pipeline.dataset.commit import read_commit
from pipeline.dataset.dataset import StoredDataset, open_dataset
from pipeline.derived.deduplicating import dedup_dataset
from pipeline.derived.deriving import Derived
from pipeline.derived.options import DedupOptions
from pipeline.storage import InputStore, StorageOptions, open_output


def deduplicated(job: StoredDataset, folder: Path, **options: Any) -> tuple[Derived, StoredDataset]:
    place = open_output(str(folder))
    derived = dedup_dataset(job, InputStore(), place, DedupOptions(**options))
    return derived, open_dataset(str(folder), StorageOptions())


def kept(job: StoredDataset) -> list[tuple[str, int]]:
    """Return the stem of the shard and the index of each."""
    found = []
    for shard in job.plan.shards:
        rows = read_commit(job.store, shard.shard_id).rows.annotated
        found += [(shard.shard_id[0], index) for index in rows["index"].to_pylist()]
    return list(dict.fromkeys(found))
