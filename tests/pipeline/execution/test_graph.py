"""A pass over tables of Ray's, without Ray."""

import gc
import weakref
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from pipeline.execution import graph
from pipeline.execution.graph import RayPass
from pipeline.execution.ray_private import ClusterNote
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
