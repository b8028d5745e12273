"""The Ray cluster that a run works on: an existing one, or one of its own on this machine."""

import logging
import os
import secrets
import signal
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import ray
from ray._private import internal_api, state
from ray.experimental import internal_kv
from ray.job_config import JobConfig
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline.errors import SpecError
from pipeline.faults import VARIABLE, fault
from pipeline.spec.job import JobSpec
from pipeline.version import checkout

_ACCELERATOR = "accelerator_type:"  # as Ray begins the names of such resources
_ADDRESSES_OF_RAY = ("auto", "local")  # words, in place of host:port
_TOKENS = {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"}
_REACH_S = 10.0
_SAID = 300  # characters of what Ray says
_LOOK_S = 30.0  # a node that does not answer by then is not judged


@dataclass(frozen=True, slots=True, kw_only=True)
class ActorResources:
    """Of each actor. `options` are Ray's names for them."""

    num_cpus: float
    num_gpus: float
    accelerator_type: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def options(self) -> dict[str, Any]:
        return {
            "num_cpus": self.num_cpus,
            "num_gpus": self.num_gpus,
            "accelerator_type": self.accelerator_type,
            "label_selector": dict(self.labels) or None,
        }

    def __str__(self) -> str:
        return ", ".join(
            [
                f"{self.num_cpus:g} CPU",
                *([f"{self.num_gpus:g} GPU"] if self.num_gpus else []),
                *([self.accelerator_type] if self.accelerator_type else []),
                *(f"{key}={value}" for key, value in self.labels.items()),
            ]
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What a cluster has, what of it is free, and how many actors of a class work for this job.

    `starting` have their place, and are not through with their constructor.
    """

    cpus: float
    free_cpus: float
    gpus: float
    free_gpus: float
    actors: int
    starting: int = 0


def connect(num_cpus: int | None = None) -> None:
    """Connect to the cluster of `RAY_ADDRESS`, or start a local one that only this machine reaches.

    Args:
        num_cpus: CPUs that a local cluster counts with; this machine's by default.

    Raises:
        SpecError: if the cluster cannot be reached, its workers do not find our packages, or Ray
            does not start.
    """
    if not ray.is_initialized():
        address = os.environ.get("RAY_ADDRESS") or None
        if address is not None:
            _check_address(address)
        _connect(address, num_cpus)
        if address is not None:
            _check_workers(address)
    # It prints whole tracebacks of what the runner handles; its own log file keeps them.
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)


def _connect(address: str | None, num_cpus: int | None) -> None:
    faults = {name: text for name, text in os.environ.items() if name == VARIABLE}
    on_stop = signal.getsignal(signal.SIGTERM)
    # Otherwise Ray's core puts errors of its own between our lines, and behind the last one.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    if address is None and not _TOKENS & os.environ.keys():
        # Ray would write the token of a local cluster to the home directory, if there is one.
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    try:
        ray.init(
            job_config=_job_config(),
            runtime_env={"env_vars": faults} if faults else None,
            # A reader and an actor need a CPU each, also on a machine that has one.
            num_cpus=None if address else num_cpus or max(os.cpu_count() or 1, 2),
            include_dashboard=None if address else False,
            logging_level=logging.ERROR,
            log_to_driver=False,
        )
    except SystemExit:  # SIGTERM, while Ray's own handler stood in the place of ours
        signal.signal(signal.SIGTERM, on_stop)
        signal.raise_signal(signal.SIGTERM)
        raise
    except Exception as error:
        # Ray lets everything through that goes wrong while it starts: OSError, RuntimeError, ...
        raise _not_connected(address, error) from error
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_stop)


def _check_address(address: str) -> None:
    """Raise SpecError if no cluster can be there: Ray itself would try it for ten minutes."""
    if address in _ADDRESSES_OF_RAY:
        return
    scheme, separator, _ = address.partition("://")
    if separator:
        raise SpecError(
            f"RAY_ADDRESS begins with {scheme}://, but a run connects to the cluster itself: set "
            "it to HOST:PORT, as `ray start` prints it; a job server at http:// takes jobs from "
            "`kosmos2 submit`"
        )
    try:
        parts = urlsplit(f"//{address}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if host is None or port is None:
        raise SpecError(f"RAY_ADDRESS is {address}, which is not HOST:PORT: correct or unset it")
    try:
        socket.create_connection((host, port), _REACH_S).close()
    except OSError as error:
        raise SpecError(
            f"no Ray cluster answers at {address} ({error.strerror or error}): start it, correct "
            "RAY_ADDRESS, or unset it to run on this machine alone"
        ) from error


def _not_connected(address: str | None, error: Exception) -> SpecError:
    said = " ".join(str(error).split())[:_SAID] or type(error).__name__
    if address is not None:
        return SpecError(
            f"could not connect to the Ray cluster at {address} ({said}): check RAY_ADDRESS, that "
            "the cluster has the same versions of Ray and Python, and, for token authentication, "
            "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN"
        )
    if isinstance(error, OSError) and not isinstance(error, TimeoutError):
        remedy = (
            "its sockets and logs need a folder with a short path, room, and permission to write "
            "there; name one with RAY_TMPDIR, as in RAY_TMPDIR=/tmp"
        )
    else:
        remedy = (
            "it may lack memory, open files (`ulimit -n`) or processes (`ulimit -u`); its logs are "
            f"in {ray._common.utils.get_default_ray_temp_dir()}/session_latest/logs"
        )
    return SpecError(f"Ray does not start on this machine ({said}): {remedy}")


def _check_workers(address: str) -> None:
    """Raise SpecError if a worker of the cluster does not find our packages, or finds others."""

    def imported() -> str | None:  # Ray sends a local function as it is, and need not import it
        import importlib

        try:
            importlib.import_module("pipeline.execution.annotate_actor")
        except BaseException as error:  # noqa: BLE001 - a script of the user's may even exit
            return f"{type(error).__name__}: {error}"
        return None

    look = ray.remote(imported).options(num_cpus=0).remote()
    try:
        problem = ray.get(look, timeout=_LOOK_S)
    except ray.exceptions.RayError:
        return  # whatever it is, the job itself meets it, and says it
    if problem is not None:
        raise SpecError(
            f"workers of the Ray cluster at {address} do not import kosmos2 ({problem[:_SAID]}): "
            "install it on all nodes in this version, and start them with no PYTHONPATH that leads "
            "to another `pipeline`; or use `kosmos2 submit`, which ships it"
        )


def _job_config() -> JobConfig:
    """Make workers import what this process imports.

    Ray would put the working directory of this process before everything else on the workers'
    search path: a `pipeline.py` or a `types.py` there would replace our module, or Python's. It
    does not do so for a job whose code is elsewhere than its working directory, which is what
    `_client_job` says. Our own folder takes that place if this is a checkout; an installed
    package is where workers find all others.
    """
    root = checkout()
    return JobConfig(_client_job=True, _py_driver_sys_path=[str(root)] if root else None)


def actor_resources(spec: JobSpec) -> ActorResources:
    """GPUs for each actor where the job wants CUDA and the cluster has it, else CPUs.

    Raises SpecError where the actors and one reader do not fit; of a pool that grows, the least.
    """
    total, actors = ray.cluster_resources(), spec.least_actors
    cpus, gpus = total.get("CPU", 0), total.get("GPU", 0)
    has_gpus = gpus >= actors * (spec.gpus_per_actor or 1)
    if not has_gpus and (spec.device.startswith("cuda") or spec.gpus_per_actor):
        raise SpecError(
            f"{actors} actors of {spec.gpus_per_actor or 1:g} GPUs asked for, the cluster has "
            f"{gpus:g}; use fewer --actors or --device cpu without --gpus-per-actor"
        )
    if cpus < actors + 1:
        raise SpecError(
            f"{actors} actors and one reader need {actors + 1} CPUs, the cluster has "
            f"{cpus:g}; use fewer --actors"
        )
    _check_accelerator(spec.accelerator_type, total)
    is_on_gpu = has_gpus and spec.device != "cpu"
    return ActorResources(
        num_cpus=1 if is_on_gpu else _cpus_per_actor(spec.most_actors),
        num_gpus=(spec.gpus_per_actor or 1) if is_on_gpu else 0,
        accelerator_type=spec.accelerator_type,
        labels=spec.actor_labels,
    )


def _check_accelerator(name: str | None, total: Mapping[str, float]) -> None:
    there = [each.removeprefix(_ACCELERATOR) for each in total if each.startswith(_ACCELERATOR)]
    if name is not None and name not in there:
        raise SpecError(
            f"no node has the accelerator {name}; there are: {', '.join(there) or 'none'}"
        )


def _cpus_per_actor(actors: int) -> int:
    """On one node all CPUs but a reader's are shared out; on several, one each is sure to fit."""
    nodes = [node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]]
    return max(int(nodes[0] - 1) // actors, 1) if len(nodes) == 1 else 1


def load(actor_class: str) -> Load:
    total, free = ray.cluster_resources(), ray.available_resources()
    actors = _actors(actor_class)
    return Load(
        cpus=total.get("CPU", 0),
        free_cpus=free.get("CPU", 0),
        gpus=total.get("GPU", 0),
        free_gpus=free.get("GPU", 0),
        actors=sum(actor["State"] == "ALIVE" for actor in actors),
        starting=sum(_is_starting(actor) for actor in actors),
    )


def end_actor(actor_class: str) -> None:
    """One that has its place, the one that was started again most often: for good. Whatever it has
    in work fails."""
    placed = [a for a in _actors(actor_class) if a["State"] == "ALIVE" or _is_starting(a)]
    if placed:
        chosen = max(placed, key=lambda actor: int(actor["NumRestarts"]))
        worker: Any = ray._private.worker.global_worker  # only it knows actors by their id
        worker.core_worker.kill_actor(ray.ActorID.from_hex(chosen["ActorID"]), True)


def _actors(actor_class: str) -> list[dict[str, Any]]:
    """This job's. Ray's public way to ask for them needs the dashboard, which need not run."""
    found = state.actors(job_id=ray.JobID.from_hex(ray.get_runtime_context().get_job_id()))
    return [actor for actor in found.values() if actor_class in actor["ActorClassName"]]


def _is_starting(actor: Mapping[str, Any]) -> bool:
    """One that waits for its place has no port yet."""
    return actor["State"] == "PENDING_CREATION" and bool(actor["Address"]["Port"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Objects:
    """Ray's objects: those that this process refers to, and what the whole cluster stores."""

    held: int
    stored: int
    stored_bytes: int
    spilled_bytes: int  # since the cluster's start


def objects() -> Objects:
    worker: Any = ray._private.worker.global_worker
    stats = internal_api.get_memory_info_reply(state.state).store_stats
    return Objects(
        held=len(worker.core_worker.get_all_reference_counts()),
        stored=stats.num_local_objects,
        stored_bytes=stats.object_store_bytes_used,
        spilled_bytes=stats.spilled_bytes_total,
    )


class ClusterMarks:
    """Marks of the job that this process works for, kept by the cluster's head; outside of Ray
    there are none."""

    def has(self, name: str) -> bool:
        return ray.is_initialized() and bool(internal_kv._internal_kv_exists(self._key(name)))

    def add(self, name: str) -> None:
        internal_kv._internal_kv_put(self._key(name), b"")

    def remove(self, name: str) -> None:
        internal_kv._internal_kv_del(self._key(name))

    def _key(self, name: str) -> bytes:
        return f"kosmos2/{ray.get_runtime_context().get_job_id()}/{name}".encode()


def nodes_without(path: str) -> list[str]:
    """Nodes that would run readers but do not see that local path; none if there is only one."""
    alive = (node for node in ray.nodes() if node["Alive"])
    nodes = [node["NodeID"] for node in alive if node["Resources"].get("CPU")]
    if len(nodes) <= 1:
        return []
    looks = {
        ray.remote(_sees)
        .options(num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False))
        .remote(path, node): node
        for node in nodes
    }
    answers, _ = ray.wait(list(looks), num_returns=len(looks), timeout=_LOOK_S)
    return [looks[answer] for answer in answers if not _answer(answer)]


def _answer(look: ray.ObjectRef[bool]) -> bool:
    try:
        return ray.get(look)
    except ray.exceptions.RayError:
        return True  # the node went away: what it would have seen does not matter any more


def _sees(path: str, node: str) -> bool:
    try:
        fault("cluster.look", node=node)
        return os.path.exists(path)
    except OSError:
        return False
