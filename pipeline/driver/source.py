"""The source of a run's annotated tables."""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from pipeline.dataset.originals import Originals
from pipeline.dataset.shards import Shard
from pipeline.execution.parts.process import AskedProcess, Respondent
from pipeline.execution.resources import ActorResources, ClusterLoad, Share
from pipeline.execution.stored_tables import Call, StoredTable
from pipeline.spec.identity import ResolvedModel
from pipeline.spec.job import JobSpec


class PassTables(Protocol):
    """The annotated tables of one pass, and calls with them."""

    @property
    def call(self) -> Call: ...

    @property
    def originals(self) -> Originals | None:
        """The annotated images whose copies are not annotated; None if there are none."""

    def __iter__(self) -> Iterator[StoredTable]:
        """Yield tables of `schema.ANNOTATED`, in any order, perhaps not all. Raises PassBroke."""

    def model(self) -> ResolvedModel | None:
        """Return the model that made the tables, None while no actor has loaded it.

        It is there before the first table. Raises SpecError if the model does not load.
        """


class TableSource(Protocol):
    """A source of annotated tables. `execution.graph.RayTables` annotates; tests use others."""

    def open(self, spec: JobSpec) -> ActorResources:
        """Prepare the source and return what each actor requests. Raises SpecError."""

    def nodes_without(self, path: str) -> list[str]:
        """Return the nodes that would read this local path and cannot see it."""

    def tables(
        self,
        shards: Sequence[Shard],
        spec: JobSpec,
        model: ResolvedModel | None,
        resources: ActorResources,
    ) -> PassTables:
        """Return the tables of a pass. Only `model` may make them, if it is known."""

    def part(self, share: Share) -> "TableSource":
        """Return a source for one of several drivers, which uses its share of the cluster."""

    def resize(self, share: Share) -> None:
        """Use another share from now on, also in the pass that runs."""

    def start(self, make: Callable[[], Respondent]) -> AskedProcess:
        """Start a process with what `make` makes there."""

    def cluster_load(self) -> ClusterLoad:
        """Return the cluster's resources and the number of this driver's actors."""

    def end_actor(self) -> None:
        """End one of this driver's actors permanently."""
