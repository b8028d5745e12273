"""The main job on a real S3 server and a real Ray cluster."""

import io
import json
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest
from datasets import load_dataset

from kosmos2_core.shapes.world import write_shards
from tests.e2e.cluster import Kosmos2, wait_for
from tests.e2e.conftest import Bucket
from tests.e2e.dataset import (
    file_metadata,
    named_rejects,
    primary_keys,
    read,
    share_of_objects_right,
)
from tests.proxy import Proxy

SHARDS, IMAGES = 20, 200


@pytest.fixture(scope="module")
def annotated(
    kosmos2: Kosmos2, s3_server, scenes: Path, tmp_path_factory: pytest.TempPathFactory
) -> Bucket:
    """20 shards x 200 scenes, annotated in one run."""
    bucket = Bucket(name=s3_server.make_bucket("e2e-annotated"), server=s3_server)
    bucket.put_shards(scenes)
    done = kosmos2.run("annotate", bucket.input, bucket.output)
    assert done.returncode == 0, done.stderr
    return bucket


def test_every_sample_is_annotated_exactly_once(annotated: Bucket) -> None:
    keys = primary_keys(read(annotated))
    assert len(keys) == SHARDS * IMAGES
    assert set(keys.values()) == {1}
    assert {index for _, index, _ in keys} == set(range(IMAGES))


def test_objects_are_named_and_boxed_rightly(annotated: Bucket) -> None:
    share = share_of_objects_right(read(annotated).to_pylist())
    print(f"{share:.2%} of the objects named rightly with a box of IoU >= 0.5")
    assert share >= 0.98


def test_phrases_are_where_their_offsets_say(annotated: Bucket) -> None:
    for row in read(annotated).to_pylist():
        for entity in row["entities"]:
            assert row["caption"][entity["start"] : entity["end"]] == entity["phrase"]


def test_image_is_found_again_with_one_ranged_get(annotated: Bucket) -> None:
    row = read(annotated).slice(1234, 1).to_pylist()[0]
    key = row["uri"].removeprefix(f"s3://{annotated.name}/")
    start, size = row["image_offset"], row["image_size"]
    tar = annotated.get(key)
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        assert archive.extractfile(row["member"]).read() == tar[start : start + size]


def test_success_says_the_totals(annotated: Bucket) -> None:
    success = json.loads(annotated.get("out/_SUCCESS.json"))
    assert (success["shards"], success["samples"], success["rejected"]) == (20, 4000, 0)
    assert success["fingerprint"] == json.loads(annotated.get("out/job.json"))["fingerprint"]


def test_lease_is_given_back(annotated: Bucket) -> None:
    assert annotated.objects("out/leases/") == {}


def test_status_agrees_with_storage(annotated: Bucket, kosmos2: Kosmos2) -> None:
    status = json.loads(kosmos2.run("status", annotated.output, "--json").stdout)
    assert status["shards_planned"] == status["totals"]["shards"] == SHARDS
    assert status["totals"]["samples"] == SHARDS * IMAGES
    assert (status["shards_left"], status["failures"], status["running"]) == (0, [], [])


def test_finished_job_does_nothing_again(
    annotated: Bucket, kosmos2: Kosmos2, recorder: Proxy
) -> None:
    before = annotated.objects("out/annotations/")
    recorder.requests.clear()
    again = kosmos2.run("annotate", annotated.input, annotated.output)
    assert again.returncode == 0, again.stderr
    assert annotated.objects("out/annotations/") == before
    assert not [r for r in recorder.requests if r.startswith("GET") and ".tar" in r]


def test_other_settings_on_the_same_output_are_refused(annotated: Bucket, kosmos2: Kosmos2) -> None:
    refused = kosmos2.run("annotate", annotated.input, annotated.output, "--exif", "ignore")
    assert refused.returncode == 2
    assert "exif" in refused.stderr


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
            rows, first = duckdb.execute(query, [glob]).fetchone()
        case "pyarrow":
            table = pq.read_table(tmp_path, columns=["entities"])
            rows, first = table.num_rows, table[0][0].as_py()[0]["boxes"][0]["x1"]
    assert rows == SHARDS * IMAGES
    assert 0 <= first < 1


def test_killed_driver_resumes_without_touching_what_is_committed(
    bucket: Bucket, kosmos2: Kosmos2, recorder: Proxy, scenes: Path
) -> None:
    shards = 8
    bucket.put_shards(scenes, shards)
    driver = kosmos2.start("annotate", bucket.input, bucket.output)
    wait_for(lambda: len(bucket.objects("out/annotations/")) >= shards // 3)
    driver.send_signal(signal.SIGKILL)
    driver.communicate()
    committed = bucket.objects("out/annotations/")
    assert len(committed) < shards
    recorder.requests.clear()

    again = kosmos2.run("annotate", bucket.input, bucket.output)

    assert again.returncode == 0, again.stderr
    after = bucket.objects("out/annotations/")
    assert {key: after[key] for key in committed} == committed
    was_read = {r.split("?")[0] for r in recorder.requests if r.startswith("GET") and ".tar" in r}
    assert len(was_read) == shards - len(committed)
    assert set(primary_keys(read(bucket)).values()) == {1}
    assert len(primary_keys(read(bucket))) == shards * IMAGES


@pytest.mark.parametrize(
    "fault",
    [
        "reader.block:2=kill",
        "annotate.batch:2=kill",
        "annotate.batch:2=raise:kosmos2_core.errors.EngineFailed",
    ],
    ids=["reader", "actor", "device"],
)
def test_killed_worker_costs_nothing(
    fault: str, bucket: Bucket, kosmos2: Kosmos2, scenes: Path, tmp_path: Path
) -> None:
    bucket.put_shards(scenes, 4)
    killed = tmp_path / "killed"
    faulty = kosmos2.with_faults(f"{fault}@{killed}")
    done = faulty.run("annotate", bucket.input, bucket.output)
    assert killed.exists()
    assert done.returncode == 0, done.stderr
    assert set(primary_keys(read(bucket)).values()) == {1}
    assert len(primary_keys(read(bucket))) == 4 * IMAGES


def test_second_live_run_is_told_who_is_at_work(
    bucket: Bucket, kosmos2: Kosmos2, scenes: Path
) -> None:
    bucket.put_shards(scenes)
    first = kosmos2.start("annotate", bucket.input, bucket.output)
    wait_for(lambda: bool(bucket.objects("out/leases/")))
    second = kosmos2.run("annotate", bucket.input, bucket.output)
    first.terminate()
    first.communicate(timeout=60)
    assert second.returncode == 4
    assert f"pid {first.pid}" in second.stderr
    assert bucket.objects("out/leases/") == {}  # SIGTERM gives it back


def test_damaged_inputs_are_accounted_for(bucket: Bucket, kosmos2: Kosmos2, scenes: Path) -> None:
    good, some_broken, truncated = (path.read_bytes() for path in sorted(scenes.glob("*.tar"))[:3])
    bucket.put("shards/good.tar", good)
    bucket.put("shards/broken.tar", _with_broken_images(some_broken, {3, 50, 51, 120, 199}))
    bucket.put("shards/truncated.tar", truncated[: len(truncated) // 2 + 100])
    bucket.put("shards/empty.tar", bytes(tarfile.RECORDSIZE))

    done = kosmos2.run(
        "annotate", bucket.input, bucket.output, "--task", "brief", "--task", "detailed"
    )

    assert done.returncode == 0, done.stderr
    rejected = named_rejects(bucket)
    assert set(primary_keys(read(bucket), rejected).values()) == {1}
    counts = {stem: file_metadata(bucket, f"{stem}-") for stem in ("good", "broken", "empty")}
    assert {stem: int(found["kosmos2.samples"]) for stem, found in counts.items()} == {
        "good": 200,
        "broken": 200,
        "empty": 0,
    }
    by_shard = rejected.group_by(["shard_id", "stage", "task"]).aggregate([("index", "count")])
    assert {
        (row["shard_id"].split("-")[0], row["stage"], row["task"]): row["index_count"]
        for row in by_shard.to_pylist()
    } == {
        ("broken", "decode", "brief"): 5,
        ("broken", "decode", "detailed"): 5,
        ("truncated", "read", "brief"): 1,
        ("truncated", "read", "detailed"): 1,
    }
    found = file_metadata(bucket, "truncated-")
    assert found["kosmos2.truncated"] == "true"
    assert 90 < int(found["kosmos2.samples"]) < 110


def test_shard_of_rejects_is_not_committed(bucket: Bucket, kosmos2: Kosmos2, scenes: Path) -> None:
    good, bad = (path.read_bytes() for path in sorted(scenes.glob("*.tar"))[:2])
    bucket.put("shards/good.tar", good)
    bucket.put("shards/bad.tar", _with_broken_images(bad, set(range(IMAGES))))
    done = kosmos2.run("annotate", bucket.input, bucket.output)
    assert done.returncode == 3
    assert "too_many_rejects" in done.stderr
    assert [key.split("/")[-1][:4] for key in bucket.objects("out/annotations/")] == ["good"]
    (failed,) = bucket.objects("out/failed/")
    assert json.loads(bucket.get(failed))["attempts"] == 1
    assert "out/_SUCCESS.json" not in bucket.objects("out/")


def test_one_shard_of_rejects_after_another_ends_the_run(bucket: Bucket, kosmos2: Kosmos2) -> None:
    for number in range(16):
        bucket.put(f"shards/bad-{number:02d}.tar", _tar_of_broken_images(20))
    done = kosmos2.run("annotate", bucket.input, bucket.output)
    assert done.returncode == 3
    assert "one shard after another was mostly rejected" in done.stderr
    assert len(bucket.objects("out/failed/")) >= 10
    # They are small: two go by until together they say enough.
    assert len(bucket.objects("out/annotations/")) == 2


def test_few_samples_that_are_all_rejected_are_no_success(bucket: Bucket, kosmos2: Kosmos2) -> None:
    bucket.put("shards/bad.tar", _tar_of_broken_images(3))
    done = kosmos2.run("annotate", bucket.input, bucket.output)
    assert done.returncode == 3
    assert "mostly rejects" in done.stderr
    assert "out/_SUCCESS.json" not in bucket.objects("out/")


def _tar_of_broken_images(count: int) -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for index in range(count):
            member = tarfile.TarInfo(f"{index:04d}.jpg")
            member.size = 4
            tar.addfile(member, io.BytesIO(b"none"))
    return archive.getvalue()


def _with_broken_images(tar: bytes, indices: set[int]) -> bytes:
    """The same archive with zeros for the pictures of those samples."""
    broken = bytearray(tar)
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        pictures = [m for m in archive if m.name.endswith(".jpg")]
    for index in indices:
        start, size = pictures[index].offset_data, pictures[index].size
        broken[start : start + size] = bytes(size)
    return bytes(broken)


def test_limit_then_the_rest_then_new_inputs(
    bucket: Bucket, kosmos2: Kosmos2, tmp_path: Path
) -> None:
    write_shards(tmp_path, shards=3, images=10, seed=5)
    bucket.put_shards(tmp_path, 2)
    job = ("annotate", bucket.input, bucket.output)

    limited = kosmos2.run(*job, "--limit", "1")
    assert limited.returncode == 0, limited.stderr
    assert len(bucket.objects("out/annotations/")) == 1
    assert "out/_SUCCESS.json" not in bucket.objects("out/")

    bucket.put("shards/shapes-00002.tar", (tmp_path / "shapes-00002.tar").read_bytes())
    rest = kosmos2.run(*job)
    assert rest.returncode == 0, rest.stderr
    assert "--extend" in rest.stderr
    assert len(bucket.objects("out/annotations/")) == 2

    extended = kosmos2.run(*job, "--extend")
    assert extended.returncode == 0, extended.stderr
    assert len(primary_keys(read(bucket))) == 30
    assert json.loads(bucket.get("out/_SUCCESS.json"))["shards"] == 3


def test_stalled_run_says_so_and_the_next_one_goes_on(
    bucket: Bucket, kosmos2: Kosmos2, tmp_path: Path
) -> None:
    write_shards(tmp_path, shards=2, images=5, seed=5)
    bucket.put_shards(tmp_path)
    job = ("annotate", bucket.input, bucket.output)
    too_short = ("--stall-timeout", "0.5")  # less than a process needs to start
    unresolved = kosmos2.run(*job, *too_short)
    assert unresolved.returncode == 5
    assert "the model was not loaded within" in unresolved.stderr
    assert kosmos2.run(*job, "--limit", "1").returncode == 0
    stalled = kosmos2.run(*job, *too_short)
    assert stalled.returncode == 5
    assert "1 shards left" in stalled.stderr
    assert kosmos2.run(*job).returncode == 0


HOLD = """
import sys, time, ray
ray.init(logging_level=40, log_to_driver=False)
@ray.remote(num_cpus=3)
class Neighbour:
    def ready(self):
        return True
neighbour = Neighbour.remote()
ray.get(neighbour.ready.remote())
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
    assert "that takes 2 CPUs" in done.stderr
    assert "0 and 0 are free" in done.stderr


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


def test_input_overwritten_since_the_plan_fails_by_name(
    bucket: Bucket, kosmos2: Kosmos2, tmp_path: Path
) -> None:
    write_shards(tmp_path, shards=2, images=5, seed=5)
    bucket.put_shards(tmp_path)
    job = ("annotate", bucket.input, bucket.output)
    assert kosmos2.run(*job, "--limit", "1").returncode == 0
    bucket.put("shards/shapes-00001.tar", (tmp_path / "shapes-00000.tar").read_bytes())
    done = kosmos2.run(*job)
    assert done.returncode == 3
    assert "input_changed" in done.stderr
    assert "shapes-00001" in done.stderr
    assert len(bucket.objects("out/annotations/")) == 1
