"""Uses of Ray that Ray does not guarantee: private imports, patches, filters.

Each was tried on Ray 2.59 and 2.60. Each names its replacement for the case that it is missing.
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
    """Make workers import what this process imports: `code`, or what is installed on them.

    Ray would put the working directory of this process first on the workers' search path: a
    `pipeline.py` or a `types.py` there would replace our module, or Python's. It does not do so for
    a job whose code is outside its working directory; `_client_job` declares that. Replacement: a
    working directory that holds no modules.
    """
    return JobConfig(_client_job=True, _py_driver_sys_path=[str(code)] if code else None)


def session_logs() -> str:
    """Return the log folder of the Ray that this machine started last.

    Replacement: the value given to `ray start --temp-dir`.
    """
    return f"{get_default_ray_temp_dir()}/session_latest/logs"


def task_attempt() -> int:
    """Return how often this process's task was started before.

    Ray restarts a task when its worker or node dies, and has no public call for this. Replacement:
    0; then no sample is ever isolated.
    """
    if not ray.is_initialized():
        return 0
    worker: Any = ray._private.worker.global_worker
    return int(worker.core_worker.get_current_task_attempt_number())


# Actors


def actors_of(callable_class: type) -> list[Mapping[str, Any]]:
    """Return this job's `map_batches` actors of that class.

    Ray's public call (`ray.util.state`) needs the dashboard, which need not run.
    """
    name = f"MapWorker(MapBatches({callable_class.__name__}))"
    found = state.actors(job_id=ray.JobID.from_hex(ray.get_runtime_context().get_job_id()))
    return [actor for actor in found.values() if actor["ActorClassName"] == name]


def kill_actor(actor: Mapping[str, Any]) -> None:
    """Kill an actor permanently. `ray.kill` needs a handle, which Ray Data does not expose."""
    worker: Any = ray._private.worker.global_worker
    worker.core_worker.kill_actor(ray.ActorID.from_hex(actor["ActorID"]), True)


# Marks


class ClusterMarks:
    """Marks of this process's job, stored by the cluster's head; outside Ray there are none.

    Replacement: a named actor.
    """

    def has(self, name: str) -> bool:
        return ray.is_initialized() and bool(internal_kv._internal_kv_exists(self._key(name)))

    def add(self, name: str) -> None:
        internal_kv._internal_kv_put(self._key(name), b"")

    def remove(self, name: str) -> None:
        internal_kv._internal_kv_del(self._key(name))

    def _key(self, name: str) -> bytes:
        return f"kosmos2/{ray.get_runtime_context().get_job_id()}/{name}".encode()


@dataclass(frozen=True, slots=True)
class ClusterNote:
    """A text of this process's job, stored by the cluster's head and written once.

    Replacement: a named actor.
    """

    name: str

    def read(self) -> str | None:
        data = internal_kv._internal_kv_get(self._key)
        return None if data is None else data.decode()

    def write_once(self, text: str) -> str:
        internal_kv._internal_kv_put(self._key, text.encode(), overwrite=False)
        return self.read() or text

    @property
    def _key(self) -> bytes:
        return f"kosmos2/{ray.get_runtime_context().get_job_id()}/{self.name}".encode()


# Objects


@dataclass(frozen=True, slots=True, kw_only=True)
class RayObjects:
    """Counts of Ray's objects that this process refers to, and that the cluster stores."""

    held: int
    stored: int
    stored_bytes: int
    spilled_bytes: int  # since the cluster's start


def ray_objects() -> RayObjects:
    """Return the counts, for benchmarks. `ray memory` prints them; there is no public call."""
    worker: Any = ray._private.worker.global_worker
    stats = internal_api.get_memory_info_reply(state.state).store_stats
    return RayObjects(
        held=len(worker.core_worker.get_all_reference_counts()),
        stored=stats.num_local_objects,
        stored_bytes=stats.object_store_bytes_used,
        spilled_bytes=stats.spilled_bytes_total,
    )


# Ray Data


def one_row_per_block(rows: pa.Table) -> Dataset:
    """Make a dataset with one row per block.

    Replacement: `from_arrow(rows).repartition(target_num_rows_per_block=1)`, which is slower. Here
    the task that splits needs no CPU of the readers, and does not wait for the driver after every
    other row. Starting with that many blocks is slow too.
    """
    together = ray.data.from_arrow(rows)
    cut = StreamingRepartition(
        target_num_rows_per_block=1,
        input_dependencies=[together._logical_plan.dag],
        ray_remote_args={"num_cpus": 0, "_generator_backpressure_num_objects": -1},
    )
    return Dataset._from_parent(together, LogicalPlan(cut, together.context))


def map_whole_blocks(dataset: Dataset, actor: type, **options: Any) -> Dataset:
    """Map an actor over whole blocks.

    Replacement: `map_batches(batch_size=None)`, which requires batches of a fixed size with GPUs;
    our blocks are tables.
    """
    mapped: Dataset = dataset.map_batches_internal(
        actor, batch_size=None, batch_format="pyarrow", **options
    )
    return mapped


@contextmanager
def without_deprecations() -> Iterator[None]:
    """Ignore a deprecation warning.

    `max_retries` and similar options reach Ray as `ray_remote_args`, which is deprecated from 2.60
    on and has no successor yet.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`ray_remote_args` is deprecated")
        yield


def keep_no_block_stats() -> None:
    """Stop Ray from keeping statistics of every block, in this process, permanently.

    Nothing uses them, and for 100,000 shards a driver would hold gigabytes (ray-project/ray#66016).
    Replacement: none; the driver needs that memory.
    """
    map_operator.to_stats = _no_stats  # type: ignore[assignment, attr-defined]


def _no_stats(blocks: object) -> list[object]:
    return []
