"""Several jobs make one dataset, each its partition of the plan."""

import json
from pathlib import Path

import pytest

from kosmos2_core.shapes.world.shards import write_shards
from tests.support.bucket import Bucket
from tests.support.cluster import Kosmos2
from tests.support.dataset import primary_keys, read
from tests.support.patience import end_of, wait_for

SHARDS, IMAGES = 16, 3


@pytest.mark.slow
def test_partitions_run_at_once_and_make_one_dataset(
    bucket: Bucket, kosmos2: Kosmos2, tmp_path: Path
) -> None:
    write_shards(tmp_path / "in", shards=SHARDS, images=IMAGES, seed=5)
    bucket.put_shards(tmp_path / "in")
    job = ("annotate", bucket.input, bucket.output, "--partition")
    here = tmp_path / "here"
    first = kosmos2.with_faults(f"job.before_record=pause@{here}").start(*job, "0/2")
    wait_for(here.exists)

    for partition in ("0/2", "0/1", "2/4"):  # they share shards with the one at work
        refused = kosmos2.run(*job, partition)
        assert refused.returncode == 4, refused.stderr
        assert f"pid {first.pid}" in refused.stderr
    second = kosmos2.run(*job, "1/2")

    assert second.returncode == 0, second.stderr
    status = json.loads(kosmos2.run("status", bucket.output, "--json").stdout)
    assert [lease["partition"] for lease in status["running"]] == ["0/2"]
    assert 0 < status["totals"]["shards"] < SHARDS == status["shards_planned"]
    assert "out/_SUCCESS.json" not in bucket.objects("out/")
    assert kosmos2.run("retry", bucket.output).returncode == 4

    here.write_text("go on")
    _, err = end_of(first)

    assert first.returncode == 0, err
    assert json.loads(bucket.get("out/_SUCCESS.json"))["shards"] == SHARDS
    keys = primary_keys(read(bucket))
    assert len(keys) == SHARDS * IMAGES
    assert set(keys.values()) == {1}
    verified = kosmos2.run("verify", bucket.output)
    assert verified.returncode == 0, verified.stdout
