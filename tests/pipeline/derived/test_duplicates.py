"""Copies of images: which are found, which one stays, and what is said of the others."""

import io
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from kosmos2_core.images.decode import ExifPolicy
from kosmos2_core.shapes.world.shards import encode_jpeg, make_scene
from pipeline.dataset.commit import read_commit
from pipeline.dataset.dataset import StoredDataset
from pipeline.dataset.layout import annotations_key
from pipeline.derived import looks
from pipeline.derived.duplicates import Duplicates, masks
from pipeline.derived.perceptual import looks_of
from pipeline.errors import InputChanged
from pipeline.verification.outputs import verify_dataset
from tests.support.commits import write_dataset
from tests.support.deduplication import deduplicated, kept
from tests.support.tars import an_annotation

# ---- bits


def bits_apart(a: int, b: int) -> int:
    return (a ^ b).bit_count()


@pytest.mark.parametrize("count", [100, 1_000_000, 10**9])
@pytest.mark.parametrize("near", range(11))
def test_what_is_near_agrees_under_a_mask(near: int, count: int) -> None:
    draw = np.random.default_rng(near)
    found = masks(near=near, count=count)
    for _ in range(200):
        flips = sum(1 << int(bit) for bit in draw.choice(64, near, replace=False))
        assert any(not flips & mask for mask in found)


def in_python(looks: list[int], near: int) -> dict[int, int]:
    """Each image, the best first, against all that stay."""
    kept: list[int] = []
    copies = {}
    for i, one in enumerate(looks):
        twin = next((k for k in kept if bits_apart(one, looks[k]) <= near), None)
        if twin is None:
            kept.append(i)
        else:
            copies[i] = twin
    return copies


@pytest.mark.parametrize("near", [0, 2, 5, 9])
def test_copies_are_those_of_a_comparison_of_all_pairs(near: int, tmp_path: Path) -> None:
    draw = np.random.default_rng(near)
    looks = [int(x) for x in draw.integers(0, 2**64, 150, np.uint64)]
    for _ in range(250):
        flips = sum(1 << int(bit) for bit in draw.choice(64, int(draw.integers(12)), replace=False))
        looks.append(looks[int(draw.integers(len(looks)))] ^ flips)
    found = Duplicates(tmp_path / "x.duckdb", keep="first")
    half = len(looks) // 2
    parts = [looks[:half], looks[half:]]
    for shard, part in enumerate(parts):
        digests = [i.to_bytes(16, "big") + bytes([shard]) * 16 for i in range(len(part))]
        found.add_images(shard, pictures_table(digests))
    found.rank()
    for shard, part in enumerate(parts):
        found.add_looks(shard, dict(enumerate(part)))
    found.compare(near=near)
    twins = {
        shard * half + index: (twin.place.shard * half + twin.place.index, twin.distance)
        for shard in (0, 1)
        for index, twin in found.of_shard(shard).items()
    }
    expected = in_python(looks, near)
    assert twins.keys() == expected.keys()
    assert len(expected) > 10
    for copy, (twin, distance) in twins.items():
        assert twin not in expected  # it stays
        assert distance == bits_apart(looks[copy], looks[twin]) <= near
    found.close()


@pytest.mark.parametrize("near", [0, 2, 5, 9])
def test_what_was_kept_before_stays_and_the_others_are_compared_with_it(
    near: int, tmp_path: Path
) -> None:
    draw = np.random.default_rng(near)
    looks = [int(x) for x in draw.integers(0, 2**64, 60, np.uint64)]
    for _ in range(240):
        flips = sum(1 << int(bit) for bit in draw.choice(64, int(draw.integers(12)), replace=False))
        looks.append(looks[int(draw.integers(len(looks)))] ^ flips)
    earlier, later = looks[:150], looks[150:]
    gone = in_python(earlier, near)
    kept = [i for i in range(len(earlier)) if i not in gone]
    found = Duplicates(tmp_path / "x.duckdb", keep="largest")
    digests = [i.to_bytes(32, "big") for i in range(len(looks))]
    # All new images have more pixels than those that are kept.
    found.add_images(1, pictures_table(digests[150:], [20] * len(later)))
    rows = pictures_table(digests[:150]).take(pa.array(kept))
    found.add_images(0, rows, is_kept=True)
    found.rank()
    assert found.different(0) == kept
    found.add_looks(0, {i: earlier[i] for i in kept})
    found.add_looks(1, dict(enumerate(later)))
    found.compare(near=near)
    assert not found.of_shard(0)
    in_order = [earlier[i] for i in kept] + later
    expected = {i - len(kept): twin for i, twin in in_python(in_order, near).items()}
    assert min(expected) >= 0
    twins = found.of_shard(1)
    assert twins.keys() == expected.keys()
    assert {t.place.shard for t in twins.values()} == {0, 1}
    for index, twin in twins.items():
        at = twin.place.index
        assert at in kept if twin.place.shard == 0 else at not in expected
        that = earlier[at] if twin.place.shard == 0 else later[at]
        assert twin.distance == bits_apart(later[index], that) <= near
    found.close()


def pictures_table(digests: list[bytes], sides: list[int] | None = None) -> pa.Table:
    side = pa.array(sides or [10] * len(digests), pa.int32())
    return pa.table(
        {
            "index": pa.array(range(len(digests)), pa.int32()),
            "image_sha256": pa.array(digests, pa.binary(32)),
            "width": side,
            "height": side,
        }
    )


def test_a_copy_of_a_copy_names_the_one_that_stays(tmp_path: Path) -> None:
    """0 and 1 have the same bytes; 1 looks like 2, which is larger; 3 like 2 and not like 0."""
    a, b, c = b"a" * 32, b"b" * 32, b"c" * 32
    found = Duplicates(tmp_path / "x.duckdb", keep="largest")
    found.add_images(0, pictures_table([a, a, b, c], [10, 10, 20, 15]))
    found.rank()
    assert found.different(0) == [0, 2, 3]
    found.add_looks(0, {0: 0b0011, 2: 0b0000, 3: 0b1100})
    found.compare(near=2)
    twins = found.of_shard(0)
    assert {i: (t.place.index, t.distance) for i, t in twins.items()} == {
        0: (2, 2),
        1: (2, 2),
        3: (2, 2),
    }
    found.close()


# ---- looks


def photo(seed: int, **scene: Any) -> bytes:
    return encode_jpeg(make_scene(5, seed, objects=(2, 4), width=320, height=240, **scene), 92)


def again(data: bytes, *, size: tuple[int, int] | None = None, turn: int = 1) -> bytes:
    """Scaled, compressed anew, or stored sideways with a tag that says so."""
    image, buffer, exif = Image.open(io.BytesIO(data)), io.BytesIO(), Image.Exif()
    image = image.resize(size) if size else image
    if turn == 6:
        image = image.transpose(Image.Transpose.ROTATE_90)
    exif[0x0112] = turn
    image.save(buffer, "JPEG", quality=60, exif=exif)
    return buffer.getvalue()


def test_looks_survive_scaling_compression_and_turning() -> None:
    looks = [looks_of(photo(seed), "apply") for seed in range(40)]
    for changes in ({"size": (160, 120)}, {"turn": 6}, {}):
        found = [looks_of(again(photo(seed), **changes), "apply") for seed in range(40)]
        near = [bits_apart(a, b) <= 4 for a, b in zip(looks, found, strict=True)]
        assert sum(near) >= 39, changes
    assert sum(bits_apart(a, b) <= 4 for a, b in combinations(looks, 2)) <= 1


# ---- datasets


ONE, TWO, THREE = photo(1), photo(2), photo(3)
SMALL_ONE, SIDEWAYS_TWO = again(ONE, size=(200, 150)), again(TWO, turn=6)


@pytest.fixture
def job(tmp_path: Path) -> StoredDataset:
    """`b` is compressed, so that its images are read front to back."""
    two_tasks = [an_annotation(), an_annotation("detailed")]
    return write_dataset(
        tmp_path,
        {
            "a.tar": (
                [("0.jpg", SMALL_ONE), ("1.jpg", TWO), ("2.jpg", b"broken"), ("3.jpg", TWO)],
                [two_tasks] * 4,
            ),
            "b.tar.gz": (
                [("0.jpg", ONE), ("1.jpg", SIDEWAYS_TWO), ("2.jpg", THREE)],
                [two_tasks] * 3,
            ),
        },
        tasks=("brief", "detailed"),
    )


@pytest.mark.parametrize(
    ("options", "left", "dropped"),
    [
        (
            {},
            [("a", 0), ("a", 1), ("b", 0), ("b", 1), ("b", 2)],
            {"annotation: duplicate": 2},
        ),
        (
            {"near": 4},
            [("a", 1), ("b", 0), ("b", 2)],
            {"annotation: duplicate": 2, "annotation: near_duplicate": 4},
        ),
        (
            {"near": 4, "keep": "first"},
            [("a", 0), ("a", 1), ("b", 2)],
            {"annotation: duplicate": 2, "annotation: near_duplicate": 4},
        ),
    ],
)
def test_one_of_each_image_stays(
    options: dict[str, Any],
    left: list[tuple[str, int]],
    dropped: dict[str, int],
    job: StoredDataset,
    tmp_path: Path,
) -> None:
    derived, unique = deduplicated(job, tmp_path / "unique", **options)
    assert kept(unique) == left
    assert derived.account.dropped == dropped
    assert derived.account.before.annotations == 12
    assert derived.account.after.annotations == 2 * len(left)
    assert not verify_dataset(unique.store, unique.record).findings


def test_a_copy_names_the_image_that_stays(job: StoredDataset, tmp_path: Path) -> None:
    _, unique = deduplicated(job, tmp_path / "unique", near=4)
    a, b = (shard.shard_id for shard in job.plan.shards)
    rejected = read_commit(unique.store, a).rows.rejected.to_pylist()
    said = {row["index"]: row["message"] for row in rejected if row["stage"] == "dedup"}
    assert said.keys() == {0, 3}
    assert said[3] == f"the same bytes as {a} #1"
    assert said[0].startswith(f"looks like {b} #0: ")
    kinds = {row["index"]: row["error_type"] for row in rejected}
    assert (kinds[0], kinds[3]) == ("near_duplicate", "duplicate")


def test_it_goes_on_where_it_was_cut_off(
    job: StoredDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    derived, whole = deduplicated(job, tmp_path / "whole", near=4)
    _, unique = deduplicated(job, tmp_path / "unique", near=4)
    key = annotations_key(job.plan.shards[1].shard_id)
    unique.store.delete(key)
    resumed, _ = deduplicated(job, tmp_path / "unique", near=4)
    assert (resumed.account, resumed.shards_new) == (derived.account, 1)
    assert unique.store.get(key).data == whole.store.get(key).data

    def fails(data: bytes, exif: ExifPolicy) -> int:
        raise AssertionError("nothing is left to do")

    monkeypatch.setattr(looks, "looks_of", fails)
    again, _ = deduplicated(job, tmp_path / "unique", near=4)
    assert (again.account, again.shards_new) == (derived.account, 0)


def test_an_image_that_is_not_what_it_was_ends_it(job: StoredDataset, tmp_path: Path) -> None:
    (tmp_path / "in" / "a.tar").write_bytes(b"other")
    deduplicated(job, tmp_path / "exact")  # needs no image
    with pytest.raises(InputChanged):
        deduplicated(job, tmp_path / "unique", near=4)
