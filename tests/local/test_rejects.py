"""What cannot be annotated."""

import io
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.bucket import IMAGES, Bucket
from tests.support.dataset import file_metadata, named_rejects, primary_keys, read
from tests.support.locally import LocalCommand
from tests.support.tars import tar

pytestmark = pytest.mark.usefixtures("light")


def test_damaged_inputs_are_accounted_for(
    bucket: Bucket, kosmos2: LocalCommand, scenes: Path
) -> None:
    good, some_broken, truncated = (path.read_bytes() for path in sorted(scenes.glob("*.tar"))[:3])
    bucket.put("shards/good.tar", good)
    bucket.put("shards/broken.tar", _with_broken_images(some_broken, {3, 64, 69}))
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
        "good": IMAGES,
        "broken": IMAGES,
        "empty": 0,
    }
    by_shard = rejected.group_by(["shard_id", "stage", "task"]).aggregate([("index", "count")])
    assert {
        (row["shard_id"].split("-")[0], row["stage"], row["task"]): row["index_count"]
        for row in by_shard.to_pylist()
    } == {
        ("broken", "decode", "brief"): 3,
        ("broken", "decode", "detailed"): 3,
        ("truncated", "read", "brief"): 1,
        ("truncated", "read", "detailed"): 1,
    }
    found = file_metadata(bucket, "truncated-")
    assert found["kosmos2.truncated"] == "true"
    assert IMAGES * 0.45 < int(found["kosmos2.samples"]) < IMAGES * 0.55


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    bucket: Bucket
    returncode: int
    stderr: str


@pytest.fixture(scope="module")
def failed(kosmos2: LocalCommand, s3_server, scenes: Path) -> Failed:
    """One run over a sound shard and one in which no picture can be read."""
    bucket = Bucket(name=s3_server.make_bucket("local-failed"), server=s3_server)
    good, bad = (path.read_bytes() for path in sorted(scenes.glob("*.tar"))[:2])
    bucket.put("shards/good.tar", good)
    bucket.put("shards/bad.tar", _with_broken_images(bad, set(range(IMAGES))))
    done = kosmos2.run("annotate", bucket.input, bucket.output)
    return Failed(bucket=bucket, returncode=done.returncode, stderr=done.stderr)


def test_shard_of_rejects_is_not_committed(failed: Failed) -> None:
    bucket = failed.bucket
    assert failed.returncode == 3
    assert "too_many_rejects" in failed.stderr
    assert [key.split("/")[-1][:4] for key in bucket.objects("out/annotations/")] == ["good"]
    (key,) = bucket.objects("out/failed/")
    assert json.loads(bucket.get(key))["attempts"] == 1
    assert "out/_SUCCESS.json" not in bucket.objects("out/")


def test_a_shard_that_was_given_up_is_tried_again(
    failed: Failed, bucket: Bucket, kosmos2: LocalCommand
) -> None:
    bucket.put_output_of(failed.bucket)
    (key,) = bucket.objects("out/failed/")
    bucket.put(key, json.dumps({**json.loads(bucket.get(key)), "attempts": 3}).encode())

    done = kosmos2.run("retry", bucket.output, "--max-reject-rate", "1")

    assert done.returncode == 0, done.stderr
    assert bucket.objects("out/failed/") == {}
    assert named_rejects(bucket).num_rows == IMAGES
    assert json.loads(bucket.get("out/_SUCCESS.json"))["shards"] == 2


def test_one_shard_of_rejects_after_another_ends_the_run(
    bucket: Bucket, kosmos2: LocalCommand
) -> None:
    bad = tar([(f"{number:04d}.jpg", b"none") for number in range(20)])
    # Wherever the two commits come among the failures, ten of those are in a row.
    for number in range(30):
        bucket.put(f"shards/bad-{number:02d}.tar", bad)
    done = kosmos2.run("annotate", bucket.input, bucket.output)
    assert done.returncode == 3
    assert "several shards in a row were mostly rejected" in done.stderr
    assert len(bucket.objects("out/failed/")) >= 10
    # They are small: two go by until together they say enough.
    assert len(bucket.objects("out/annotations/")) == 2


def _with_broken_images(archive: bytes, indices: set[int]) -> bytes:
    """The same archive with zeros for the pictures of those samples."""
    broken = bytearray(archive)
    with tarfile.open(fileobj=io.BytesIO(archive)) as members:
        pictures = [m for m in members if m.name.endswith(".jpg")]
    for index in indices:
        start, size = pictures[index].offset_data, pictures[index].size
        broken[start : start + size] = bytes(size)
    return bytes(broken)
