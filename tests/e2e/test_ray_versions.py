"""A job on each version of Ray that kosmos2 works with: `make test-compat`.

Each version lies in a folder that shadows the Ray of this environment; all else is as it is here.
"""

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kosmos2_core.shapes.world.shards import write_shards
from pipeline import Dataset
from pipeline.execution.ray_version import FIRST, LAST, check_own_version
from pipeline.exit_codes import ExitCode
from tests.support.cluster import Kosmos2, running_cluster
from tests.support.dataset import primary_keys
from tests.support.packages import install
from tests.support.patience import end_of, wait_for

ROOT = Path(__file__).parents[2]
SHARDS, IMAGES = 12, 4
TWO = ("--actors", "2", "--drivers", "2")
VERSIONS = [f"{FIRST[0]}.{minor}" for minor in range(FIRST[1], LAST[1] + 1)]


def test_the_range_is_that_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    [ray] = [each for each in project["dependencies"] if each.startswith("ray")]
    assert ray == f"ray[data,default]>={VERSIONS[0]},<{LAST[0]}.{LAST[1] + 1}"
    check_own_version()


@contextmanager
def cluster_of(version: str, folder: Path) -> Iterator[Kosmos2]:
    """A cluster of that version, and the command with the same."""
    install(folder / "ray", "--no-deps", f"ray=={version}.*")
    environment = {
        "PYTHONPATH": os.pathsep.join([str(folder / "ray"), str(ROOT)]),
        # on a busy machine
        "RAY_DASHBOARD_STARTUP_TIMEOUT_S": "180",
        "RAY_DASHBOARD_SUBPROCESS_MODULE_WAIT_READY_TIMEOUT": "180",
    }
    with running_cluster(environment, has_job_server=True) as command:
        found = subprocess.run(
            [sys.executable, "-c", "import ray; print(ray.__version__)"],
            check=True,
            capture_output=True,
            text=True,
            env=dict(command.environment),
        )
        assert re.fullmatch(rf"{re.escape(version)}\.\d+", found.stdout.strip())
        yield command.with_faults(f"reader.block:6=pause@{folder / 'held'}")


def committed(output: Path) -> int:
    return len(list((output / "annotations").glob("*.parquet")))


def assert_complete(output: Path) -> None:
    """Every image has one row, and Ray told of the actors that made them."""
    rows = pa.concat_tables(map(pq.read_table, (output / "annotations").glob("*.parquet")))
    assert set(primary_keys(rows).values()) == {1}
    assert len(rows) == SHARDS * IMAGES
    costs = Dataset.open(str(output)).status().costs
    assert costs is not None
    assert costs.time is not None
    assert costs.time.held_s > 0


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("version", VERSIONS)
def test_jobs_are_annotated_killed_resumed_submitted_and_stopped(
    version: str, tmp_path: Path
) -> None:
    """Also with two drivers."""
    images, held = tmp_path / "in", tmp_path / "held"
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    write_shards(images, shards=SHARDS, images=IMAGES, seed=1)
    with cluster_of(version, tmp_path) as kosmos2:
        killed = kosmos2.start("annotate", str(images), str(first))
        wait_for(lambda: killed.poll() is not None or committed(first) > 0)
        killed.kill()
        said = killed.communicate()[1]
        assert 0 < committed(first) < SHARDS, said
        held.write_text("go on")
        resumed = kosmos2.run("annotate", str(images), str(first))
        assert resumed.returncode == 0, resumed.stderr
        assert "Warning" not in said + resumed.stderr
        assert_complete(first)

        with_two = kosmos2.run("annotate", str(images), str(third), *TWO)
        assert with_two.returncode == 0, with_two.stderr
        assert "drivers: 2, each with actors: 1" in with_two.stderr
        assert_complete(third)

        held.unlink()
        submitted = kosmos2.start("submit", str(images), str(second))
        wait_for(lambda: submitted.poll() is not None or committed(second) > 0)
        stopped = kosmos2.run("stop", str(second), "--wait")
        out, err = end_of(submitted)
        assert stopped.returncode == 0, stopped.stderr + out + err
        assert submitted.returncode == ExitCode.STOPPED, out + err
        assert committed(second) < SHARDS
        held.write_text("go on")
        again = kosmos2.run("submit", str(images), str(second), *TWO)
        assert again.returncode == 0, again.stdout + again.stderr
        assert "drivers: 2, each with actors: 1" in again.stdout
        assert_complete(second)
