"""A job with two drivers, each in a process that Ray starts, on a real cluster and S3 server."""

import json
from pathlib import Path

from pipeline.execution.sizes import LEAST_ROWS
from tests.support.bucket import Bucket
from tests.support.cluster import Kosmos2, ray_workers
from tests.support.dataset import primary_keys, read
from tests.support.patience import end_of, wait_for
from tests.support.tars import picture, tar

# Images of each shard. By their bytes, one driver gets the slow one, and the other all quick ones.
SLOW, QUICK = 7 * LEAST_ROWS, 1
SHARDS = {"0-slow": SLOW, "1-quick": QUICK, "2-quick": QUICK, "3-quick": QUICK}


def filled(bucket: Bucket) -> tuple[str, ...]:
    """The job; keys of images begin with the second part of their shard's name."""
    for shard, images in SHARDS.items():
        key = shard.split("-")[1]
        members = [(f"{key}-{number}.jpg", picture()) for number in range(images)]
        bucket.put(f"shards/{shard}.tar", tar(members))
    return ("annotate", bucket.input, bucket.output, "--actors", "2", "--drivers", "2")


def test_a_run_with_two_drivers_goes_on_after_the_death_of_one(
    bucket: Bucket, kosmos2: Kosmos2, tmp_path: Path
) -> None:
    """It is killed when it knows its second outcome and the process of the run does not."""
    job, here, killed = filled(bucket), tmp_path / "here", tmp_path / "killed"
    first_of_tables = range(0, SLOW, LEAST_ROWS)
    faults = [f"annotate.sample[key=slow-{first}]=pause@{here}" for first in first_of_tables]
    dies = f"driver.part:2=kill@{killed}"
    run = kosmos2.light.with_faults(";".join([*faults, dies])).start(*job)
    actors = set[int]()

    def has_passed_on_its_actor() -> bool:
        """Each driver had an actor, the one that began again, too; the fourth is given."""
        actors.update(worker.pid for worker in ray_workers(kosmos2, "MapBatches(Annotate)"))
        return len(actors) == 4 or run.poll() is not None

    wait_for(has_passed_on_its_actor)
    here.write_text("go on")
    _, stderr = end_of(run)
    assert run.returncode == 0, stderr
    assert killed.exists()
    assert len(actors) == 4
    assert "drivers: 2, each with actors: 1" in stderr
    assert " of 2 died with " in stderr
    assert "its actors go to the other" in stderr
    assert stderr.count("committed ") == len(SHARDS)
    keys = primary_keys(read(bucket))
    assert set(keys.values()) == {1}
    assert len(keys) == sum(SHARDS.values())
    verified = kosmos2.run_here("verify", bucket.output)
    assert verified.returncode == 0, verified.stdout
    assert json.loads(bucket.get("out/_SUCCESS.json"))["shards"] == len(SHARDS)
