"""A job with two drivers, each in a process that Ray starts, on a real cluster and S3 server."""

import json
from pathlib import Path

from tests.support.bucket import Bucket
from tests.support.cluster import Kosmos2, ray_workers
from tests.support.dataset import primary_keys, read
from tests.support.patience import end_of, wait_for
from tests.support.tars import picture, tar

# Images of each shard. By their bytes, one driver gets all slow ones, and the other all others.
IMAGES = {
    "0-slow": 50,
    "1-quick-0": 22,
    "1-quick-1": 22,
    "2-held": 22,
    **{f"3-slow-{number}": 1 for number in range(4)},
}


def filled(bucket: Bucket) -> tuple[str, ...]:
    """The job; the keys of images begin as the second part of their shard's name."""
    image = picture(size=(200, 150))
    for shard, images in IMAGES.items():
        key = shard.split("-")[1]
        members = [(f"{key}-{number}.jpg", image) for number in range(images)]
        bucket.put(f"shards/{shard}.tar", tar(members))
    return ("annotate", bucket.input, bucket.output, "--actors", "2", "--drivers", "2")


def test_a_run_with_two_drivers_goes_on_after_the_death_of_one(
    bucket: Bucket, kosmos2: Kosmos2, tmp_path: Path
) -> None:
    """It is killed when it knows its second outcome and the process of the run does not; one of its
    shards is left."""
    job = filled(bucket)
    slow, held, killed = (tmp_path / name for name in ("slow", "held", "killed"))
    faults = ";".join(
        [
            f"annotate.sample[key=slow-0]=pause@{slow}",
            f"annotate.sample[key=held-0]=pause@{held}",
            f"driver.part:2=kill@{killed}",
        ]
    )
    run = kosmos2.light.with_faults(faults).start(*job)
    actors = set[int]()

    def has_passed_on_its_actor() -> bool:
        """Each driver had an actor, the one that began again, too; the fourth is given."""
        if killed.exists():
            held.write_text("go on")
        actors.update(worker.pid for worker in ray_workers(kosmos2, "MapBatches(Annotate)"))
        return len(actors) == 4 or run.poll() is not None

    wait_for(has_passed_on_its_actor)
    slow.write_text("go on")
    _, stderr = end_of(run)
    assert run.returncode == 0, stderr
    assert len(actors) == 4
    assert "drivers: 2, each with actors: 1" in stderr
    assert " of 2 died with 1 shards left" in stderr
    assert "its actors go to the other" in stderr
    assert stderr.count("committed ") == len(IMAGES)
    keys = primary_keys(read(bucket))
    assert set(keys.values()) == {1}
    assert len(keys) == sum(IMAGES.values())
    verified = kosmos2.run_here("verify", bucket.output)
    assert verified.returncode == 0, verified.stdout
    assert json.loads(bucket.get("out/_SUCCESS.json"))["shards"] == len(IMAGES)
