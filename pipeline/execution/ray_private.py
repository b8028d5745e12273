"""All that we use of Ray and that Ray does not promise: private imports, patches, filters.

Each was tried on Ray 2.59 and 2.60, and says what there is instead where it is missing.
"""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray
import ray.data
from ray._common.utils import get_default_ray_temp_dir
from ray._private import internal_api, state
from ray.data import Dataset
from ray.data._internal.execution.operators import map_operator
from ray.data._internal.logical.interfaces import LogicalPlan
from ray.data._internal.logical.operators import StreamingRepartition
from ray.experimental import internal_kv
from ray.job_config import JobConfig


def job_config(code: Path | None) -> JobConfig:
    """Makes workers import what this process imports: `code`, or what is installed on them.

    Ray would put the working directory of this process before everything else on the workers'
    search path: a `pipeline.py` or a `types.py` there would replace our module, or Python's. It
    does not do so for a job whose code is elsewhere than its working directory, which is what
    `_client_job` says. Without it: a working directory that holds no modules.
    """
    return JobConfig(_client_job=True, _py_driver_sys_path=[str(code)] if code else None)


def session_logs() -> str:
    """The log folder of the Ray that this machine started last. Without it: what `ray start
    --temp-dir` was told."""
    return f"{get_default_ray_temp_dir()}/session_latest/logs"


def task_attempt() -> int:
    """How often this process's task was begun before: it is again when its worker or node dies.

    There is no public way to it. Without it: 0, and no sample is ever isolated.
    """
    if not ray.is_initialized():
        return 0
    worker: Any = ray._private.worker.global_worker
    return int(worker.core_worker.get_current_task_attempt_number())


# ---- actors


def actors_of(callable_class: type) -> list[Mapping[str, Any]]:
    """This job's, of `map_batches` with that class. Ray's public way (`ray.util.state`) needs the
    dashboard, which need not run."""
    name = f"MapWorker(MapBatches({callable_class.__name__}))"
    found = state.actors(job_id=ray.JobID.from_hex(ray.get_runtime_context().get_job_id()))
    return [actor for actor in found.values() if actor["ActorClassName"] == name]


def kill_actor(actor: Mapping[str, Any]) -> None:
    """For good. `ray.kill` wants a handle, which Ray Data keeps to itself."""
    worker: Any = ray._private.worker.global_worker
    worker.core_worker.kill_actor(ray.ActorID.from_hex(actor["ActorID"]), True)


# ---- marks


class ClusterMarks:
    """Marks of the job that this process works for, kept by the cluster's head; outside of Ray
    there are none. Without the head's store: a named actor."""

    def has(self, name: str) -> bool:
        return ray.is_initialized() and bool(internal_kv._internal_kv_exists(self._key(name)))

    def add(self, name: str) -> None:
        internal_kv._internal_kv_put(self._key(name), b"")

    def remove(self, name: str) -> None:
        internal_kv._internal_kv_del(self._key(name))

    def _key(self, name: str) -> bytes:
        return f"kosmos2/{ray.get_runtime_context().get_job_id()}/{name}".encode()


# ---- objects


@dataclass(frozen=True, slots=True, kw_only=True)
class RayObjects:
    """Ray's objects: those that this process refers to, and those that the cluster stores."""

    held: int
    stored: int
    stored_bytes: int
    spilled_bytes: int  # since the cluster's start


def ray_objects() -> RayObjects:
    """For benchmarks. `ray memory` prints them; there is no public call."""
    worker: Any = ray._private.worker.global_worker
    stats = internal_api.get_memory_info_reply(state.state).store_stats
    return RayObjects(
        held=len(worker.core_worker.get_all_reference_counts()),
        stored=stats.num_local_objects,
        stored_bytes=stats.object_store_bytes_used,
        spilled_bytes=stats.spilled_bytes_total,
    )


# ---- Ray Data


def one_row_per_block(rows: pa.Table) -> Dataset:
    """`from_arrow(rows).repartition(target_num_rows_per_block=1)`, which is there instead: slower.

    Here the task that cuts takes no CPU from the readers, and does not wait for the driver after
    every other row. (As many blocks from the start take minutes for 100k.)
    """
    together = ray.data.from_arrow(rows)
    cut = StreamingRepartition(
        target_num_rows_per_block=1,
        input_dependencies=[together._logical_plan.dag],
        ray_remote_args={"num_cpus": 0, "_generator_backpressure_num_objects": -1},
    )
    return Dataset._from_parent(together, LogicalPlan(cut, together.context))


def map_whole_blocks(dataset: Dataset, actor: type, **options: Any) -> Dataset:
    """`map_batches(batch_size=None)`, which is there instead, but wants batches of a fixed size
    where there are GPUs; ours are tables."""
    mapped: Dataset = dataset.map_batches_internal(
        actor, batch_size=None, batch_format="pyarrow", **options
    )
    return mapped


@contextmanager
def without_deprecations() -> Iterator[None]:
    """`max_retries` and its like reach Ray as `ray_remote_args`, which is deprecated from 2.60 on
    and has no successor yet."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`ray_remote_args` is deprecated")
        yield


def keep_no_block_stats() -> None:
    """In this process, for good: Ray would keep figures of every block until the run ends, which
    nobody asks for. Of 100,000 shards a driver would hold gigabytes (ray-project/ray#66016).
    Without this: it does.
    """
    map_operator.to_stats = _no_stats  # type: ignore[assignment, attr-defined]


def _no_stats(blocks: object) -> list[object]:
    return []
