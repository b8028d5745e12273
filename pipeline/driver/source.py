"""Where a run's annotated tables come from."""

from collections.abc import Iterator, Sequence
from typing import Protocol

import pyarrow as pa

from pipeline.dataset.shards import Shard
from pipeline.execution.resources import ActorResources, ClusterLoad
from pipeline.spec.identity import JobRecord, ResolvedModel
from pipeline.spec.job import JobSpec


class TableSource(Protocol):
    """`execution.graph.RayTables` is the one that annotates; tests have others."""

    def open(self, spec: JobSpec) -> ActorResources:
        """Get ready; what each actor asks for. Raises SpecError."""

    def resolve(self, spec: JobSpec, resources: ActorResources) -> ResolvedModel:
        """Load the model once, and describe it. Raises TimeoutError; SpecError where it does not
        load."""

    def nodes_without(self, path: str) -> list[str]:
        """Nodes that would read that local path and do not see it."""

    def tables(
        self, shards: Sequence[Shard], spec: JobSpec, record: JobRecord, resources: ActorResources
    ) -> Iterator[pa.Table]:
        """Yield tables of `schema.ANNOTATED`, in any order, perhaps not all. Raises PassBroke."""

    def cluster_load(self) -> ClusterLoad:
        """Return what the cluster has, and how many actors work."""

    def end_actor(self) -> None:
        """End one of several, for good."""
