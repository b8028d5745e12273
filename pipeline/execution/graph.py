"""The graph that Ray Data runs: shards -> ReadShard (CPU tasks) -> Annotate (actors) -> tables."""

import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import fields

import pyarrow as pa
import ray
import ray.data
from ray.data import ActorPoolStrategy, DataContext, Dataset
from ray.data._internal.execution.operators import map_operator
from ray.data._internal.logical.interfaces import LogicalPlan
from ray.data._internal.logical.operators import StreamingRepartition

from kosmos2_core.errors import CheckpointError
from pipeline.dataset.shards import Shard, shard_table
from pipeline.execution.annotate_actor import Annotate, ReadShard
from pipeline.execution.model import LoadModel, load_model
from pipeline.execution.resources import ActorResources
from pipeline.logs import style_here
from pipeline.schema import PIXELS_SIZE
from pipeline.spec.identity import Identity, ResolvedModel
from pipeline.spec.job import JobSpec

BLOCK_SIZE_BYTES = 16 << 20  # measured: smaller blocks cost throughput, larger ones only memory
READER_RETRIES = 3
# With 2, one lost node cost 18 of 40 shards: until Ray notices that a node is dead, every
# resubmission burns a retry.
ACTOR_TASK_RETRIES = 16
_SHARD = tuple(field.name for field in fields(Shard))
_ROWS_PER_BLOCK = BLOCK_SIZE_BYTES // PIXELS_SIZE


def probe_model(
    spec: JobSpec, resources: ActorResources, *, timeout_s: float
) -> ResolvedModel | str | None:
    """Load the model once where the actors will; what it came to, or why it does not load.

    None where that did not come to an end in time.
    """
    probe = ray.remote(_probe).options(**resources.options)
    try:
        found: ResolvedModel | str = ray.get(probe.remote(spec), timeout=timeout_s)
    except ray.exceptions.GetTimeoutError:
        return None
    return found


def _probe(spec: JobSpec) -> ResolvedModel | str:
    from pipeline.execution.model import load_annotator, resolved_model

    try:
        return resolved_model(load_annotator(spec))
    except CheckpointError as error:
        return str(error)


def calls_per_actor(slots: int) -> int:
    """Tables in work at a time: one whose last samples are decoded, and others to fill twice
    the slots meanwhile."""
    return 1 + math.ceil(2 * slots / _ROWS_PER_BLOCK)


def annotated_tables(
    shards: Sequence[Shard],
    spec: JobSpec,
    identity: Identity,
    resources: ActorResources,
    *,
    slots: int,
    load: LoadModel = load_model,
) -> Iterator[pa.Table]:
    """Run the graph; tables of `schema.ANNOTATED` in the order they get ready.

    A Ray run can end well with rows missing (a worker died too often), so whoever takes the
    tables checks that shards are complete.
    """
    _configure(spec)
    style = style_here()
    dataset = (
        _one_row_per_block(pa.table(shard_table(shards, _SHARD)))  # so that one shard is one task
        .map_batches(
            ReadShard(spec, style),
            batch_size=1,
            batch_format="pyarrow",
            num_cpus=1,
            label_selector=spec.reader_labels or None,
            max_retries=READER_RETRIES,
        )
        # Not `map_batches`: it wants batches of a fixed size where there are GPUs, ours are tables.
        .map_batches_internal(
            Annotate,
            fn_constructor_args=(spec, identity, load, style),
            batch_size=None,
            batch_format="pyarrow",
            compute=_pool(spec, slots),
            **resources.options,
            max_task_retries=ACTOR_TASK_RETRIES,
        )
    )
    yield from dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=2)


def _one_row_per_block(rows: pa.Table) -> Dataset:
    """`from_arrow(rows).repartition(target_num_rows_per_block=1)`, but the task that cuts takes no
    CPU from the readers, and does not wait for the driver after every other row. (As many blocks
    from the start take minutes for 100k.)
    """
    together = ray.data.from_arrow(rows)
    cut = StreamingRepartition(
        target_num_rows_per_block=1,
        input_dependencies=[together._logical_plan.dag],
        ray_remote_args={"num_cpus": 0, "_generator_backpressure_num_objects": -1},
    )
    return Dataset._from_parent(together, LogicalPlan(cut, together.context))


def _pool(spec: JobSpec, slots: int) -> ActorPoolStrategy:
    calls = calls_per_actor(slots)
    return ActorPoolStrategy(
        # Where a cluster shrinks, Ray starts a lost actor again on the last CPU, and no reader
        # runs any more; a pool that may get smaller gives it back.
        min_size=1 if spec.is_fixed_pool else spec.least_actors,
        initial_size=spec.least_actors,
        max_size=spec.most_actors,
        max_concurrent_calls_per_actor=calls,
        max_tasks_in_flight_per_actor=2 * calls,  # a pool grows from 1.75 times on
        enable_true_multi_threading=True,
    )


def _configure(spec: JobSpec) -> None:
    context = DataContext.get_current()
    if spec.is_fixed_pool:  # it gets smaller for want of room, not of work
        context.autoscaling_config.actor_pool_util_downscaling_threshold = -1.0
    context.target_max_block_size = BLOCK_SIZE_BYTES
    context.max_errored_blocks = -1  # an error costs its shard, not the run; see above
    context.actor_init_retry_on_errors = True
    context.execution_no_progress_timeout_s = -1  # the runner has a watchdog of its own
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    map_operator.to_stats = _no_stats  # type: ignore[assignment, attr-defined]
    # There is no named parameter for retries yet, and none is worse than a deprecated one.
    warnings.filterwarnings("ignore", message="`ray_remote_args` is deprecated")


def _no_stats(blocks: object) -> list[object]:
    """Ray would keep figures of every block until the run ends, which nobody asks for: of 100,000
    shards a driver would hold gigabytes (ray-project/ray#66016).
    """
    return []
