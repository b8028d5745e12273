"""A real Ray cluster for end-to-end tests, and the `kosmos2` command run on it."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import uuid4

import psutil
import pytest

from pipeline.faults import FILE_VARIABLE
from pipeline.storage import s3
from tests.support.autoscaling import NodeGroup
from tests.support.locally import LocalCommand
from tests.support.patience import end_of, patient
from tests.support.s3 import free_ports

Node = subprocess.Popen[bytes]  # Ray's processes of a node are its children


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeKind:
    """What a node says that it has; no GPU has to be there."""

    cpus: int
    gpus: int = 0
    labels: tuple[str, ...] = ()  # KEY=VALUE


_BIN = Path(sys.executable).parent
_ROOT = Path(__file__).parents[2]
_START_TIMEOUT_S = 180
_OBJECT_STORE_BYTES = 1 << 30
_commands: list[subprocess.Popen[str]] = []  # started by the test that runs


@dataclass(frozen=True, slots=True, kw_only=True)
class Kosmos2:
    """Runs the command as a user would, on the cluster of `environment`.

    All processes of the cluster that start after a command does have its faults.
    """

    environment: Mapping[str, str]
    metrics_url: str = ""  # of the head
    faults: str = ""
    folder: Path | None = None  # that it is started in
    program: tuple[str, ...] = (str(_BIN / "kosmos2"),)

    @property
    def light(self) -> "Kosmos2":
        """For what does not depend on the answers: an actor starts in a third of the time."""
        return replace(self, folder=_ROOT, program=(sys.executable, "-m", "tests.support.light"))

    def with_faults(self, faults: str) -> "Kosmos2":
        return replace(self, faults=faults)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        Path(self.environment[FILE_VARIABLE]).write_text(self.faults)
        process = subprocess.Popen(
            [*self.program, *arguments],
            env=dict(self.environment),
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        _commands.append(process)
        return process

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        process = self.start(*arguments)
        out, err = end_of(process)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def run_here(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run in this process a command that needs the store and no Ray: `run` takes seconds."""
        s3._file_system.cache_clear()  # a client keeps the endpoint that it was made with
        try:
            with pytest.MonkeyPatch.context() as patch:
                for name, value in self.environment.items():
                    if name.startswith("AWS_"):
                        patch.setenv(name, value)
                return LocalCommand().run(*arguments)
        finally:
            s3._file_system.cache_clear()


def end_commands() -> None:
    """End the commands that a test started. A live one would take the CPUs of the next test."""
    while _commands:
        with _commands.pop() as process:
            if process.poll() is None:
                process.kill()
                _, err = process.communicate()
                print(f"{process.args} was still running:\n{err}")


@contextmanager
def running_cluster(
    environment: Mapping[str, str],
    *,
    cpus: int = 3,
    gpus: int = 0,
    has_job_server: bool = False,
    group: NodeGroup | None = None,
) -> Iterator[Kosmos2]:
    """One node on loopback, whose workers get `environment`; ended with all its processes.

    No GPU has to be there. With a `group`, Ray's autoscaler adds nodes of it.
    """
    # Ray's sockets lie in its temporary directory, and their paths must stay short.
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as folder:
        env = {
            **os.environ,
            **environment,
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_TMPDIR": folder,
            "RAY_raylet_start_wait_time_s": f"{patient(_START_TIMEOUT_S):.0f}",
            "RAY_prestart_worker_first_driver": "0",  # workers that a run with faults cannot use
            FILE_VARIABLE: f"{folder}/faults",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": uuid4().hex,
            "PATH": f"{_BIN}{os.pathsep}{os.environ['PATH']}",  # jobs run `python`
        }
        Path(env[FILE_VARIABLE]).touch()
        ports = free_ports(4)
        command = [
            *(str(_BIN / "ray"), "start", "--head", "--block"),
            f"--include-dashboard={str(has_job_server).lower()}",
            "--include-log-monitor=false",  # drivers do not ask for the logs of workers
            *([] if group else ["--no-monitor"]),  # it is the autoscaler
            f"--dashboard-port={ports[3]}",
            f"--num-cpus={cpus}",
            f"--num-gpus={gpus}",
            "--labels=pool=any",
            f"--object-store-memory={_OBJECT_STORE_BYTES}",
            f"--temp-dir={folder}",
            f"--port={ports[0]}",
            f"--dashboard-agent-listen-port={ports[1]}",
            f"--metrics-export-port={ports[2]}",
        ]
        if group is not None:
            config = Path(folder) / "autoscaling.json"
            config.write_text(json.dumps(group.config(f"127.0.0.1:{ports[0]}", cpus)))
            command.append(f"--autoscaling-config={config}")
        head = _started(command, {**env, **(group.environment if group else {})})
        try:
            addresses = {"RAY_ADDRESS": f"127.0.0.1:{ports[0]}"}
            if has_job_server:
                addresses["RAY_API_SERVER_ADDRESS"] = f"http://127.0.0.1:{ports[3]}"
            metrics_url = f"http://127.0.0.1:{ports[2]}"
            yield Kosmos2(environment={**env, **addresses}, metrics_url=metrics_url)
        finally:
            end_node(head)


def join_node(kosmos2: Kosmos2, kind: NodeKind) -> Node:
    """One more node of that cluster, on this machine."""
    sizes = (kind.cpus, kind.gpus, _OBJECT_STORE_BYTES)
    arguments = [kosmos2.environment["RAY_ADDRESS"], *map(str, sizes), *kind.labels]
    return _started([sys.executable, "-m", "tests.support.node", *arguments], kosmos2.environment)


def end_node(node: Node) -> None:
    """Kill -9 of all its processes, at once: Ray's own farewell takes 15 s."""
    with suppress(psutil.NoSuchProcess):
        for process in [*psutil.Process(node.pid).children(recursive=True), node]:
            with suppress(psutil.NoSuchProcess):
                process.kill()
    node.wait()


def _started(command: list[str], environment: Mapping[str, str]) -> Node:
    log = Path(environment["RAY_TMPDIR"]) / f"node-{uuid4().hex[:8]}.log"
    with log.open("wb") as out:
        node = subprocess.Popen(command, env=dict(environment), stdout=out, stderr=out, cwd=_ROOT)
    _wait_until_ready(node, log)
    return node


def ray_workers(kosmos2: Kosmos2, name: str) -> list[psutil.Process]:
    """Ray's worker processes of that cluster whose title holds `name`."""
    folder = kosmos2.environment["RAY_TMPDIR"]
    return [
        process
        for process in psutil.process_iter()
        if _is_worker(process, name) and _environment(process).get("RAY_TMPDIR") == folder
    ]


def workers_on(kosmos2: Kosmos2, node: Node, name: str) -> list[psutil.Process]:
    """Return those of `ray_workers` that are on one node."""
    family = set(psutil.Process(node.pid).children(recursive=True))
    return [worker for worker in ray_workers(kosmos2, name) if worker in family]


def _is_worker(process: psutil.Process, name: str) -> bool:
    try:
        title = " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
        return False
    return title.startswith("ray::") and name in title


def _environment(process: psutil.Process) -> dict[str, str]:
    try:
        return process.environ()
    except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
        return {}


def _wait_until_ready(head: Node, log: Path) -> None:
    deadline = time.monotonic() + patient(_START_TIMEOUT_S)
    while time.monotonic() < deadline and head.poll() is None:
        if "Ray runtime started" in log.read_text(errors="replace"):
            return
        time.sleep(0.2)
    end_node(head)
    raise RuntimeError(f"Ray does not start:\n{log.read_text(errors='replace')[-4000:]}")
