"""Uses of Ray that Ray does not guarantee: private imports, patches, filters.

Each was tried on the versions that `ray_version` names. Each has its replacement for the case that
it is missing. What some of these versions lack is looked up where it is used, and replaced there:
this module can be imported with any Ray, whose version is then checked.
"""

import dataclasses
import importlib
import inspect
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray
import ray.data
from ray.data import ActorPoolStrategy, Dataset
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
    utils: Any = importlib.import_module("ray._common.utils")
    # before Ray 2.55 it had another name
    folder = getattr(utils, "get_default_ray_temp_dir", None) or utils.get_ray_temp_dir
    return f"{folder()}/session_latest/logs"


def job_server_version(address: str) -> str | None:
    """Return the version of Ray that a job server tells; None if it does not answer or tell.

    Args:
        address: Such as http://head:8265.

    Ray's client asks for it too, and keeps the answer to itself. Replacement: None.
    """
    from ray.job_submission import JobSubmissionClient

    try:
        answer: Any = JobSubmissionClient(address)._do_request("GET", "/api/version").json()
        return str(answer["ray_version"])
    except Exception:  # noqa: BLE001 - of any class: no connection, no permission, another server
        return None


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
    from ray._private import state

    name = f"MapWorker(MapBatches({callable_class.__name__}))"
    found = state.actors(job_id=ray.JobID.from_hex(ray.get_runtime_context().get_job_id()))
    return [actor for actor in found.values() if actor["ActorClassName"] == name]


def are_own(actors: Sequence[Mapping[str, Any]]) -> list[bool]:
    """Return of each of this job's actors whether this process started it.

    Only this process and the drivers of parts start such actors, and those are actors themselves.
    Replacement: True for all.
    """
    from ray._private import state

    me = ray.get_runtime_context().get_actor_id()
    here = state.actors(actor_id=me)["Address"] if me else None
    return [here is None or actor["OwnerAddress"] == here for actor in actors]


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
        return ray.is_initialized() and bool(internal_kv._internal_kv_exists(_key_of_job(name)))

    def add(self, name: str) -> None:
        internal_kv._internal_kv_put(_key_of_job(name), b"")

    def remove(self, name: str) -> None:
        internal_kv._internal_kv_del(_key_of_job(name))


@dataclass(frozen=True, slots=True)
class ClusterNote:
    """A text of this process's job, stored by the cluster's head and written once.

    Replacement: a named actor.
    """

    name: str

    def read(self) -> str | None:
        data = internal_kv._internal_kv_get(_key_of_job(self.name))
        return None if data is None else data.decode()

    def write_once(self, text: str) -> str:
        internal_kv._internal_kv_put(_key_of_job(self.name), text.encode(), overwrite=False)
        return self.read() or text


def _key_of_job(name: str) -> bytes:
    return f"kosmos2/{ray.get_runtime_context().get_job_id()}/{name}".encode()


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
    from ray._private import internal_api, state

    worker: Any = ray._private.worker.global_worker
    stats = internal_api.get_memory_info_reply(state.state).store_stats
    return RayObjects(
        held=len(worker.core_worker.get_all_reference_counts()),
        stored=stats.num_local_objects,
        stored_bytes=stats.object_store_bytes_used,
        spilled_bytes=stats.spilled_bytes_total,
    )


# Ray Data

_WITHOUT_DEFAULT = (
    "fn_args",
    "fn_kwargs",
    "fn_constructor_kwargs",
    "memory",
    "concurrency",
    "ray_remote_args_fn",
)


def in_blocks(rows: pa.Table, size: int) -> Dataset:
    """Make a dataset with `size` rows per block.

    Replacement, used before Ray 2.56: `repartition`, which is slower. Here the task that splits
    needs no CPU of the readers, and does not wait for the driver after every other block. Starting
    with that many blocks is slow too.
    """
    together = ray.data.from_arrow(rows)
    if not hasattr(Dataset, "_from_parent"):
        return together.repartition(target_num_rows_per_block=size)
    from ray.data._internal.logical.interfaces import LogicalPlan
    from ray.data._internal.logical.operators import StreamingRepartition

    cut = StreamingRepartition(
        target_num_rows_per_block=size,
        input_dependencies=[together._logical_plan.dag],
        ray_remote_args={"num_cpus": 0, "_generator_backpressure_num_objects": -1},
    )
    return Dataset._from_parent(together, LogicalPlan(cut, together.context))


def map_whole_blocks(
    dataset: Dataset, actor: type, *, pool: Mapping[str, Any], calls: int, **options: Any
) -> Dataset:
    """Map a pool of actors over whole blocks, `calls` of them at a time for each actor.

    Args:
        dataset: Blocks of any number of rows.
        actor: A class whose instances are called with a table.
        pool: Arguments of `ActorPoolStrategy`.
        calls: Blocks that an actor processes concurrently, in threads.
        options: Further arguments of `map_batches`.

    Replacement: `map_batches(batch_size=None)`, which requires batches of a fixed size with GPUs;
    our blocks are tables.
    """
    pool = {**pool, "enable_true_multi_threading": True}
    if "max_concurrent_calls_per_actor" in inspect.signature(ActorPoolStrategy).parameters:
        pool["max_concurrent_calls_per_actor"] = calls
    else:  # before Ray 2.59
        options["max_concurrency"] = calls
    options |= {
        "compute": ActorPoolStrategy(**pool),
        "batch_size": None,
        "batch_format": "pyarrow",
        "zero_copy_batch": True,
        "udf_modifying_row_count": True,
    }
    if hasattr(dataset, "map_batches_internal"):
        mapped: Dataset = dataset.map_batches_internal(actor, **options)
        return mapped
    # Before Ray 2.58 it had another name, and needed all of its arguments.
    former: Any = dataset
    mapped = former._map_batches_without_batch_size_validation(
        actor, **dict.fromkeys(_WITHOUT_DEFAULT), **options
    )
    return mapped


def block_refs(dataset: Dataset) -> "Iterator[ray.ObjectRef[pa.Table]]":
    """Run a dataset, and yield references to its blocks in the order they become ready.

    Replacement: `iter_batches(batch_size=None)`, which yields the blocks themselves.
    """
    for bundle in dataset.iter_internal_ref_bundles():
        yield from bundle.block_refs


def resize_running(*, most_actors: int, limits: ray.data.ExecutionResources) -> None:
    """Change the largest pool of actors, and the limits, of the datasets that this process runs.

    The pool then grows as any pool does: with its backlog and the free resources. Replacement:
    none; the next dataset has the new size.
    """
    from ray.data._internal.execution.streaming_executor import StreamingExecutor

    running = [each for each in threading.enumerate() if isinstance(each, StreamingExecutor)]
    for executor in running:
        executor._options.resource_limits = limits
        for operator in executor._topology or ():
            for pool in operator.get_autoscaling_actor_pools():
                _set_most(pool, most_actors)


def _set_most(pool: Any, actors: int) -> None:
    if hasattr(pool, "_config"):
        pool._config = dataclasses.replace(pool._config, max_size=actors)
    else:  # before Ray 2.55
        pool._max_size = actors


@contextmanager
def without_announcements() -> Iterator[None]:
    """Ignore warnings of what a later version of Ray will change.

    `max_retries` and similar options reach Ray as `ray_remote_args`, which is deprecated from 2.60
    on and has no successor yet. Before 2.59, Ray announces at its start that it will no longer hide
    GPUs from actors that reserve none; ours load their model on the CPU then.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`ray_remote_args` is deprecated")
        warnings.filterwarnings("ignore", message="Tip: In future versions of Ray")
        yield


def keep_no_block_stats() -> None:
    """Stop Ray from keeping statistics of every block, in this process, permanently.

    Nothing uses them, and for 100,000 shards a driver would hold gigabytes (ray-project/ray#66016).
    Replacement: none; the driver needs that memory.
    """
    from ray.data._internal.execution.operators import map_operator

    map_operator.to_stats = _no_stats  # type: ignore[assignment, attr-defined]


def _no_stats(blocks: object) -> list[object]:
    return []
