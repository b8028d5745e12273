"""The Ray cluster of a run: an existing one, or a local one that is started."""

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
from pipeline.execution.ray_private import (
    job_config,
    job_server_version,
    session_logs,
    without_announcements,
)
from pipeline.execution.ray_version import check_own_version, mismatch, unlike
from pipeline.faults import VARIABLE, fault
from pipeline.version import checkout

_ADDRESSES_OF_RAY = ("auto", "local")  # words that Ray accepts in place of host:port
_TOKENS = {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"}
_REACH_S = 10.0
_JOB_SERVER_PORT = 8265
_CORE_LINE = b"Set ray log level from environment variable"
_SAID = 300  # number of characters of Ray's message to show
# What a killed driver has asked for is kept from the next one until its request expires, and a
# driver repeats its own so often. Ray Data reads this when a pass starts: 180 and 10 otherwise.
_RESERVED_S = {
    "RAY_DATA_AUTOSCALING_REQUEST_EXPIRE_TIME_S": "15",
    "RAY_DATA_MIN_GAP_BETWEEN_AUTOSCALING_REQUESTS": "3",
}
_LOOK_S = 30.0  # a node that does not answer by then is not judged


def connect(num_cpus: int | None = None) -> None:
    """Connect to the cluster of `RAY_ADDRESS`, or start a local one for this machine only.

    Args:
        num_cpus: CPUs of a local cluster; this machine's by default.

    Raises:
        SpecError: The cluster cannot be reached, its workers cannot import this package, Ray
            cannot start, or its version is not one that kosmos2 works with.
    """
    check_own_version()
    for name, seconds in _RESERVED_S.items():
        os.environ.setdefault(name, seconds)
    if not ray.is_initialized():
        address = os.environ.get("RAY_ADDRESS") or None
        if address is not None:
            _check_address(address)
        _connect(address, num_cpus)
        if address is not None:
            _check_workers(address)
    # Ray Data prints whole tracebacks of errors that the driver handles; its own log file has them.
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)


def _connect(address: str | None, num_cpus: int | None) -> None:
    faults = {name: text for name, text in os.environ.items() if name == VARIABLE}
    on_stop = signal.getsignal(signal.SIGTERM)
    # Otherwise Ray's core writes its errors between and after our log lines.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    if address is None and not _TOKENS & os.environ.keys():
        # Without a token, Ray would write one for a local cluster to the home directory.
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    try:
        with _core_unheard(), without_announcements():
            ray.init(
                job_config=job_config(checkout()),
                runtime_env={"env_vars": faults} if faults else None,
                # A reader and an actor need a CPU each, even on a machine that has one.
                num_cpus=None if address else num_cpus or max(os.cpu_count() or 1, 2),
                include_dashboard=None if address else False,
                logging_level=logging.ERROR,
                log_to_driver=False,
            )
    except SystemExit:  # SIGTERM, while Ray's handler replaced this one
        signal.signal(signal.SIGTERM, on_stop)
        signal.raise_signal(signal.SIGTERM)
        raise
    except Exception as error:
        # Ray raises errors of any class while it starts: OSError, RuntimeError, ...
        raise _not_connected(address, error) from error
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_stop)


@contextmanager
def _core_unheard() -> Iterator[None]:
    """Drop a line that Ray's core writes to the standard error at every start.

    Other output is written afterwards.
    """
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
            with suppress(OSError):  # its reader has ended
                os.write(2, b"".join(line for line in said if _CORE_LINE not in line))


def _check_address(address: str) -> None:
    """Raise SpecError if there can be no cluster. Ray itself would try for ten minutes."""
    if address in _ADDRESSES_OF_RAY:
        return
    scheme, separator, _ = address.partition("://")
    if separator:
        raise SpecError(
            f"RAY_ADDRESS begins with {scheme}://, but a run connects to the cluster itself; set "
            "it to HOST:PORT, as `ray start` prints it; a job server at http:// takes jobs from "
            "`kosmos2 submit`"
        )
    try:
        parts = urlsplit(f"//{address}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if host is None or port is None:
        raise SpecError(f"RAY_ADDRESS is {address}, which is not HOST:PORT; correct or unset it")
    try:
        socket.create_connection((host, port), _REACH_S).close()
    except OSError as error:
        raise SpecError(
            f"no Ray cluster answers at {address} ({error.strerror or error}); start it, correct "
            "RAY_ADDRESS, or unset it to run on this machine only"
        ) from error


def _not_connected(address: str | None, error: Exception) -> SpecError:
    said = " ".join(str(error).split())[:_SAID] or type(error).__name__
    if address is not None:
        return (
            mismatch(said, address)
            or _another_version(address)
            or SpecError(
                f"could not connect to the Ray cluster at {address} ({said}); check RAY_ADDRESS; "
                f"the cluster needs Ray {ray.__version__}, as here, and the same Python; for token "
                "authentication set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN"
            )
        )
    if isinstance(error, OSError) and not isinstance(error, TimeoutError):
        remedy = (
            "its sockets and logs need a folder with a short path, free space and write "
            "permission; name one with RAY_TMPDIR, as in RAY_TMPDIR=/tmp"
        )
    else:
        remedy = (
            "it may lack memory, open files (`ulimit -n`) or processes (`ulimit -u`); its logs are "
            f"in {session_logs()}"
        )
    return SpecError(f"Ray could not start on this machine ({said}); {remedy}")


def _another_version(address: str) -> SpecError | None:
    """Return an error if the job server of a cluster, at Ray's own port, tells another version.

    A client that is much older than the cluster cannot ask the cluster itself.
    """
    host = urlsplit(f"//{address}").hostname
    try:
        socket.create_connection((host, _JOB_SERVER_PORT), _REACH_S / 5).close()
    except OSError:
        return None
    there = job_server_version(f"http://{host}:{_JOB_SERVER_PORT}")
    return unlike(there, address) if there and there != ray.__version__ else None


def _check_workers(address: str) -> None:
    """Raise SpecError if a worker of the cluster cannot import our packages, or finds others."""

    def imported() -> str | None:  # Ray ships a local function as it is and need not import it
        import importlib

        try:
            importlib.import_module("pipeline.execution.annotate.actor")
        except BaseException as error:  # noqa: BLE001 - a script on the path may even exit
            return f"{type(error).__name__}: {error}"
        return None

    look = ray.remote(imported).options(num_cpus=0).remote()
    try:
        problem = ray.get(look, timeout=_LOOK_S)
    except ray.exceptions.RayError:
        return  # the job itself will meet and report it
    if problem is not None:
        raise SpecError(
            f"workers of the Ray cluster at {address} cannot import kosmos2 ({problem[:_SAID]}); "
            "install this version on all nodes, and start them without a PYTHONPATH that leads to "
            "another `pipeline`; or use `kosmos2 submit`, which ships it"
        )


def nodes_without(path: str) -> list[str]:
    """Return the nodes that run readers but cannot see a local path; none for a single node."""
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
        return True  # the node went away, so its answer no longer matters


def _sees(path: str, node: str) -> bool:
    try:
        fault("cluster.look", node=node)
        return os.path.exists(path)
    except OSError:
        return False
