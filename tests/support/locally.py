"""A run of `annotate` in this process: all of it but Ray, which tests/e2e have."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import pyarrow as pa
import pytest

from pipeline.dataset.shards import Shard
from pipeline.driver import run as driver
from pipeline.execution.annotate.tables import TableAnnotator
from pipeline.execution.model import LoadedModel, load_model
from pipeline.execution.read_task import ReadShard
from pipeline.execution.resources import ActorResources, ClusterLoad
from pipeline.spec.identity import ResolvedModel
from pipeline.spec.job import JobSpec


class LocalTables:
    """The stages are called one after the other, in place of Ray's graph of them."""

    def open(self, spec: JobSpec) -> ActorResources:
        return ActorResources(num_cpus=1, num_gpus=0)

    def nodes_without(self, path: str) -> list[str]:
        return []

    def tables(
        self,
        shards: Sequence[Shard],
        spec: JobSpec,
        model: ResolvedModel | None,
        resources: ActorResources,
    ) -> "LocalPass":
        return LocalPass(spec, shards, load_model(spec))

    def cluster_load(self) -> ClusterLoad:
        return ClusterLoad(cpus=2, free_cpus=1, gpus=0, free_gpus=0, actors=1)

    def end_actor(self) -> None:
        raise AssertionError("there is one actor")


@dataclass(frozen=True)
class LocalPass:
    spec: JobSpec
    shards: Sequence[Shard]
    loaded: LoadedModel

    def __iter__(self) -> Iterator[pa.Table]:
        annotate = TableAnnotator(self.spec, self.loaded.model)
        for shard in self.shards:
            for table in ReadShard(self.spec)(pa.Table.from_pylist([asdict(shard)])):
                yield annotate(table)

    def model(self) -> ResolvedModel:
        return self.loaded.resolved


def without_ray(patch: pytest.MonkeyPatch) -> None:
    """Commands run on local tables, too."""
    patch.setattr(driver, "RayTables", LocalTables)
