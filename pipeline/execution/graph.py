"""The graph that Ray Data runs: shards -> ReadShard (CPU tasks) -> Annotate (actors) -> tables."""

import math
from collections.abc import Iterator, Sequence

import pyarrow as pa
from ray.data import ActorPoolStrategy, DataContext
from ray.data import Dataset as RayDataset
from ray.exceptions import ActorDiedError, RayError

from pipeline.dataset.shards import Shard, shard_table
from pipeline.errors import PassBroke
from pipeline.execution.annotate.actor import Annotate
from pipeline.execution.cluster import connect, nodes_without
from pipeline.execution.model import LoadModel, load_model, probe_model
from pipeline.execution.ray_private import (
    keep_no_block_stats,
    map_whole_blocks,
    one_row_per_block,
    without_deprecations,
)
from pipeline.execution.read_task import ReadShard
from pipeline.execution.resources import (
    ActorResources,
    ClusterLoad,
    actor_resources,
    cluster_load,
    end_actor,
)
from pipeline.logs import style_here
from pipeline.schema import PIXELS_SIZE
from pipeline.spec.identity import JobRecord, ResolvedModel
from pipeline.spec.job import JobSpec

BLOCK_SIZE_BYTES = 16 << 20  # measured: smaller blocks cost throughput, larger ones only memory
READER_RETRIES = 3
# With 2, one lost node cost 18 of 40 shards: until Ray notices that a node is dead, every
# resubmission burns a retry.
ACTOR_TASK_RETRIES = 16
_ROWS_PER_BLOCK = BLOCK_SIZE_BYTES // PIXELS_SIZE


def calls_per_actor(slots: int) -> int:
    """Tables in work at a time: one whose last samples are decoded, and others to fill twice
    the slots meanwhile."""
    return 1 + math.ceil(2 * slots / _ROWS_PER_BLOCK)


class RayTables:
    """Annotated tables of shards, made on a Ray cluster. `load` makes what the actors annotate
    with: something else than the job's model only for a benchmark."""

    def __init__(self, load: LoadModel = load_model) -> None:
        self._load = load

    def open(self, spec: JobSpec) -> ActorResources:
        """Connect; what each actor asks for. Raises SpecError."""
        connect()
        return actor_resources(spec)

    def resolve(self, spec: JobSpec, resources: ActorResources) -> ResolvedModel:
        """Raises SpecError where the model does not load, TimeoutError."""
        return probe_model(spec, resources, timeout_s=spec.stall_timeout_s)

    def nodes_without(self, path: str) -> list[str]:
        """Nodes that would read that local path and do not see it."""
        return nodes_without(path)

    def tables(
        self, shards: Sequence[Shard], spec: JobSpec, record: JobRecord, resources: ActorResources
    ) -> Iterator[pa.Table]:
        """Yield tables of `schema.ANNOTATED`, in the order they get ready.

        A Ray run can end well with rows missing (a worker died too often), so whoever takes the
        tables checks that shards are complete. Raises PassBroke.
        """
        dataset = annotated_tables(shards, spec, record, resources, self._load)
        try:
            yield from dataset.iter_batches(
                batch_size=None, batch_format="pyarrow", prefetch_batches=2
            )
        except RayError as error:
            said = str(error).strip().splitlines()[-1]
            raise PassBroke(said, is_actor_dead=isinstance(error, ActorDiedError)) from error

    def cluster_load(self) -> ClusterLoad:
        return cluster_load(Annotate)

    def end_actor(self) -> None:
        end_actor(Annotate)


def annotated_tables(
    shards: Sequence[Shard],
    spec: JobSpec,
    record: JobRecord,
    resources: ActorResources,
    load: LoadModel = load_model,
) -> RayDataset:
    """The graph. Nothing runs before its tables are asked for."""
    _configure(spec)
    style = style_here()
    with without_deprecations():
        read = one_row_per_block(shard_table(shards)).map_batches(  # so that a shard is a task
            ReadShard(spec, style),
            batch_size=1,
            batch_format="pyarrow",
            num_cpus=1,
            label_selector=spec.reader_label or None,
            max_retries=READER_RETRIES,
        )
        return map_whole_blocks(
            read,
            Annotate,
            fn_constructor_args=(spec, record.identity, load, style),
            compute=_pool(spec, record.slots_of(spec)),
            **resources.options,
            max_task_retries=ACTOR_TASK_RETRIES,
        )


def _pool(spec: JobSpec, slots: int) -> ActorPoolStrategy:
    calls, (least, most) = calls_per_actor(slots), spec.actors
    return ActorPoolStrategy(
        # Where a cluster shrinks, Ray starts a lost actor again on the last CPU, and no reader
        # runs any more; a pool that may get smaller gives it back.
        min_size=1 if least == most else least,
        initial_size=least,
        max_size=most,
        max_concurrent_calls_per_actor=calls,
        max_tasks_in_flight_per_actor=2 * calls,  # a pool grows from 1.75 times on
        enable_true_multi_threading=True,
    )


def _configure(spec: JobSpec) -> None:
    context = DataContext.get_current()
    if spec.actors[0] == spec.actors[1]:  # fixed: it gets smaller for want of room, not of work
        context.autoscaling_config.actor_pool_util_downscaling_threshold = -1.0
    context.target_max_block_size = BLOCK_SIZE_BYTES
    context.max_errored_blocks = -1  # an error costs its shard, not the run; see above
    context.actor_init_retry_on_errors = True
    context.execution_no_progress_timeout_s = -1  # the driver looks itself
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    keep_no_block_stats()
