"""A pass over tables of Ray's, without Ray."""

import gc
import weakref
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import ray
from ray.data._internal import stats
from ray.data._internal.execution.operators import actor_pool_map_operator
from ray.data._internal.utils import cached_ray_internals

from pipeline.execution import graph
from pipeline.execution.graph import RayPass
from pipeline.execution.ray_private import ClusterNote, spare_local_actors
from pipeline.execution.stored_tables import StoredTable


class Graph:
    """It holds itself, as Ray's does, and what nobody took of it."""

    def __init__(self) -> None:
        self.itself = self

    def iter_internal_ref_bundles(self) -> Iterator[SimpleNamespace]:
        while True:
            yield SimpleNamespace(block_refs=["a block"])


def test_a_pass_that_is_given_up_lets_go_of_its_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its tables would keep their nodes busy, until Python happens to collect garbage."""
    made: list[weakref.ref[Graph]] = []

    def make() -> Graph:
        made.append(weakref.ref(new := Graph()))
        return new

    monkeypatch.setattr(StoredTable, "of", lambda ref: ref)
    monkeypatch.setattr(graph, "CallOnRay", object)
    gc.disable()
    try:
        tables = iter(RayPass(make, ClusterNote("model"), None))
        assert next(tables) == "a block"
        tables.close()
        assert [each() for each in made] == [None]
    finally:
        gc.enable()


def a_node(*, is_head: bool, webui_url: str = "") -> SimpleNamespace:
    return SimpleNamespace(is_head=lambda: is_head, webui_url=webui_url)


@pytest.mark.parametrize(
    ("node", "is_spared"),
    [
        (a_node(is_head=True), True),
        (a_node(is_head=True, webui_url="127.0.0.1:8265"), False),
        (a_node(is_head=False), False),
        (None, False),
    ],
    ids=["local", "with a dashboard", "of a cluster", "not connected"],
)
def test_only_a_local_ray_is_spared_actors(
    node: SimpleNamespace | None, is_spared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[str] = []
    places = (
        (stats, "get_or_create_stats_actor"),
        (actor_pool_map_operator, "get_or_create_actor_location_tracker"),
        (cached_ray_internals, "get_or_create_actor_location_tracker"),
    )
    for module, name in places:
        monkeypatch.setattr(module, name, lambda name=name: started.append(name))
    monkeypatch.setattr(ray._private.worker, "_global_node", node)
    for _ in range(2):
        spare_local_actors()
    for module, name in places:
        getattr(module, name)()
    assert started == ([] if is_spared else [name for _, name in places])
