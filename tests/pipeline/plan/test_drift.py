"""How the inputs of today differ from the plan."""

import pytest

from pipeline.dataset.listings import HeldListings
from pipeline.dataset.shards import ShardPlan, shard_of
from pipeline.plan.discovery import Found
from pipeline.plan.drift import PlanDrift, drift_of
from pipeline.storage import ObjectInfo

URI = "s3://in/{}.tar"


def objects(names: str, etag: str = "etag") -> tuple[ObjectInfo, ...]:
    return tuple(ObjectInfo(uri=URI.format(name), size_bytes=10, etag=etag) for name in names)


@pytest.mark.parametrize(
    ("today", "new", "changed", "vanished"),
    [
        (objects("ab"), "", "", ""),
        (objects("abc"), "c", "", ""),
        (objects("a"), "", "", "b"),
        (objects("a") + objects("b", etag="other"), "", "b", ""),
        (objects("cd"), "cd", "", "ab"),
    ],
)
def test_drift_is_what_is_new_changed_or_gone(
    today: tuple[ObjectInfo, ...], new: str, changed: str, vanished: str
) -> None:
    plan = ShardPlan(shards=tuple(map(shard_of, objects("ab"))), generations=1)
    drift = drift_of(plan, Found(kind="webdataset", objects=today), HeldListings())
    uris = [tuple(URI.format(name) for name in group) for group in (new, changed, vanished)]
    assert drift == PlanDrift(new=uris[0], changed=uris[1], vanished=uris[2])
