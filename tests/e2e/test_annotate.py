"""The main job on a real S3 server and a real Ray cluster."""

import io
import json
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest
from datasets import load_dataset

from kosmos2_core.shapes.world.shards import write_shards
from tests.support.bucket import FEW_OBJECTS, IMAGES, SEED, SHARDS, Bucket
from tests.support.cluster import (
    Kosmos2,
    Node,
    NodeKind,
    end_node,
    join_node,
    ray_workers,
    workers_on,
)
from tests.support.dataset import primary_keys, read, share_of_objects_right
from tests.support.patience import end_of, wait_for
from tests.support.proxy import Proxy
from tests.support.s3 import S3Server
from tests.support.tars import picture, tar


def test_every_sample_is_annotated_exactly_once(annotated: Bucket) -> None:
    """A reader died meanwhile."""
    keys = primary_keys(read(annotated))
    assert len(keys) == SHARDS * IMAGES
    assert set(keys.values()) == {1}
    assert {index for _, index, _ in keys} == set(range(IMAGES))


def check_objects(bucket: Bucket) -> None:
    rows = read(bucket).to_pylist()
    share = share_of_objects_right(rows)
    print(
        f"{share:.2%} of the objects of {len(rows)} scenes named rightly, with a box of IoU >= 0.5"
    )
    assert share >= 0.98


def test_objects_are_named_and_boxed_rightly(annotated: Bucket) -> None:
    check_objects(annotated)


def test_workers_import_nothing_from_the_working_directory(
    first_run: tuple[Bucket, subprocess.CompletedProcess[str]],
) -> None:
    """Ray would look there before it looks for our packages, or for Python's."""
    _, done = first_run
    assert done.returncode == 0, done.stderr
    assert "logging.cc" not in done.stderr  # Ray's core, which says that it will say nothing


@pytest.mark.slow
def test_objects_of_4000_scenes_are_named_and_boxed_rightly(
    bucket: Bucket, kosmos2: Kosmos2, tmp_path: Path
) -> None:
    """The same bound, on more scenes than `make test` has time for."""
    write_shards(tmp_path, shards=20, images=200, seed=SEED, objects=FEW_OBJECTS)
    bucket.put_shards(tmp_path)
    done = kosmos2.run("annotate", bucket.input, bucket.output)
    assert done.returncode == 0, done.stderr
    check_objects(bucket)


def test_phrases_are_where_their_offsets_say(annotated: Bucket) -> None:
    for row in read(annotated).to_pylist():
        for entity in row["entities"]:
            assert row["caption"][entity["start"] : entity["end"]] == entity["phrase"]


def test_image_is_found_again_with_one_ranged_get(annotated: Bucket) -> None:
    row = read(annotated).slice(IMAGES + 34, 1).to_pylist()[0]
    key = row["uri"].removeprefix(f"s3://{annotated.name}/")
    start, size = row["image_offset"], row["image_size"]
    tar = annotated.get(key)
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        assert archive.extractfile(row["member"]).read() == tar[start : start + size]


def test_success_says_the_totals(annotated: Bucket) -> None:
    success = json.loads(annotated.get("out/_SUCCESS.json"))
    assert (success["shards"], success["samples"], success["rejected"]) == (
        SHARDS,
        SHARDS * IMAGES,
        0,
    )
    assert success["fingerprint"] == json.loads(annotated.get("out/job.json"))["fingerprint"]


def test_lease_is_given_back(annotated: Bucket) -> None:
    assert annotated.objects("out/leases/") == {}


def test_status_agrees_with_storage(annotated: Bucket, kosmos2: Kosmos2) -> None:
    status = json.loads(kosmos2.run_here("status", annotated.output, "--json").stdout)
    assert status["shards_planned"] == status["totals"]["shards"] == SHARDS
    assert status["totals"]["samples"] == SHARDS * IMAGES
    assert (status["shards_left"], status["failures"], status["running"]) == (0, [], [])


def test_finished_job_does_nothing_again(
    annotated: Bucket, kosmos2: Kosmos2, recorder: Proxy
) -> None:
    before = annotated.objects("out/annotations/")
    recorder.requests.clear()
    recorded = ("--input-endpoint-url", recorder.endpoint_url)
    again = kosmos2.run_here("annotate", annotated.input, annotated.output, *recorded)
    assert again.returncode == 0, again.stderr
    assert recorder.requests
    assert annotated.objects("out/annotations/") == before
    assert not [r for r in recorder.requests if r.startswith("GET") and ".tar" in r]


@pytest.mark.parametrize("engine", ["datasets", "duckdb", "pyarrow"])
def test_dataset_opens_without_anything_of_ours(
    engine: str, annotated: Bucket, tmp_path: Path
) -> None:
    for key in annotated.objects("out/annotations/"):
        (tmp_path / Path(key).name).write_bytes(annotated.get(key))
    glob = str(tmp_path / "*.parquet")
    match engine:
        case "datasets":
            dataset = load_dataset(
                "parquet", data_files=glob, split="train", cache_dir=str(tmp_path / "cache")
            )
            rows, first = len(dataset), dataset[0]["entities"][0]["boxes"][0]["x1"]
        case "duckdb":
            query = "SELECT count(*), any_value(entities[1].boxes[1].x1) FROM read_parquet(?)"
            # All of it: a result that is left open blocks the connection for other tests.
            [(rows, first)] = duckdb.execute(query, [glob]).fetchall()
        case "pyarrow":
            table = pq.read_table(tmp_path, columns=["entities"])
            rows, first = table.num_rows, table[0][0].as_py()[0]["boxes"][0]["x1"]
    assert rows == SHARDS * IMAGES
    assert 0 <= first < 1


# Two tables each; the last has the images of the one before.
KILLED_SHARDS, KILLED_IMAGES = ("0", "1", "2", "3", "3-again"), 66
KILLED_JOB = ("--skip-copies", "--actors", "2")


@pytest.fixture(scope="module")
def killed(
    kosmos2: Kosmos2, s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory
) -> Bucket:
    """Kill the process of a run with two drivers when it knows of one commit.

    By then at most two shards can be committed.
    """
    bucket = Bucket(name=s3_server.make_bucket("e2e-killed"), server=s3_server)
    for shard in KILLED_SHARDS:
        first = int(shard[0]) * KILLED_IMAGES
        members = [(f"{first + i}.jpg", picture(first + i)) for i in range(KILLED_IMAGES)]
        bucket.put(f"shards/{shard}.tar", tar(members))
    here = tmp_path_factory.mktemp("killed") / "here"
    waits = [f"annotate.sample[key={n * KILLED_IMAGES}]=pause@{here}" for n in (2, 3)]
    dies = kosmos2.light.with_faults(";".join([*waits, "driver.committed=kill"]))
    run = dies.run("annotate", bucket.input, bucket.output, *KILLED_JOB, "--drivers", "2")
    assert run.returncode == -signal.SIGKILL, run.stderr
    return bucket


def test_killed_run_leaves_its_commits_and_no_driver(killed: Bucket, kosmos2: Kosmos2) -> None:
    wait_for(lambda: not ray_workers(kosmos2, "PartDriver"))
    assert 1 <= len(killed.objects("out/annotations/")) <= 2


@pytest.fixture(scope="module")
def second_node(kosmos2: Kosmos2) -> Iterator[Node]:
    """Joins the cluster, with room for one actor."""
    node = join_node(kosmos2, NodeKind(cpus=1))
    yield node
    end_node(node)


def test_local_input_that_a_node_does_not_see_is_named_before_the_start(
    second_node: Node, kosmos2: Kosmos2, scenes: Path, tmp_path: Path
) -> None:
    blind = kosmos2.with_faults(
        f"cluster.look=raise:builtins.FileNotFoundError@{tmp_path}/one-of-them"
    )
    done = blind.run("annotate", str(scenes), str(tmp_path / "out"))
    assert done.returncode == 2
    assert "does not exist on 1 nodes of the cluster" in done.stderr
    assert not (tmp_path / "out" / "annotations").exists()


DEATHS = {
    "device": "annotate.batch:2=raise:kosmos2_core.errors.EngineFailed",
    "finisher": "committer.before_put=kill",
    "finisher-after-its-put": "committer.after_put=kill",
    "index-of-copies": "originals.find:3=kill",
}
TROUBLES = ("resets", "slow_downs", "cut_bodies", "lose_answers")


def test_lost_node_and_killed_workers_cost_nothing(
    killed: Bucket,
    second_node: Node,
    kosmos2: Kosmos2,
    recorder: Proxy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A node with one of two actors, and one worker of each kind, while the store gives trouble."""
    committed = killed.objects("out/annotations/")
    recorder.requests.clear()
    for trouble in TROUBLES:
        monkeypatch.setattr(recorder, trouble, 2)
    here = tmp_path / "here"
    faults = [f"{fault}@{tmp_path}/death-of-{who}" for who, fault in DEATHS.items()]
    loses = kosmos2.light.with_faults(";".join([f"annotate.batch=pause@{here}", *faults]))
    run = loses.start("annotate", killed.input, killed.output, *KILLED_JOB)
    wait_for(lambda: here.exists() and bool(workers_on(kosmos2, second_node, "Annotate")))
    end_node(second_node)
    here.write_text("go on")
    _, stderr = end_of(run)

    assert run.returncode == 0, stderr
    assert {path.name for path in tmp_path.glob("death-*")} == {f"death-of-{who}" for who in DEATHS}
    assert [getattr(recorder, trouble) for trouble in TROUBLES] == [0] * len(TROUBLES)
    assert committed.items() <= killed.objects("out/annotations/").items()
    was_read = {r.split("?")[0] for r in recorder.requests if r.startswith("GET") and ".tar" in r}
    assert len(was_read) == len(KILLED_SHARDS) - len(committed)
    keys = primary_keys(read(killed))
    assert set(keys.values()) == {1}
    assert len(keys) == len(KILLED_SHARDS) * KILLED_IMAGES


def test_second_live_run_is_told_who_is_at_work(
    bucket: Bucket, kosmos2: Kosmos2, scenes: Path
) -> None:
    bucket.put_shards(scenes)
    job = ("annotate", bucket.input, bucket.output)
    first = kosmos2.light.start(*job)
    wait_for(lambda: bool(bucket.objects("out/leases/")))
    second = kosmos2.run_here(*job)
    first.terminate()
    end_of(first)
    assert (first.returncode, second.returncode) == (7, 4)
    assert f"pid {first.pid}" in second.stderr
    assert bucket.objects("out/leases/") == {}  # SIGTERM gives it back


HOLD = """
import time, ray
ray.init(logging_level=40, log_to_driver=False)
assert ray.util.placement_group([{"CPU": 3}]).wait()
print("held", flush=True)
time.sleep(600)
"""


def test_cluster_without_a_free_cpu_is_named(
    bucket: Bucket, kosmos2: Kosmos2, tmp_path: Path
) -> None:
    write_shards(tmp_path, shards=1, images=5, seed=5)
    bucket.put_shards(tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", HOLD], env=dict(kosmos2.environment), stdout=subprocess.PIPE
    ) as neighbour:
        assert neighbour.stdout.readline() == b"held\n"
        done = kosmos2.run("annotate", bucket.input, bucket.output, "--stall-timeout", "3")
        neighbour.kill()
    assert done.returncode == 5
    assert "no actor could start: each needs 2 CPUs" in done.stderr
    assert "0 of 3 CPUs and 0 of 0 GPUs are free" in done.stderr
    assert "out/job.json" not in bucket.objects("out/")


def test_model_that_does_not_load_ends_the_run_at_once(
    bucket: Bucket, kosmos2: Kosmos2, tmp_path: Path
) -> None:
    write_shards(tmp_path, shards=1, images=5, seed=5)
    bucket.put_shards(tmp_path)
    (tmp_path / "model").mkdir()
    done = kosmos2.run("annotate", bucket.input, bucket.output, "--model", str(tmp_path / "model"))
    assert done.returncode == 2
    assert str(tmp_path / "model") in done.stderr
    assert "job.json" not in {key.rpartition("/")[2] for key in bucket.objects("out/")}
