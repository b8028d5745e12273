"""Deduplication of a dataset that grows: what was kept stays, and only what is new is compared."""

import io
import json
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path
from threading import Event
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image

from kosmos2_core.shapes.world.shards import encode_jpeg, make_scene
from pipeline import faults
from pipeline.dataset.commit import read_commit
from pipeline.dataset.dataset import StoredDataset
from pipeline.dataset.layout import (
    RECORD_KEY,
    SUCCESS_KEY,
    annotations_key,
    looks_key,
    round_key,
)
from pipeline.derived import looks
from pipeline.derived.account import Account
from pipeline.derived.deduplicating import _KeepOne
from pipeline.derived.deriving import Derived
from pipeline.derived.perceptual import looks_of
from pipeline.errors import CorruptOutput, SpecError, WrongIdentity
from pipeline.parquet import parquet_bytes, read_parquet
from pipeline.verification.findings import Defect
from pipeline.verification.outputs import verify_dataset
from tests.support.commits import extend_dataset, write_dataset
from tests.support.deduplication import deduplicated as deduplicated_with
from tests.support.deduplication import kept
from tests.support.tars import an_annotation


def photo(seed: int) -> bytes:
    return encode_jpeg(make_scene(5, seed, objects=(2, 4), width=320, height=240), 92)


def smaller(data: bytes) -> bytes:
    buffer = io.BytesIO()
    Image.open(io.BytesIO(data)).resize((200, 150)).save(buffer, "JPEG", quality=70)
    return buffer.getvalue()


ONE, TWO, THREE, FOUR, FIVE = (photo(seed) for seed in range(1, 6))
FIRST = {"a.tar": [smaller(ONE), TWO, TWO], "b.tar": [b"broken", THREE]}
SECOND = {"c.tar.gz": [ONE, TWO, smaller(TWO), FOUR, smaller(FOUR)], "d.tar": [FOUR, b"broken"]}
THIRD = {"e.tar": [smaller(THREE), FIVE, smaller(FOUR)]}


def archives(images: dict[str, list[bytes]]) -> dict[str, Any]:
    return {
        name: (
            [(f"{number}.jpg", data) for number, data in enumerate(of)],
            [[an_annotation(), an_annotation("detailed")]] * len(of),
        )
        for name, of in images.items()
    }


@pytest.fixture
def source(tmp_path: Path) -> StoredDataset:
    return write_dataset(tmp_path, archives(FIRST), tasks=("brief", "detailed"))


@pytest.fixture
def read_images(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The images whose perceptual hash was computed."""
    read: list[bytes] = []

    def counted(data: bytes, exif: Any) -> int:
        read.append(data)
        return looks_of(data, exif)

    monkeypatch.setattr(looks, "looks_of", counted)
    return read


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    yield
    faults.arm("")


def deduplicated(
    source: StoredDataset, folder: Path, **options: Any
) -> tuple[Derived, StoredDataset]:
    return deduplicated_with(source, folder, **{"near": 4, **options})


def said(unique: StoredDataset) -> dict[tuple[str, int], str]:
    """The image that each copy names, and how much it is like it."""
    found = {}
    for shard in unique.plan.shards:
        for row in read_commit(unique.store, shard.shard_id).rows.rejected.to_pylist():
            if row["stage"] == "dedup":
                found[row["shard_id"][0], row["index"]] = row["message"]
    return found


def findings(unique: StoredDataset) -> Any:
    return verify_dataset(unique.store, unique.record).findings


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for part in ("annotations", "rejected", "plan", "rounds", "looks")
        for path in sorted((folder / part).iterdir())
    }


def test_what_was_kept_stays_and_only_new_images_are_read(
    source: StoredDataset, tmp_path: Path, read_images: list[bytes]
) -> None:
    derived, unique = deduplicated(source, tmp_path / "unique")
    first = [("a", 0), ("a", 1), ("b", 1)]
    assert kept(unique) == first
    assert (derived.shards_new, derived.is_complete) == (2, True)
    assert len(read_images) == 3
    read_images.clear()

    source = extend_dataset(source, archives(SECOND))
    derived, unique = deduplicated(source, tmp_path / "unique")
    # Of the same bytes, one is read: not the second TWO, and one of the two FOURs.
    assert sorted(read_images) == sorted([ONE, smaller(TWO), FOUR, smaller(FOUR)])
    assert kept(unique) == [*first, ("c", 3)]
    a, _, c, _ = (shard.shard_id for shard in source.plan.shards)
    found = said(unique)
    assert found.keys() == {("a", 2), *(("c", i) for i in (0, 1, 2, 4)), ("d", 0)}
    assert found["c", 0].startswith(f"looks like {a} #0: ")  # although it has more pixels
    assert found["c", 1] == f"the same bytes as {a} #1"
    assert found["c", 2].startswith(f"looks like {a} #1: ")
    assert found["c", 4].startswith(f"looks like {c} #3: ")
    assert found["d", 0] == f"the same bytes as {c} #3"
    new = derived.account_new
    assert (new.before.annotations, new.after.annotations) == (12, 2)
    assert (derived.account.before.annotations, derived.account.after.annotations) == (20, 8)
    assert (derived.shards_new, derived.totals.shards, derived.is_complete) == (2, 4, True)
    assert not findings(unique)
    assert SUCCESS_KEY in unique.store.list("")

    whole, at_once = deduplicated(source, tmp_path / "at-once")
    assert kept(at_once) == [("a", 1), ("b", 1), ("c", 0), ("c", 3)]
    assert whole.account.after == derived.account.after


def test_kept_images_differ_and_each_copy_names_one_of_them(
    source: StoredDataset, tmp_path: Path
) -> None:
    for more in ({}, SECOND, THIRD):
        source = extend_dataset(source, archives(more))
        _, unique = deduplicated(source, tmp_path / "unique")
    images = {
        (name[0], index): data
        for name, of in {**FIRST, **SECOND, **THIRD}.items()
        for index, data in enumerate(of)
        if data != b"broken"
    }
    staying = kept(unique)
    assert staying == [("a", 0), ("a", 1), ("b", 1), ("c", 3), ("e", 1)]
    hashes = {place: looks_of(data, "apply") for place, data in images.items()}
    for one, other in combinations(staying, 2):
        assert (hashes[one] ^ hashes[other]).bit_count() > 4
    names = {shard.shard_id: shard.shard_id[0] for shard in source.plan.shards}
    copies = said(unique)
    assert copies.keys() == images.keys() - set(staying)
    for place, message in copies.items():
        shard_id, index = message.partition(":")[0].split(" ")[-2:]
        that = names[shard_id], int(index[1:])
        assert that in staying
        if message.startswith("the same bytes"):
            assert images[place] == images[that]
        else:
            assert (hashes[place] ^ hashes[that]).bit_count() <= 4
    assert not findings(unique)


@pytest.mark.parametrize(
    ("options", "left"),
    [
        ({"near": None}, [("a", 0), ("a", 1), ("b", 1), *(("c", i) for i in (0, 2, 3, 4))]),
        ({"keep": "first"}, [("a", 0), ("a", 1), ("b", 1), ("c", 3)]),
    ],
)
def test_other_rules_hold_among_the_new_images(
    options: dict[str, Any], left: list[tuple[str, int]], source: StoredDataset, tmp_path: Path
) -> None:
    deduplicated(source, tmp_path / "unique", **options)
    source = extend_dataset(source, archives(SECOND))
    _, unique = deduplicated(source, tmp_path / "unique", **options)
    assert kept(unique) == left
    assert (unique.store.list("looks/") == []) == (options.get("near", 4) is None)
    assert not findings(unique)


def test_nothing_new_does_nothing(
    source: StoredDataset, tmp_path: Path, read_images: list[bytes]
) -> None:
    derived, _ = deduplicated(source, tmp_path / "unique")
    before = files(tmp_path / "unique")
    read_images.clear()
    again, _ = deduplicated(source, tmp_path / "unique")
    assert (again.shards_new, again.account_new, again.account) == (0, Account(), derived.account)
    assert files(tmp_path / "unique") == before
    assert not read_images


def test_a_dataset_without_a_commit_makes_none(tmp_path: Path) -> None:
    members = archives(FIRST)["a.tar"][0]
    source = write_dataset(tmp_path, {"a.tar": (members, None)})
    derived, unique = deduplicated(source, tmp_path / "unique")
    assert (derived.shards_new, derived.is_complete) == (0, False)
    assert not findings(unique)


class Killed(Exception):
    pass


def in_a_commit(patch: pytest.MonkeyPatch) -> None:
    """Die at the second shard of the round, after the first one."""
    call, is_done = _KeepOne.__call__, Event()

    def dies(self: Any, shard: Any, rows: Any) -> Any:
        if shard.shard_id[0] == "d":
            assert is_done.wait(60)  # shards are made at the same time
            raise Killed
        pruned = call(self, shard, rows)
        is_done.set()
        return pruned

    patch.setattr(_KeepOne, "__call__", dies)


def at(point: str) -> Callable[[pytest.MonkeyPatch], None]:
    return lambda patch: faults.arm(f"{point}=raise:{__name__}.Killed")


@pytest.mark.parametrize(
    "die",
    [
        at("dedup.before_round"),
        at("dedup.before_looks"),
        at("dedup.before_looks:4"),
        in_a_commit,
    ],
)
def test_a_round_that_was_cut_off_is_finished_before_the_next(
    die: Callable[[pytest.MonkeyPatch], None],
    source: StoredDataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    read_images: list[bytes],
) -> None:
    deduplicated(source, tmp_path / "whole")
    deduplicated(source, tmp_path / "cut")
    source = extend_dataset(source, archives(SECOND))
    deduplicated(source, tmp_path / "whole")
    with monkeypatch.context() as patch:
        die(patch)
        with pytest.raises(Killed):
            deduplicated(source, tmp_path / "cut")
    faults.arm("")
    is_settled = (tmp_path / "cut" / round_key(1)).exists()
    read_images.clear()
    if is_settled:  # what comes now is not of that round
        source = extend_dataset(source, archives(THIRD))
        derived, cut = deduplicated(source, tmp_path / "cut")
        whole, _ = deduplicated(source, tmp_path / "whole")
        assert derived.is_complete
        assert len(cut.store.list("rounds/")) == 3
    else:
        derived, cut = deduplicated(source, tmp_path / "cut")
        whole, _ = deduplicated(source, tmp_path / "whole")
    assert (derived.account, derived.totals) == (whole.account, whole.totals)
    assert files(tmp_path / "cut") == files(tmp_path / "whole")
    assert not findings(cut)


def test_hashes_that_were_computed_are_not_computed_again(
    source: StoredDataset, tmp_path: Path, read_images: list[bytes]
) -> None:
    faults.arm(f"dedup.before_looks:2=raise:{__name__}.Killed")
    with pytest.raises(Killed):
        deduplicated(source, tmp_path / "unique")
    assert sorted(read_images) == sorted(FIRST["a.tar"][:2])
    faults.arm("")
    read_images.clear()
    _, unique = deduplicated(source, tmp_path / "unique")
    assert read_images == [THREE]
    assert not findings(unique)


def test_lost_and_foreign_hashes_are_computed_again(
    source: StoredDataset, tmp_path: Path, read_images: list[bytes]
) -> None:
    _, unique = deduplicated(source, tmp_path / "unique")
    source = extend_dataset(source, archives(SECOND))
    deduplicated(source, tmp_path / "whole")  # the same images, in one round
    a, b = (looks_key(shard.shard_id) for shard in source.plan.shards[:2])
    table = read_parquet(a, unique.store.get(a).data).table
    unique.store.put(a, parquet_bytes(table, {"version": "0"}))
    unique.store.put(b, b"damaged")
    read_images.clear()
    _, unique = deduplicated(source, tmp_path / "unique")
    assert kept(unique) == [("a", 0), ("a", 1), ("b", 1), ("c", 3)]
    assert len(read_images) == 3 + 4
    assert pq.read_table(tmp_path / "unique" / a).equals(table)


def test_a_lost_commit_of_an_earlier_round_is_made_again(
    source: StoredDataset, tmp_path: Path, read_images: list[bytes]
) -> None:
    deduplicated(source, tmp_path / "unique")
    source = extend_dataset(source, archives(SECOND))
    _, unique = deduplicated(source, tmp_path / "unique")
    before = files(tmp_path / "unique")
    unique.store.delete(annotations_key(source.plan.shards[0].shard_id))
    read_images.clear()
    derived, _ = deduplicated(source, tmp_path / "unique")
    assert (derived.shards_new, derived.is_complete) == (1, True)
    assert files(tmp_path / "unique") == before
    assert not read_images


# ---- what is refused


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"near": 6}, "--near 6 --keep largest"),
        ({"near": None}, "--keep largest"),
        ({"keep": "first"}, "--near 4 --keep first"),
    ],
)
def test_other_options_than_before_are_refused_by_name(
    options: dict[str, Any], named: str, source: StoredDataset, tmp_path: Path
) -> None:
    deduplicated(source, tmp_path / "unique")
    expected = rf"made by dedup with --near 4 --keep largest, not with {named}; use the same"
    with pytest.raises(WrongIdentity, match=expected):
        deduplicated(source, tmp_path / "unique", **options)


def test_a_source_that_was_annotated_again_is_refused(
    source: StoredDataset, tmp_path: Path
) -> None:
    deduplicated(source, tmp_path / "unique")
    shard_id = source.plan.shards[1].shard_id
    key = annotations_key(shard_id)
    data, etag = source.store.get(key)
    file = read_parquet(key, data)
    changed = {**file.metadata, "commit_id": "0" * 32}
    source.store.replace(key, parquet_bytes(file.table, changed), etag)
    with pytest.raises(SpecError, match=rf"annotated {shard_id} again since .*another DEST"):
        deduplicated(source, tmp_path / "unique")


def test_what_an_earlier_version_made_is_refused(source: StoredDataset, tmp_path: Path) -> None:
    deduplicated(source, tmp_path / "unique")
    path = tmp_path / "unique" / RECORD_KEY
    record = json.loads(path.read_text())
    record["identity"]["derived"][-1]["source_commits"] = "0" * 16
    path.write_text(json.dumps(record))
    with pytest.raises(
        WrongIdentity, match=r"earlier version, which kept no record .*another DEST"
    ):
        deduplicated(source, tmp_path / "unique")


def test_records_of_another_version_are_refused(source: StoredDataset, tmp_path: Path) -> None:
    _, unique = deduplicated(source, tmp_path / "unique")
    key = round_key(0)
    table = read_parquet(key, unique.store.get(key).data).table
    unique.store.put(key, parquet_bytes(table, {"version": "9"}))
    with pytest.raises(SpecError, match="has version 9, not 1; use the version"):
        deduplicated(source, tmp_path / "unique")


# ---- verify


@pytest.mark.parametrize("number", [0, 1])
def test_a_lost_record_is_found_and_nothing_is_added(
    number: int, source: StoredDataset, tmp_path: Path
) -> None:
    deduplicated(source, tmp_path / "unique")
    source = extend_dataset(source, archives(SECOND))
    _, unique = deduplicated(source, tmp_path / "unique")
    unique.store.delete(round_key(number))
    before = files(tmp_path / "unique")
    expected = {0: Defect.ROUND_DAMAGED, 1: Defect.WRONG_PROVENANCE}[number]
    assert {finding.defect for finding in findings(unique)} == {expected}
    with pytest.raises(CorruptOutput, match="restore it from a backup"):
        deduplicated(source, tmp_path / "unique")
    assert files(tmp_path / "unique") == before


def test_a_damaged_record_and_a_foreign_commit_are_found(
    source: StoredDataset, tmp_path: Path
) -> None:
    _, unique = deduplicated(source, tmp_path / "unique")
    key = annotations_key(source.plan.shards[0].shard_id)
    data, etag = unique.store.get(key)
    file = read_parquet(key, data)
    unique.store.replace(
        key, parquet_bytes(file.table, {**file.metadata, "commit_id": "0" * 32}), etag
    )
    assert Defect.WRONG_PROVENANCE in {f.defect for f in findings(unique) if f.name == key}
    unique.store.put(round_key(0), b"damaged")
    assert Defect.ROUND_DAMAGED in {f.defect for f in findings(unique)}
