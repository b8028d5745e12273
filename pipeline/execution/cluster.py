"""The Ray cluster that a run works on: an existing one, or one of its own on this machine."""

import logging
import os
import secrets
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline.errors import SpecError
from pipeline.execution.ray_private import job_config, session_logs
from pipeline.faults import VARIABLE, fault
from pipeline.version import checkout

_ADDRESSES_OF_RAY = ("auto", "local")  # words, in place of host:port
_TOKENS = {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"}
_REACH_S = 10.0
_CORE_LINE = b"Set ray log level from environment variable"
_SAID = 300  # characters of what Ray says
_LOOK_S = 30.0  # a node that does not answer by then is not judged


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
        with _core_unheard():
            ray.init(
                job_config=job_config(checkout()),
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


@contextmanager
def _core_unheard() -> Iterator[None]:
    """Leave out a line that Ray's core writes to the standard error at every start, to say that it
    will write nothing there; whatever else comes meanwhile is written afterwards."""
    try:
        kept = os.dup(2)
    except OSError:  # it is closed
        yield
        return
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            said.seek(0)
            with suppress(OSError):  # nobody reads it any more
                os.write(2, b"".join(line for line in said if _CORE_LINE not in line))


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
            f"in {session_logs()}"
        )
    return SpecError(f"Ray does not start on this machine ({said}): {remedy}")


def _check_workers(address: str) -> None:
    """Raise SpecError if a worker of the cluster does not find our packages, or finds others."""

    def imported() -> str | None:  # Ray sends a local function as it is, and need not import it
        import importlib

        try:
            importlib.import_module("pipeline.execution.annotate.actor")
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
