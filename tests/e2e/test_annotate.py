"""The main job on a real S3 server and a real Ray cluster."""

import io
import json
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
)
from tests.support.dataset import primary_keys, read, share_of_objects_right
from tests.support.patience import end_of, wait_for
from tests.support.proxy import Proxy


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


HOLD = """
import time, ray
ray.init(logging_level=40, log_to_driver=False)
assert ray.util.placement_group([{"CPU": 3}]).wait()
print("held", flush=True)
time.sleep(600)
"""


@pytest.fixture(scope="module")
def no_cpu(kosmos2: Kosmos2) -> Iterator[None]:
    """A neighbour holds all CPUs of the cluster."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD], env=dict(kosmos2.environment), stdout=subprocess.PIPE
    ) as neighbour:
        assert neighbour.stdout.readline() == b"held\n"
        yield
        neighbour.kill()


@pytest.mark.usefixtures("no_cpu")
def test_a_run_that_is_terminated_gives_its_lease_back(
    bucket: Bucket, kosmos2: Kosmos2, scenes: Path
) -> None:
    bucket.put_shards(scenes, count=1)
    run = kosmos2.light.start("annotate", bucket.input, bucket.output)
    wait_for(lambda: bool(bucket.objects("out/leases/")))
    run.terminate()
    _, stderr = end_of(run)
    assert run.returncode == 7, stderr
    assert bucket.objects("out/leases/") == {}


@pytest.mark.usefixtures("no_cpu")
def test_cluster_without_a_free_cpu_is_named(
    bucket: Bucket, kosmos2: Kosmos2, scenes: Path
) -> None:
    bucket.put_shards(scenes, count=1)
    done = kosmos2.run("annotate", bucket.input, bucket.output, "--stall-timeout", "3")
    assert done.returncode == 5
    assert "no actor could start: each needs 2 CPUs" in done.stderr
    assert "0 of 3 CPUs and 0 of 0 GPUs are free" in done.stderr
    assert "out/job.json" not in bucket.objects("out/")
