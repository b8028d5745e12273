"""Commands run in this process: all of them but Ray, which tests/e2e have."""

import logging
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass
from functools import partial
from io import StringIO

import pyarrow as pa
import pytest

from jobs.bench.light.model import LightModel
from jobs.cli import run_command
from kosmos2_core.checkpoint.files import SHAPES
from pipeline.dataset.originals import OriginalIndex, Originals, index_outputs, outputs_of
from pipeline.dataset.shards import Shard
from pipeline.driver import run as driver
from pipeline.execution.annotate.tables import TableAnnotator
from pipeline.execution.model import LoadedModel, load_model
from pipeline.execution.parts.process import Respondent
from pipeline.execution.read_task import ReadShard, shard_reader
from pipeline.execution.resources import ActorResources, ClusterLoad, Share
from pipeline.execution.stored_tables import StoredTable, call_in_thread
from pipeline.spec.identity import ResolvedModel
from pipeline.spec.job import JobSpec
from tests.support.passes import ProcessHere
from tests.support.s3 import S3Server


class LocalTables:
    """The stages are called one after the other, in place of Ray's graph of them.

    The actor counts as one that holds so many GPUs.
    """

    gpus: float = 0

    def open(self, spec: JobSpec) -> ActorResources:
        return ActorResources(num_cpus=1, num_gpus=self.gpus)

    def nodes_without(self, path: str) -> list[str]:
        return []

    def tables(
        self,
        shards: Sequence[Shard],
        spec: JobSpec,
        model: ResolvedModel | None,
        resources: ActorResources,
    ) -> "LocalPass":
        return LocalPass(spec, shards, self.load(spec), local_originals(spec))

    def load(self, spec: JobSpec) -> LoadedModel:
        """Load a model; the embedded one once for all jobs that load it with the same options."""
        if spec.model != SHAPES:
            return load_model(spec)
        key = (spec.device, spec.dtype, spec.generation, spec.tasks, spec.gpus_per_actor)
        if key not in _EMBEDDED:
            _EMBEDDED[key] = load_model(spec)
        return _EMBEDDED[key]

    def part(self, share: Share) -> "LocalTables":
        return self

    def resize(self, share: Share) -> None: ...

    def start(self, make: Callable[[], Respondent]) -> ProcessHere:
        return ProcessHere(make())

    def cluster_load(self) -> ClusterLoad:
        return ClusterLoad(cpus=2, free_cpus=1, gpus=0, free_gpus=0, actors=1)

    def end_actor(self) -> None:
        raise AssertionError("there is one actor")


_EMBEDDED: dict[tuple[object, ...], LoadedModel] = {}


@dataclass(frozen=True)
class LocalPass:
    spec: JobSpec
    shards: Sequence[Shard]
    loaded: LoadedModel
    originals: Originals | None

    call = staticmethod(call_in_thread)

    def __iter__(self) -> Iterator[StoredTable]:
        annotate = TableAnnotator(self.spec, self.loaded.model)
        read = ReadShard(self.spec, make_reader=partial(shard_reader, originals=self.originals))
        for shard in self.shards:
            for table in read(pa.Table.from_pylist([asdict(shard)])):
                yield StoredTable(annotate(table))

    def model(self) -> ResolvedModel:
        return self.loaded.resolved


def local_originals(spec: JobSpec) -> OriginalIndex | None:
    """An index in this process, if the job has one."""
    if not spec.looks_for_copies:
        return None
    index = OriginalIndex()
    index_outputs(index, outputs_of(spec), tasks=len(spec.task))
    return index


class TablesOfGpus(LocalTables):
    gpus = 1


class LightTables(LocalTables):
    """For what does not depend on the answers: there is one, which costs nothing."""

    def load(self, spec: JobSpec) -> LoadedModel:
        return LightModel(image_cost_s=0.0)(spec)


def without_ray(patch: pytest.MonkeyPatch, tables: type[LocalTables] = LocalTables) -> None:
    """Commands run on local tables, too."""
    patch.setattr(driver, "RayTables", tables)


@contextmanager
def local_surroundings(s3_server: S3Server) -> Iterator[None]:
    """Commands run on local tables and find that store."""
    with pytest.MonkeyPatch.context() as patch:
        without_ray(patch)
        patch.delenv("AWS_PROFILE", raising=False)
        for name, value in s3_server.environment.items():
            patch.setenv(name, value)
        yield


class LocalCommand:
    """The `kosmos2` command in this process, with what it prints. See `without_ray`."""

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        out, err = StringIO(), StringIO()
        log = logging.StreamHandler(err)
        logging.getLogger().addHandler(log)
        try:
            with redirect_stdout(out), redirect_stderr(err):
                code = run_command(arguments)
        finally:
            logging.getLogger().removeHandler(log)
        return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())
