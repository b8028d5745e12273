"""A job with two drivers, each in a process that Ray starts, on a real cluster and S3 server."""

import json
import signal
from pathlib import Path

from tests.support.bucket import Bucket
from tests.support.cluster import Kosmos2, ray_workers
from tests.support.dataset import primary_keys, read
from tests.support.patience import end_of, wait_for
from tests.support.tars import picture, tar

# Images of each shard. By their bytes, one driver gets all slow ones, and the other all quick ones.
IMAGES = {
    "0-first": 1,
    "1-slow": 50,
    **{f"2-quick-{number}": 22 for number in range(3)},
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


def test_a_run_with_two_drivers_goes_on_after_deaths(
    bucket: Bucket, kosmos2: Kosmos2, tmp_path: Path
) -> None:
    """The process of the command is killed; in the next run a driver is, when it knows its second
    outcome and the process of the run does not."""
    job, here, killed = filled(bucket), tmp_path / "here", tmp_path / "killed"
    slow, quick = (f"annotate.sample[key={key}-0]=pause@{here}" for key in ("slow", "quick"))
    light = kosmos2.light

    first = light.with_faults(f"{slow};{quick};driver.committed=kill").run(*job)
    assert first.returncode == -signal.SIGKILL, first.stderr
    wait_for(lambda: not ray_workers(kosmos2, "PartDriver"))
    committed = bucket.objects("out/annotations/")
    assert len(committed) == 1

    again = light.with_faults(f"{slow};driver.part:2=kill@{killed}").start(*job)
    actors = set[int]()

    def has_passed_on_its_actor() -> bool:
        """Each driver had an actor, and the third is given, or of the one that began again."""
        actors.update(worker.pid for worker in ray_workers(kosmos2, "MapBatches(Annotate)"))
        return len(actors) >= 3 or again.poll() is not None

    wait_for(has_passed_on_its_actor)
    here.write_text("go on")
    _, stderr = end_of(again)
    assert again.returncode == 0, stderr
    assert killed.exists()
    assert len(actors) >= 3
    assert "drivers: 2, each with actors: 1" in stderr
    assert " of 2 died with " in stderr
    assert "its actors go to the other" in stderr
    assert stderr.count("committed ") == len(IMAGES) - 1
    assert committed.items() <= bucket.objects("out/annotations/").items()
    keys = primary_keys(read(bucket))
    assert set(keys.values()) == {1}
    assert len(keys) == sum(IMAGES.values())
    verified = kosmos2.run_here("verify", bucket.output)
    assert verified.returncode == 0, verified.stdout
    assert json.loads(bucket.get("out/_SUCCESS.json"))["shards"] == len(IMAGES)
