"""The index of annotated images."""

from hashlib import sha256
from pathlib import Path

import pyarrow as pa

from pipeline.dataset.originals import OriginalIndex, annotated_images
from pipeline.schema import Original

HASHES = [sha256(bytes([number])).digest() for number in range(6)]


def original(index: int, shard_id: str = "a", output: str = "") -> Original:
    return Original(output=output, shard_id=shard_id, index=index)


def test_images_are_found_by_the_hash_of_their_bytes(tmp_path: Path) -> None:
    index = OriginalIndex(tmp_path / "index.db")
    assert index.find(HASHES[:1]) == [None]
    index.add("a", {0: HASHES[0], 7: HASHES[1]})
    index.add("b", {3: HASHES[2]}, "s3://other/out")
    assert index.find([HASHES[2], HASHES[5], HASHES[1], HASHES[0]]) == [
        original(3, "b", "s3://other/out"), None, original(7), original(0)
    ]  # fmt: skip


def test_the_first_image_with_a_hash_stays(tmp_path: Path) -> None:
    index = OriginalIndex(tmp_path / "index.db")
    index.add("a", {0: HASHES[0], 1: HASHES[0]})
    index.add("b", {0: HASHES[0]})
    assert index.find([HASHES[0]]) == [original(0)]


def test_indices_and_hashes_have_their_whole_range(tmp_path: Path) -> None:
    index = OriginalIndex(tmp_path / "index.db")
    low, high = bytes(32), b"\xff" * 32
    index.add("a", {2**31 - 1: low})
    index.add("b", {2**31 - 1: high})
    assert index.find([high, low]) == [original(2**31 - 1, "b"), original(2**31 - 1)]


def test_an_image_counts_once_all_its_tasks_are_answered() -> None:
    rows = pa.table(
        {"index": [0, 0, 1, 2, 2], "image_sha256": [HASHES[i] for i in (0, 0, 1, 2, 2)]}
    )
    assert annotated_images(rows, 2) == {0: HASHES[0], 2: HASHES[2]}
    assert annotated_images(rows, 1) == {1: HASHES[1]}
    assert annotated_images(rows.slice(0, 0), 1) == {}
