"""Jobs on a cluster's job server: submitted, watched, stopped, taken up again."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from jobs.remote.naming import job_name
from kosmos2_core.shapes.world.shards import write_shards
from tests.support.bucket import Bucket
from tests.support.cluster import Kosmos2, running_cluster
from tests.support.dataset import primary_keys, read
from tests.support.deployment import METRICS_SHOWN
from tests.support.patience import end_of, wait_for
from tests.support.proxy import Proxy, running_proxy
from tests.support.s3 import S3Server

SHARDS, IMAGES = 12, 2  # a shard is one block
SECRET = "not-for-the-log-9XK2"


@pytest.fixture(scope="module")
def few_scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("few-scenes")
    write_shards(folder, shards=SHARDS, images=IMAGES, seed=20261127)
    return folder


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each reader waits at its sixth shard until somebody writes into this file.

    Not sooner: Ray gives the last two tables to the driver only when others follow.
    """
    return tmp_path_factory.mktemp("faults") / "held"


@pytest.fixture(scope="module")
def proxy(s3_server: S3Server) -> Iterator[Proxy]:
    with running_proxy(s3_server.endpoint_url) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def cluster(s3_server: S3Server, proxy: Proxy) -> Iterator[Kosmos2]:
    """Its nodes know the store, as a cluster's identity does; whoever submits need not.

    They say that they have a GPU, which actors ask for then, and CPUs for an actor and a reader.
    """
    environment = {
        **s3_server.environment,
        "AWS_ENDPOINT_URL": proxy.endpoint_url,
        "RAY_metrics_report_interval_ms": "1000",  # ten seconds otherwise
    }
    with running_cluster(environment, cpus=2, gpus=1, has_job_server=True) as command:
        yield command


@pytest.fixture(scope="module")
def laptop(cluster: Kosmos2, held: Path) -> Kosmos2:
    """Another machine: it reaches the job server, not Ray itself."""
    environment = {**cluster.environment, "MY_SECRET": SECRET}
    del environment["RAY_ADDRESS"]
    return Kosmos2(environment=environment, faults=f"reader.block:6=pause@{held}")


def lines(text: str) -> list[dict[str, object]]:
    """Of a job's log; Ray has put some of its own before them."""
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def served(cluster: Kosmos2, job: str) -> set[str]:
    """The names of what Prometheus would get of that job."""
    with urlopen(cluster.metrics_url) as page:
        lines = page.read().decode().splitlines()
    return {line.partition("{")[0] for line in lines if f'kosmos2_job="{job}"' in line}


def test_a_stopped_job_is_taken_up_again_and_followed_to_its_end(
    cluster: Kosmos2, laptop: Kosmos2, proxy: Proxy, bucket: Bucket, few_scenes: Path, held: Path
) -> None:
    bucket.put_shards(few_scenes)
    proxy.slow_downs = 1  # there is a metric of requests that are sent again
    first = laptop.start("submit", bucket.input, bucket.output)
    wait_for(lambda: held.exists() and len(bucket.objects("out/annotations/")) >= 2)

    status = json.loads(laptop.run_here("status", bucket.output, "--json").stdout)
    assert 2 <= status["totals"]["shards"] <= len(bucket.objects("out/annotations/"))
    assert status["totals"]["shards"] + status["shards_left"] == SHARDS
    [run] = status["running"]

    wait_for(lambda: served(cluster, f"{job_name(bucket.output)}-1") >= METRICS_SHOWN)

    stopped = laptop.run_here("stop", bucket.output, "--wait")
    assert stopped.returncode == 0, stopped.stderr
    assert run["owner"]["run_id"] in stopped.stderr
    said, errors = end_of(first)
    assert first.returncode == 7, said + errors
    assert said.rstrip().endswith("run the same command again to resume")  # nothing comes after it
    committed = bucket.objects("out/annotations/")
    assert len(committed) < SHARDS
    for left_over in ("leases", "failed", "stop"):
        assert bucket.objects(f"out/{left_over}/") == {}

    held.write_text("go on")
    job = (
        *("submit", bucket.input, bucket.output, "--log-format", "json"),
        *("--pass-env", "MY_SECRET", "--actors", "1:2", "--gpus-per-actor", "0.5", "--slots", "16"),
        *("--reader-label", "pool=any", "--actor-label", "pool=any"),
    )
    again = laptop.run(*job, "--detach")
    assert again.returncode == 0, again.stderr
    assert f"submitted {job_name(bucket.output)}-2" in again.stderr
    assert "everybody with access to the cluster can read it" in " ".join(again.stderr.split())
    followed = laptop.run(*job, "--wait")
    assert followed.returncode == 0, followed.stdout + followed.stderr
    assert f"{job_name(bucket.output)}-2 is already writing this output" in followed.stderr
    after = bucket.objects("out/annotations/")
    assert {key: after[key] for key in committed} == committed
    assert set(primary_keys(read(bucket)).values()) == {1}
    assert len(primary_keys(read(bucket))) == SHARDS * IMAGES
    check_log(followed.stdout, f"{job_name(bucket.output)}-2", SHARDS - len(committed))
    assert SECRET not in again.stderr + followed.stdout + followed.stderr
    check_workers(cluster, followed.stdout)


def check_log(said: str, job: str, shards: int) -> None:
    log = lines(said)
    committed = [line for line in log if str(line["message"]).startswith("committed")]
    since_connected = said.partition("each requests")[2].splitlines()[1:]
    assert all(line.startswith("{") for line in since_connected)  # nothing of Ray's
    assert len({line["shard_id"] for line in committed}) == len(committed) == shards
    assert {line["job"] for line in log} == {job}
    assert log[-1]["exit_code"] == 0
    assert any("each requests 1 CPU, 0.5 GPU, pool=any" in str(line["message"]) for line in log)
    assert not {"\r", "\x1b"} & set(said)  # of bars


def check_workers(cluster: Kosmos2, said: str) -> None:
    """They ran what is here, not what is installed there, and log as the driver does."""
    session = Path(cluster.environment["RAY_TMPDIR"]) / "session_latest"
    assert list(session.glob("runtime_resources/working_dir_files/*/jobs/cli.py"))
    log = [line for path in session.glob("logs/worker-*.err") for line in lines(path.read_text())]
    assert {line["job"] for line in log} == {line["job"] for line in lines(said)}
    read_shards = [line["shard_id"] for line in log if str(line["message"]).startswith("read ")]
    committed = [line for line in lines(said) if str(line["message"]).startswith("committed")]
    assert sorted(read_shards) == sorted(line["shard_id"] for line in committed)
    assert any(line["message"] == f"an actor is ready: {line.get('actor')}" for line in log)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_job_whose_driver_is_killed_is_told_from_storage_and_taken_up(
    laptop: Kosmos2, proxy: Proxy, bucket: Bucket, few_scenes: Path, held: Path
) -> None:
    held.write_text("go on")
    bucket.put_shards(few_scenes)
    proxy.pause_before_shards_s = 3  # so that it is not done before it is killed
    first = laptop.start("submit", bucket.input, bucket.output, "--wait")
    wait_for(lambda: len(bucket.objects("out/annotations/")) >= 2)
    [lease] = bucket.objects("out/leases/")
    os.kill(json.loads(bucket.get(lease))["owner"]["pid"], signal.SIGKILL)
    said, errors = end_of(first)
    committed = bucket.objects("out/annotations/")
    assert 2 <= len(committed) < SHARDS
    assert first.returncode == 1, said + errors
    assert f"{len(committed)} of {SHARDS} shards are committed, and the driver is gone" in errors

    proxy.pause_before_shards_s = 0
    again = laptop.run("submit", bucket.input, bucket.output, "--wait")
    assert again.returncode == 0, again.stdout + again.stderr
    assert f"submitted {job_name(bucket.output)}-2" in again.stderr
    after = bucket.objects("out/annotations/")
    assert {key: after[key] for key in committed} == committed
    assert set(primary_keys(read(bucket)).values()) == {1}
    assert len(primary_keys(read(bucket))) == SHARDS * IMAGES
