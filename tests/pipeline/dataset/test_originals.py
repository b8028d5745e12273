"""The index of annotated images."""

import os
from hashlib import sha256
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.dataset import originals
from pipeline.dataset.originals import OriginalIndex, annotated_images
from pipeline.schema import Original

HASHES = [sha256(bytes([number])).digest() for number in range(6)]


def original(index: int, shard_id: str = "a", output: str = "") -> Original:
    return Original(output=output, shard_id=shard_id, index=index)


def test_images_are_found_by_the_hash_of_their_bytes() -> None:
    index = OriginalIndex()
    assert index.find(HASHES[:1]) == [None]
    index.add("a", {0: HASHES[0], 7: HASHES[1]})
    index.add("b", {3: HASHES[2]}, "s3://other/out")
    assert index.find([HASHES[2], HASHES[5], HASHES[1], HASHES[0]]) == [
        original(3, "b", "s3://other/out"), None, original(7), original(0)
    ]  # fmt: skip


def test_the_first_image_with_a_hash_stays() -> None:
    index = OriginalIndex()
    index.add("a", {0: HASHES[0], 1: HASHES[0]})
    index.add("b", {0: HASHES[0]})
    assert index.find([HASHES[0]]) == [original(0)]


def test_indices_and_hashes_have_their_whole_range() -> None:
    index = OriginalIndex()
    low, high = bytes(32), b"\xff" * 32
    index.add("a", {2**31 - 1: low})
    index.add("b", {2**31 - 1: high})
    assert index.find([high, low]) == [original(2**31 - 1, "b"), original(2**31 - 1)]


def test_its_file_has_no_name_that_a_killed_process_could_leave(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(originals, "_CACHE_KIB", 100)  # the rest is on disk
    before = files_without_a_name()
    index = OriginalIndex()
    index.add("a", {number: sha256(b"%d" % number).digest() for number in range(20_000)})
    assert len(files_without_a_name() - before) == 1
    assert index.find([sha256(b"7").digest()]) == [original(7)]


def files_without_a_name() -> set[str]:
    """Return the names of what this process has open and no folder has."""
    opened = Path("/proc/self/fd")
    return {
        name
        for name in (os.path.realpath(link) for link in opened.iterdir())
        if name.endswith(" (deleted)")
    }


def test_an_image_counts_once_all_its_tasks_are_answered() -> None:
    rows = pa.table(
        {"index": [0, 0, 1, 2, 2], "image_sha256": [HASHES[i] for i in (0, 0, 1, 2, 2)]}
    )
    assert annotated_images(rows, 2) == {0: HASHES[0], 2: HASHES[2]}
    assert annotated_images(rows, 1) == {1: HASHES[1]}
    assert annotated_images(rows.slice(0, 0), 1) == {}
