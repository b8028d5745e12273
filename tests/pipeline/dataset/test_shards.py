"""Shards and the plan."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from threading import Barrier

import pyarrow as pa
import pytest

from pipeline.dataset import shards
from pipeline.dataset.shards import (
    Shard,
    ShardPlan,
    extend_plan,
    freeze_plan,
    load_plan,
    shard_id,
    shard_of,
)
from pipeline.errors import SpecError
from pipeline.parquet import parquet_bytes
from pipeline.schema import PLAN_OF_TARS
from pipeline.storage import InputStore, ObjectInfo, OutputStore, open_output

URI = "s3://in/{}.tar"


def objects(names: str, etag: str = "etag") -> list[ObjectInfo]:
    return [ObjectInfo(uri=URI.format(name), size_bytes=10, etag=etag) for name in names]


def planned(names: str) -> list[Shard]:
    return list(map(shard_of, objects(names)))


def names(plan: ShardPlan | None) -> str:
    assert plan is not None
    return "".join(shard.uri[-5] for shard in plan.shards)


@pytest.fixture
def store(tmp_path: Path) -> OutputStore:
    return open_output(str(tmp_path / "out"))


# ---- ids


# The hashes are those of `printf %s URI | sha256sum`.
@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("s3://bucket/a/part-0001.tar", "part-0001-57395dcd8a20"),
        ("s3://bucket/b/part-0001.tar", "part-0001-dfd6d6bb98fb"),
        ("s3://bucket/a/part-0001.tar.gz", "part-0001-b51d7b00d70d"),
        ("file:///data/My Photos (2).tar", "My_Photos_2-78f692c5203a"),
        ("file:///data/日本.tar", "shard-f5313b8feef6"),
        ("file:///data/é1.tar", "1-48e2173505de"),
        ("file:///data/__x.tar", "x-c7cedead8b60"),
        ("file:///data/" + "x" * 200 + ".tar", "x" * 60 + "-0e34a6ef3d55"),
    ],
)
def test_a_shard_id_is_readable_and_stable(uri: str, expected: str) -> None:
    assert shard_id(uri) == expected


def test_a_name_that_is_not_utf8_is_refused_by_name(tmp_path: Path) -> None:
    """A folder passes over such names; this one was named."""
    path = tmp_path / b"caf\xe9.tar".decode("utf-8", "surrogateescape")
    path.touch()
    [source] = InputStore().list(str(path)).objects
    with pytest.raises(
        SpecError,
        match=r"caf\\udce9\.tar cannot be planned: its name is not valid UTF-8; rename it",
    ):
        shard_of(source)


def test_a_shard_names_the_object_as_it_was_planned() -> None:
    [info] = objects("a")
    assert shard_of(info).source == info


# ---- the plan


def test_a_plan_reads_back_as_it_was_frozen(store: OutputStore) -> None:
    assert load_plan(store) is None
    plan = freeze_plan(store, planned("ab"))
    assert names(plan) == "ab"
    assert plan.generations == 1
    assert load_plan(store) == plan


def test_a_plan_from_before_other_inputs_is_one_of_tars(store: OutputStore) -> None:
    rows = [{"shard_id": s.shard_id, **asdict(s.source)} for s in planned("ab")]
    table = pa.Table.from_pylist(rows, schema=PLAN_OF_TARS)
    store.create("plan/00000.parquet", parquet_bytes(table))
    plan = load_plan(store)
    assert plan is not None
    assert plan.shards == tuple(planned("ab"))
    assert names(extend_plan(store, plan, planned("bc"))) == "abc"


def test_a_second_freeze_takes_the_plan_of_the_first(store: OutputStore) -> None:
    first = freeze_plan(store, planned("ab"))
    assert freeze_plan(store, planned("abc")) == first


def test_extending_adds_a_generation_of_what_is_new(store: OutputStore) -> None:
    plan = freeze_plan(store, planned("ab"))
    extended = extend_plan(store, plan, planned("ca"))
    assert (names(extended), extended.generations) == ("abc", 2)
    assert load_plan(store) == extended
    assert extended.shards[:2] == plan.shards
    assert store.list("plan/") == ["plan/00000.parquet", "plan/00001.parquet"]


def test_extending_by_nothing_writes_nothing(store: OutputStore) -> None:
    plan = freeze_plan(store, planned("ab"))
    assert extend_plan(store, plan, planned("a")) == plan
    assert store.list("plan/") == ["plan/00000.parquet"]


def race(racers: list[Callable[[], ShardPlan]]) -> list[ShardPlan]:
    start = Barrier(len(racers))
    with ThreadPoolExecutor(len(racers)) as pool:
        return list(pool.map(lambda racer: (start.wait(), racer())[1], racers))


@pytest.mark.parametrize("place", ["local", "s3"])
def test_all_who_freeze_at_once_get_one_plan(
    tmp_path: Path, request: pytest.FixtureRequest, place: str
) -> None:
    where = str(tmp_path) if place == "local" else f"s3://{request.getfixturevalue('s3_bucket')}/o"
    store = open_output(where)
    plans = race([lambda n=n: freeze_plan(store, planned("abcdefgh"[: n + 1])) for n in range(8)])
    assert set(plans) == {load_plan(store)}


def test_all_who_extend_at_once_get_one_plan(store: OutputStore) -> None:
    plan = freeze_plan(store, planned("a"))
    plans = race([lambda n=n: extend_plan(store, plan, planned(n)) for n in "bcde"])
    assert set(plans) == {load_plan(store)}
    assert {p.generations for p in plans} == {2}


def test_two_inputs_with_one_id_are_refused(
    store: OutputStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = freeze_plan(store, planned("a"))
    monkeypatch.setattr(shards, "shard_id", lambda uri: plan.shards[0].shard_id)
    with pytest.raises(SpecError, match=r"s3://in/a.tar and s3://in/b.tar have the same shard id"):
        extend_plan(store, plan, planned("b"))
    assert load_plan(store) == plan
