"""Jobs on a cluster's job server: submitted, watched, stopped, taken up again."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.naming import job_name
from tests.e2e.cluster import Kosmos2, running_cluster, wait_for
from tests.e2e.conftest import Bucket
from tests.e2e.dataset import primary_keys, read
from tests.s3 import S3Server

SECRET = "not-for-the-log-9XK2"


@pytest.fixture(scope="module")
def cluster(s3_server: S3Server) -> Iterator[Kosmos2]:
    """Its nodes know the store, as a cluster's identity does; whoever submits need not."""
    with running_cluster(s3_server.environment, has_job_server=True) as command:
        yield command


@pytest.fixture
def laptop(cluster: Kosmos2) -> Kosmos2:
    """Another machine: it reaches the job server, not Ray itself."""
    environment = {**cluster.environment, "MY_SECRET": SECRET}
    del environment["RAY_ADDRESS"]
    return Kosmos2(environment=environment)


def lines(text: str) -> list[dict[str, object]]:
    """Of a job's log; Ray puts some of its own before them."""
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def test_a_submitted_job_is_followed_to_its_end(
    cluster: Kosmos2, laptop: Kosmos2, bucket: Bucket, scenes: Path
) -> None:
    bucket.put_shards(scenes, 2)
    done = laptop.run(
        *("submit", bucket.input, bucket.output, "--wait", "--log-format", "json"),
        *("--pass-env", "MY_SECRET", "--actors", "1:2"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    log = lines(done.stdout)
    committed = [line for line in log if str(line["message"]).startswith("committed")]
    assert len({line["shard_id"] for line in committed}) == len(committed) == 2
    assert {line["job"] for line in log} == {f"{job_name(bucket.output)}-1"}
    assert log[-1]["exit_code"] == 0
    assert len(primary_keys(read(bucket))) == 400
    assert "whoever reaches the cluster can read it" in " ".join(done.stderr.split())
    assert SECRET not in done.stdout + done.stderr
    assert _garbage(done.stdout) == []
    folder = Path(cluster.environment["RAY_TMPDIR"])
    shipped = "session_latest/runtime_resources/working_dir_files/*/jobs/cli.py"
    assert list(folder.glob(shipped))  # what ran is what was here, not what is installed there


def _garbage(log: str) -> list[str]:
    """Bars: carriage returns and escapes."""
    return [line for line in log.splitlines() if "\r" in line or "\x1b" in line]


def test_a_stopped_job_is_taken_up_again(laptop: Kosmos2, bucket: Bucket, scenes: Path) -> None:
    shards = 12
    bucket.put_shards(scenes, shards)
    first = laptop.start("submit", bucket.input, bucket.output)
    wait_for(lambda: len(bucket.objects("out/annotations/")) >= 2, timeout_s=240)

    status = json.loads(laptop.run("status", bucket.output, "--json").stdout)
    assert 2 <= status["totals"]["shards"] <= len(bucket.objects("out/annotations/"))
    assert status["totals"]["shards"] + status["shards_left"] == shards
    [run] = status["running"]
    assert run["owner"]["pid"] != os.getpid()

    stopped = laptop.run("stop", bucket.output, "--wait")
    assert stopped.returncode == 0, stopped.stderr
    said, errors = first.communicate(timeout=60)
    assert first.returncode == 7, said + errors
    committed = bucket.objects("out/annotations/")
    assert len(committed) < shards
    assert bucket.objects("out/leases/") == bucket.objects("out/failed/") == {}
    assert bucket.objects("out/stop/") == {}

    again = laptop.run("submit", bucket.input, bucket.output, "--detach")
    assert again.returncode == 0, again.stderr
    assert f"submitted {job_name(bucket.output)}-2" in again.stderr
    followed = laptop.run("submit", bucket.input, bucket.output)
    assert followed.returncode == 0, followed.stdout + followed.stderr
    assert f"{job_name(bucket.output)}-2 is at work on this output already" in followed.stderr
    after = bucket.objects("out/annotations/")
    assert {key: after[key] for key in committed} == committed
    assert set(primary_keys(read(bucket)).values()) == {1}
    assert len(primary_keys(read(bucket))) == shards * 200
