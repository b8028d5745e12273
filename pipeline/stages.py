"""The Ray Data graph: shards -> ReadShard (CPU tasks) -> Annotate (actors) -> tables.

What needs torch is imported where it runs: the driver, which imports this module, never does.
"""

import threading
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
import ray.data
from ray.data import ActorPoolStrategy, DataContext

from kosmos2_core.annotation import Annotation
from kosmos2_core.errors import AnnotationError, CheckpointError
from kosmos2_core.locations import IMAGE_SIZE
from kosmos2_core.tasks import Task, task_named
from pipeline.cluster import ActorResources
from pipeline.errors import WrongIdentity
from pipeline.faults import fault
from pipeline.schema import ANNOTATED, PIXELS_SIZE, Rejection, annotation_row
from pipeline.shards import Shard
from pipeline.spec import Identity, JobSpec, ResolvedModel, identity_of
from pipeline.storage import InputStore

if TYPE_CHECKING:
    from pipeline.reading import ShardReader

BLOCK_SIZE_BYTES = 16 << 20  # measured: smaller blocks cost throughput, larger ones only memory
READER_RETRIES = 3
# The first death may be chance, or the node's; after the second each picture is decoded in a
# process that it may kill, so that it costs its sample alone.
ISOLATED_ATTEMPT = 2
# Ray repeats what ran out of memory without counting it against the retries, for ever by default.
READER_ATTEMPTS = 6
# With 2, one lost node cost 18 of 40 shards: until Ray notices that a node is dead, every
# resubmission burns a retry.
ACTOR_TASK_RETRIES = 16
# Two calls at a time: while one is in the model, the other's rows are built.
CALLS_PER_ACTOR = 2


class ReadShard:
    """One row (a shard) -> its samples. A Ray task."""

    def __init__(self, spec: JobSpec) -> None:
        self._spec = spec

    def __call__(self, shards: pa.Table) -> Iterator[pa.Table]:
        from pipeline.reading import ShardReader

        reader = ShardReader(
            store=InputStore(self._spec.input_storage),
            tasks=self._spec.task,
            exif=self._spec.exif,
        )
        for row in shards.to_pylist():
            for table in tables_of_attempt(reader, Shard(**row), attempt=_attempt()):
                yield table
                fault("reader.block", shard_id=row["shard_id"])


def tables_of_attempt(reader: "ShardReader", shard: Shard, *, attempt: int) -> Iterator[pa.Table]:
    """The tables of `shard`, the more carefully the more readers died of it before."""
    if attempt >= READER_ATTEMPTS:
        yield reader.give_up(
            shard,
            f"its reader died {attempt} times, also with pictures decoded in a process of their "
            "own: is there too little memory?",
        )
    elif attempt >= ISOLATED_ATTEMPT:
        yield from reader.read_isolated(shard)
    else:
        yield from reader.read(shard)


def _attempt() -> int:
    """How often this task was begun before; it is again when its worker or its node dies."""
    worker: Any = ray._private.worker.global_worker  # there is no public way to it as yet
    return int(worker.core_worker.get_current_task_attempt_number())


class Annotate:
    """Samples -> annotations and rejections; other rows pass through. A Ray actor.

    Refuses to start with a model that is not the one of the job.
    """

    def __init__(self, spec: JobSpec, identity: Identity) -> None:
        from pipeline.resolve import load_annotator, resolved_model

        self._annotator = load_annotator(spec)
        if identity_of(spec, resolved_model(self._annotator)) != identity:
            raise WrongIdentity("this node's checkpoint is not the one that job.json names")
        self._tasks = [task_named(name) for name in spec.task]
        self._model = threading.Lock()

    def __call__(self, table: pa.Table) -> pa.Table:
        """A batch may hold rows of several shards; each shard's are annotated apart, so that
        what a row's neighbours are does not depend on the run."""
        return pa.concat_tables(
            self._annotate(shard_id, table.filter(pc.equal(table["shard_id"], shard_id)))
            for shard_id in pc.unique(table["shard_id"]).to_pylist()
        )

    def _annotate(self, shard_id: str, table: pa.Table) -> pa.Table:
        is_sample = table["sample"].is_valid()
        passed = table.filter(pc.invert(is_sample)).select(["shard_id", "rejected", "end"])
        rows = passed.to_pylist()
        samples = table.filter(is_sample)
        if samples.num_rows:
            with self._model:
                answers = self._answers(_pixels(samples["pixels"]))
            for sample, answer in zip(samples["sample"].to_pylist(), answers, strict=True):
                rows += self._rows(shard_id, sample, answer)
        return pa.Table.from_pylist(rows, schema=ANNOTATED)

    def _answers(self, pixels: np.ndarray) -> list[tuple[Annotation, ...] | AnnotationError]:
        """One image that the model cannot annotate must not cost its neighbours."""
        try:
            return list(self._annotator.annotate_pixels(pixels, self._tasks))
        except AnnotationError as error:
            if len(pixels) == 1:
                return [error]
            return [answer for one in pixels for answer in self._answers(one[None])]

    def _rows(
        self,
        shard_id: str,
        sample: dict[str, Any],
        answer: tuple[Annotation, ...] | AnnotationError,
    ) -> list[dict[str, Any]]:
        if isinstance(answer, AnnotationError):
            return [_rejected(shard_id, sample, task, answer) for task in self._tasks]
        return [
            {"shard_id": shard_id, "annotated": annotation_row(shard_id, sample, annotation)}
            for annotation in answer
        ]


def _pixels(column: pa.ChunkedArray) -> np.ndarray:
    """Column of 150,528 bytes each -> uint8 [N, 3, 224, 224]."""
    array = column.combine_chunks()
    data = np.frombuffer(array.buffers()[1], np.uint8)
    start = array.offset * PIXELS_SIZE
    flat = data[start : start + len(array) * PIXELS_SIZE]
    return flat.reshape(-1, 3, IMAGE_SIZE, IMAGE_SIZE)


def _rejected(
    shard_id: str, sample: dict[str, Any], task: Task, error: AnnotationError
) -> dict[str, Any]:
    rejection = Rejection(
        shard_id=shard_id,
        index=sample["index"],
        task=task.name,
        key=sample["key"],
        uri=sample["uri"],
        member=sample["member"],
        stage="annotate",
        error_type=error.code,
        message=str(error),
        retriable=True,
    )
    return {"shard_id": shard_id, "rejected": asdict(rejection)}


def probe_model(spec: JobSpec, resources: ActorResources) -> ResolvedModel | str:
    """Load the model once where the actors will; what it came to, or why it does not load."""
    probe = ray.remote(_probe).options(num_cpus=resources.num_cpus, num_gpus=resources.num_gpus)
    found: ResolvedModel | str = ray.get(probe.remote(spec))
    return found


def _probe(spec: JobSpec) -> ResolvedModel | str:
    from pipeline.resolve import load_annotator, resolved_model

    try:
        return resolved_model(load_annotator(spec))
    except CheckpointError as error:
        return str(error)


def annotated_tables(
    shards: Sequence[Shard], spec: JobSpec, identity: Identity, resources: ActorResources
) -> Iterator[pa.Table]:
    """Run the graph; tables of `schema.ANNOTATED` in the order they get ready.

    A Ray run can end well with rows missing (a worker died too often), so whoever takes the
    tables checks that shards are complete.
    """
    _configure()
    dataset = (
        ray.data.from_items([asdict(shard) for shard in shards])
        # One shard is one task. `override_num_blocks` does the same but takes minutes for 100k.
        .repartition(target_num_rows_per_block=1)
        .map_batches(
            ReadShard(spec),
            batch_size=1,
            batch_format="pyarrow",
            num_cpus=1,
            max_retries=READER_RETRIES,
        )
        .map_batches(
            Annotate,
            fn_constructor_args=(spec, identity),
            batch_size=None,
            batch_format="pyarrow",
            compute=ActorPoolStrategy(
                size=spec.actors,
                max_concurrent_calls_per_actor=CALLS_PER_ACTOR,
                max_tasks_in_flight_per_actor=2 * CALLS_PER_ACTOR,
                enable_true_multi_threading=True,
            ),
            num_cpus=resources.num_cpus,
            num_gpus=resources.num_gpus,
            max_task_retries=ACTOR_TASK_RETRIES,
        )
    )
    yield from dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=2)


def _configure() -> None:
    context = DataContext.get_current()
    context.target_max_block_size = BLOCK_SIZE_BYTES
    context.max_errored_blocks = -1  # an error costs its shard, not the run; see above
    context.actor_init_retry_on_errors = True
    context.execution_no_progress_timeout_s = -1  # the runner has a watchdog of its own
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # There is no named parameter for retries yet, and none is worse than a deprecated one.
    warnings.filterwarnings("ignore", message="`ray_remote_args` is deprecated")
