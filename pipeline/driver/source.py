"""The source of a run's annotated tables."""

from collections.abc import Iterator, Sequence
from typing import Protocol

import pyarrow as pa

from pipeline.dataset.shards import Shard
from pipeline.execution.resources import ActorResources, ClusterLoad
from pipeline.spec.identity import JobRecord, ResolvedModel
from pipeline.spec.job import JobSpec


class TableSource(Protocol):
    """A source of annotated tables. `execution.graph.RayTables` annotates; tests use others."""

    def open(self, spec: JobSpec) -> ActorResources:
        """Prepare the source and return what each actor requests. Raises SpecError."""

    def resolve(self, spec: JobSpec, resources: ActorResources) -> ResolvedModel:
        """Load the model once and describe it.

        Raises TimeoutError, SpecError if it does not load.
        """

    def nodes_without(self, path: str) -> list[str]:
        """Return the nodes that would read this local path and cannot see it."""

    def tables(
        self, shards: Sequence[Shard], spec: JobSpec, record: JobRecord, resources: ActorResources
    ) -> Iterator[pa.Table]:
        """Yield tables of `schema.ANNOTATED`, in any order, perhaps not all. Raises PassBroke."""

    def cluster_load(self) -> ClusterLoad:
        """Return the cluster's resources and the number of its actors."""

    def end_actor(self) -> None:
        """End one of several actors permanently."""
