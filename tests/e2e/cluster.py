"""A real Ray cluster for end-to-end tests, and the `kosmos2` command run on it."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import psutil

from tests.s3 import free_ports

_BIN = Path(sys.executable).parent
START_TIMEOUT_S = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Kosmos2:
    """Runs the command as a user would, on the cluster of `environment`."""

    environment: Mapping[str, str]

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(_BIN / "kosmos2"), *arguments],
            env=dict(self.environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, timeout_s: float = 240) -> subprocess.CompletedProcess[str]:
        process = self.start(*arguments)
        out, err = process.communicate(timeout=timeout_s)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)


@contextmanager
def running_cluster(environment: Mapping[str, str], *, cpus: int = 3) -> Iterator[Kosmos2]:
    """One node on loopback, whose workers get `environment`; ended with all its processes."""
    ports = free_ports(3)
    # Ray's sockets lie in its temporary directory, and their paths must stay short.
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as folder:
        env = {
            **os.environ,
            **environment,
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_TMPDIR": folder,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": uuid4().hex,
        }
        command = [
            str(_BIN / "ray"),
            "start",
            "--head",
            "--block",
            "--include-dashboard=false",
            f"--num-cpus={cpus}",
            f"--object-store-memory={1 << 30}",
            f"--temp-dir={folder}",
            f"--port={ports[0]}",
            f"--dashboard-agent-listen-port={ports[1]}",
            f"--metrics-export-port={ports[2]}",
        ]
        with (Path(folder) / "log").open("wb") as log:
            head = subprocess.Popen(command, env=env, stdout=log, stderr=log)
        try:
            _wait_until_ready(head, Path(folder) / "log")
            yield Kosmos2(environment={**env, "RAY_ADDRESS": f"127.0.0.1:{ports[0]}"})
        finally:
            _end(head)


def wait_for(condition: Callable[[], bool], *, timeout_s: float = 120) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"did not happen within {timeout_s} s"
        time.sleep(0.2)


def ray_workers(kosmos2: Kosmos2, name: str) -> list[psutil.Process]:
    """Ray's worker processes of that cluster whose title holds `name`."""
    folder = kosmos2.environment["RAY_TMPDIR"]
    return [
        process
        for process in psutil.process_iter()
        if _is_worker(process, name) and _environment(process).get("RAY_TMPDIR") == folder
    ]


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


def _wait_until_ready(head: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and head.poll() is None:
        if "Ray runtime started" in log.read_text(errors="replace"):
            return
        time.sleep(0.2)
    raise RuntimeError(f"Ray does not start:\n{log.read_text(errors='replace')[-4000:]}")


def _end(head: subprocess.Popen[bytes]) -> None:
    """At once: Ray's own farewell takes 15 s, and nothing of it is kept."""
    family = psutil.Process(head.pid).children(recursive=True) if head.poll() is None else []
    for process in [head, *family]:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    head.wait()
