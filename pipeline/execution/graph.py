"""The graph that Ray Data runs: shards -> ReadShard (CPU tasks) -> Annotate (actors) -> tables."""

import gc
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from functools import partial
from typing import Any
from uuid import uuid4

import pyarrow as pa
import ray
from ray.data import DataContext, ExecutionResources
from ray.data import Dataset as RayDataset
from ray.exceptions import RayError

from kosmos2_core.generation import MOST_SLOTS
from pipeline.dataset.shards import Shard, shard_table
from pipeline.errors import PassBroke
from pipeline.execution.annotate.actor import Annotate
from pipeline.execution.annotate.originals import SharedOriginals
from pipeline.execution.cluster import connect, nodes_without
from pipeline.execution.model import LoadModel, LoadReport, load_model
from pipeline.execution.parts.process import AskedProcess, RayProcess, Respondent
from pipeline.execution.ray_private import (
    ClusterNote,
    block_refs,
    in_blocks,
    keep_no_block_stats,
    map_whole_blocks,
    resize_running,
    without_announcements,
)
from pipeline.execution.ray_version import check_own_version
from pipeline.execution.read_task import MakeReader, ReadShard, shard_reader
from pipeline.execution.resources import (
    ActorResources,
    ClusterLoad,
    Share,
    actor_resources,
    cluster_load,
    end_actor,
)
from pipeline.execution.sizes import ROW_BYTES, calls_per_actor, rows_per_table, shards_per_task
from pipeline.execution.stored_tables import CallOnRay, StoredTable
from pipeline.logs import style_here
from pipeline.spec.identity import ResolvedModel
from pipeline.spec.job import JobSpec

READER_RETRIES = 3
# Until Ray notices that a node is dead, every resubmission uses up a retry. With few retries, one
# lost node fails many shards.
ACTOR_TASK_RETRIES = 16
_STORE_FRACTION = 0.5  # of Ray's store, as Ray Data itself takes it


class RayTables:
    """Annotated tables of shards, made on a Ray cluster.

    `load` makes the model that actors use, `make_reader` the reader of a task; only a benchmark
    replaces them.
    """

    def __init__(
        self, load: LoadModel = load_model, make_reader: MakeReader = shard_reader
    ) -> None:
        """Raises SpecError if kosmos2 does not work with the version of Ray."""
        check_own_version()
        self._load = load
        self._make_reader = make_reader
        self._share: Share | None = None
        self._resources: ActorResources | None = None  # of the last pass
        self._originals: SharedOriginals | None = None
        self._name = uuid4().hex
        self._has_begun = False

    def part(self, share: Share) -> "RayTables":
        """Return a source for one of several drivers, which uses its share of the cluster."""
        own = copy(self)
        own._share = share
        return own

    def resize(self, share: Share) -> None:
        """Use another share from now on, also in the pass that runs."""
        self._share = share
        if self._resources is not None:
            resize_running(most_actors=share.actors[1], limits=_limits(share, self._resources))

    def start(self, make: Callable[[], Respondent]) -> AskedProcess:
        """Start a process on this node, with what `make` makes there."""
        return RayProcess(make)

    def open(self, spec: JobSpec) -> ActorResources:
        """Connect, and return what each actor requests. Raises SpecError."""
        connect()
        resources = actor_resources(spec)
        if spec.looks_for_copies:  # of this process, so that it outlives drivers of parts
            self._originals = SharedOriginals(spec)
        return resources

    def nodes_without(self, path: str) -> list[str]:
        """Return the nodes that would read this local path and cannot see it."""
        return nodes_without(path)

    def tables(
        self,
        shards: Sequence[Shard],
        spec: JobSpec,
        model: ResolvedModel | None,
        resources: ActorResources,
    ) -> "RayPass":
        slots, total = _slots(spec, model, resources), ray.cluster_resources()
        share = self._share or Share(actors=spec.actors, of=spec.actors[1])
        store_bytes, cpus = total.get("object_store_memory", 0), total.get("CPU", 1)
        rows = rows_per_table(slots, share.fraction * store_bytes / share.actors[0])
        # Shards that are left after a pass are read alone, so that they cannot harm each other.
        together = 1 if self._has_begun else shards_per_task(shards, share.fraction * cpus)
        self._has_begun = True
        self._resources = resources
        _configure(share, rows)
        if self._share is not None:
            options = DataContext.get_current().execution_options
            options.resource_limits = _limits(share, resources)
        calls = calls_per_actor(slots, rows)
        copies = self._originals
        make_reader = partial(shard_reader, originals=copies) if copies else self._make_reader
        # While the model is unknown, all drivers of a run load what the first actor of any loads.
        note = ClusterNote(f"model/{uuid4().hex if model else self._name}")

        def annotated() -> RayDataset:
            samples = in_blocks(shard_table(shards), together).map_batches(
                ReadShard(spec, rows, style_here(), make_reader),
                batch_size=None,
                batch_format="pyarrow",
                num_cpus=1,
                label_selector=spec.reader_label or None,
                max_retries=READER_RETRIES,
            )
            actor = (_placed(spec, resources), model, self._load, note, style_here())
            return map_whole_blocks(
                samples,
                Annotate,
                fn_constructor_args=actor,
                **_pool(share, calls),
                **resources.options,
                max_task_retries=ACTOR_TASK_RETRIES,
            )

        return RayPass(annotated, note, copies)

    def cluster_load(self) -> ClusterLoad:
        return cluster_load(Annotate)

    def end_actor(self) -> None:
        end_actor(Annotate)


class RayPass:
    """The tables of one pass, in the order they become ready. They can be iterated once.

    Nothing runs before the first table is requested: Ray starts a task even to make the dataset,
    which waits for a free CPU.
    """

    def __init__(
        self,
        annotated: Callable[[], RayDataset],
        note: ClusterNote,
        originals: SharedOriginals | None,
    ) -> None:
        self._annotated = annotated
        self._note = note  # on the model
        self.originals = originals
        self.call = CallOnRay()

    def __iter__(self) -> Iterator[StoredTable]:
        """Yield tables of `schema.ANNOTATED`.

        A Ray run can end normally with rows missing, after a worker died too often. The caller
        therefore checks that shards are complete. Raises PassBroke.
        """
        try:
            for ref in self._refs():
                yield StoredTable.of(ref)
        except RayError as error:
            said = str(error).strip().splitlines()[-1]
            raise PassBroke(said) from error
        finally:
            # Ray's graph holds itself and the tables that nobody took. Until they are collected,
            # their nodes count as busy, and an autoscaler keeps them.
            gc.collect()

    def _refs(self) -> "Iterator[ray.ObjectRef[pa.Table]]":
        with without_announcements():
            annotated = self._annotated()
        yield from block_refs(annotated)

    def model(self) -> ResolvedModel | None:
        """Return the model that the first actor loaded. Raises SpecError if it did not load."""
        text = self._note.read()
        return LoadReport.model_validate_json(text).loaded() if text else None


def _placed(spec: JobSpec, resources: ActorResources) -> JobSpec:
    """Return the spec for the actors. Ray hides no GPU from an actor that reserves none."""
    return spec if resources.num_gpus else spec.model_copy(update={"device": "cpu"})


def _slots(spec: JobSpec, model: ResolvedModel | None, resources: ActorResources) -> int:
    """Return the slots per actor; the most that it may choose if it has not loaded the model."""
    known = spec.slots or (model.slots if model else None)
    return known or MOST_SLOTS["cuda" if resources.num_gpus else "cpu"]


def _pool(share: Share, calls: int) -> dict[str, Any]:
    """Return the pool of actors, and the calls that each processes concurrently."""
    least, most = share.actors
    pool = {
        # In a shrinking cluster, Ray restarts a lost actor on the last CPU, and no reader can run.
        # A pool that may shrink returns the CPU.
        "min_size": 1 if least == most else least,
        "initial_size": least,
        "max_size": most,
        "max_tasks_in_flight_per_actor": 2 * calls,  # a pool grows from 1.75 times on
    }
    return {"pool": pool, "calls": calls}


def _limits(share: Share, resources: ActorResources) -> ExecutionResources:
    """Return what a driver may ask of the cluster.

    Each driver has its actors, its part of the other CPUs, for one reader at least, and of the
    half of Ray's store that Ray Data may fill.
    """
    total, (_, most) = ray.cluster_resources(), share.actors
    readers = share.fraction * (total.get("CPU", 0) - share.of * resources.num_cpus)
    return ExecutionResources.for_limits(
        cpu=most * resources.num_cpus + max(readers, 1.0),
        object_store_memory=share.fraction * _STORE_FRACTION * total.get("object_store_memory", 0),
    )


def _configure(share: Share, rows: int) -> None:
    context = DataContext.get_current()
    if share.actors[0] == share.actors[1]:
        # A fixed pool shrinks for lack of resources, not of work.
        context.autoscaling_config.actor_pool_util_downscaling_threshold = -1.0
    # Ray splits larger blocks, and reserves a part of its store for each that a task will make.
    context.target_max_block_size = rows * ROW_BYTES
    context.max_errored_blocks = -1  # an error costs its shard, not the run; see above
    context.actor_init_retry_on_errors = True
    context.execution_no_progress_timeout_s = -1  # the driver checks progress itself
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    keep_no_block_stats()
