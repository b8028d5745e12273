"""Nodes that Ray's autoscaler starts for a job on a cluster of two CPUs, and ends after it."""

import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.autoscaling import NodeGroup
from tests.support.cluster import Kosmos2, running_cluster
from tests.support.documents import ROOT, fenced

JOB = """
import sys
import time
from pathlib import Path

import ray

from jobs.bench.jobs import light_spec, run_whole
from jobs.bench.light.model import LightModel
from jobs.bench.light.reader import LightRead


class Seen(Exception):
    pass


def nodes():
    return sum(node["Alive"] for node in ray.nodes())


def look(progress):
    most[0] = max(most[0], len(progress.actors))
    if most[0] == 3:
        raise Seen


most, place = [0], Path(sys.argv[1])
(place / "in").mkdir()
for number in range(1000):
    (place / "in" / f"{number:04d}.tar").touch()
spec = light_spec(place / "in", place / "out", actors="1:3")
try:
    run_whole(spec, look, LightModel(image_cost_s=0.04), LightRead(images=64))
except Seen:
    print(f"seen: {nodes()} nodes, {most[0]} actors", flush=True)
while nodes() > 1:
    time.sleep(1)
print("seen: 1 node")
"""


def run(kosmos2: Kosmos2, script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a script that uses the cluster."""
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env={**kosmos2.environment, "RAY_ENABLE_AUTO_CONNECT": "0"},
        capture_output=True,
        text=True,
        check=False,
    )


def seen_by(kosmos2: Kosmos2, script: str, *arguments: str) -> list[str]:
    """Return what a script saw. Ray prints what its autoscaler does, too."""
    done = run(kosmos2, script, *arguments)
    assert done.returncode == 0, done.stderr
    return [line[6:] for line in done.stdout.splitlines() if line.startswith("seen: ")]


@pytest.mark.slow
@pytest.mark.parametrize("version", [1, 2])
def test_nodes_come_for_a_range_of_actors_and_go_after_the_job(
    version: int, tmp_path: Path
) -> None:
    """One actor and one reader fit at the start."""
    group = NodeGroup(cpus=1, most=4, idle_s=10, version=version)
    with running_cluster({}, cpus=2, group=group) as kosmos2:
        seen, left = seen_by(kosmos2, JOB, str(tmp_path))
    nodes = int(seen.removesuffix(" nodes, 3 actors"))
    assert nodes > 1
    assert left == "1 node"


KILLED = """
import os
import signal
import sys
from pathlib import Path

from jobs.bench.jobs import light_spec, run_whole
from jobs.bench.light.model import LightModel
from jobs.bench.light.reader import LightRead


class Seen(Exception):
    pass


def look(progress):
    if len(progress.actors) == 2:
        if place.name == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        raise Seen(progress.images_annotated)


place = Path(sys.argv[1])
(place / "in").mkdir(parents=True)
for number in range(1000):
    (place / "in" / f"{number:04d}.tar").touch()
spec = light_spec(place / "in", place / "out", actors="1:2")
try:
    run_whole(spec, look, LightModel(image_cost_s=0.04), LightRead(images=64))
except Seen as seen:
    print(f"seen: {seen}")
"""
A_MINUTE = 60 / 0.04  # images of one actor


@pytest.mark.slow
def test_the_next_run_soon_gets_what_a_killed_one_had(kosmos2: Kosmos2, tmp_path: Path) -> None:
    """Ray Data would keep it for three minutes for the driver that is gone."""
    killed = run(kosmos2, KILLED, str(tmp_path / "killed"))
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    [images] = seen_by(kosmos2, KILLED, str(tmp_path / "next"))
    assert int(images) < A_MINUTE


WAIT = """
import sys
import time

import ray

ray.init("auto")
while sum(node["Alive"] for node in ray.nodes()) != int(sys.argv[1]):
    time.sleep(1)
"""


@pytest.mark.slow
def test_nodes_can_be_asked_for_by_hand() -> None:
    """By the command of the document, with fewer nodes, and by the same with none."""
    text = (ROOT / "docs" / "operations.md").read_text()
    [command] = [each for each in fenced("sh", text) if "request_resources" in each]
    [_, _, script] = shlex.split(command)
    group = NodeGroup(cpus=1, gpus=1, most=2, idle_s=10, version=2)
    with running_cluster({}, cpus=1, group=group) as kosmos2:
        seen_by(kosmos2, script.replace("* 16", "* 2"))
        seen_by(kosmos2, WAIT, "3")
        seen_by(kosmos2, script.replace("* 16", "* 0"))
        seen_by(kosmos2, WAIT, "1")
