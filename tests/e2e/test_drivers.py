"""A job with two drivers, each in a process that Ray starts, on a real cluster and S3 server."""

import json
import signal
import subprocess
import sys
from pathlib import Path

from kosmos2_core.shapes.world.shards import write_shards
from tests.support.bucket import Bucket
from tests.support.cluster import Kosmos2, ray_workers
from tests.support.dataset import primary_keys, read
from tests.support.patience import end_of, wait_for

SHARDS, IMAGES = 10, 8
TWO = ("--actors", "2", "--drivers", "2")


def filled(bucket: Bucket, folder: Path) -> tuple[str, ...]:
    write_shards(folder, shards=SHARDS, images=IMAGES, seed=5)
    bucket.put_shards(folder)
    return ("annotate", bucket.input, bucket.output, *TWO)


def check_dataset(bucket: Bucket, kosmos2: Kosmos2) -> None:
    keys = primary_keys(read(bucket))
    assert set(keys.values()) == {1}
    assert len(keys) == SHARDS * IMAGES
    verified = kosmos2.run_here("verify", bucket.output)
    assert verified.returncode == 0, verified.stdout
    assert json.loads(bucket.get("out/_SUCCESS.json"))["shards"] == SHARDS


def test_a_killed_driver_costs_nothing_and_keeps_other_runs_out(
    bucket: Bucket, kosmos2: Kosmos2, tmp_path: Path
) -> None:
    """It is killed when it knows its second outcome and the process of the run does not."""
    job, killed = filled(bucket, tmp_path / "in"), tmp_path / "killed"
    run = kosmos2.with_faults(f"driver.part:2=kill@{killed}").start(*job)
    wait_for(lambda: bool(bucket.objects("out/leases/")))
    second = kosmos2.run_here(*job)
    _, stderr = end_of(run)
    assert run.returncode == 0, stderr
    assert killed.exists()
    assert second.returncode == 4, second.stderr
    assert "drivers: 2, each with actors: 1" in stderr
    assert " of 2 died with " in stderr
    assert stderr.count(f": {IMAGES} samples, {IMAGES} annotations, 0 rejections") == SHARDS
    check_dataset(bucket, kosmos2)


def test_drivers_end_with_a_killed_run_or_on_request_and_the_next_run_resumes(
    bucket: Bucket, kosmos2: Kosmos2, tmp_path: Path
) -> None:
    job, here = filled(bucket, tmp_path / "in"), tmp_path / "here"
    killed = kosmos2.with_faults("driver.committed=kill").run(*job)
    assert killed.returncode == -signal.SIGKILL
    wait_for(lambda: not ray_workers(kosmos2, "PartDriver"))
    committed = bucket.objects("out/annotations/")
    assert committed

    run = kosmos2.with_faults(f"reader.block:2=pause@{here}").start(*job)
    wait_for(lambda: len(bucket.objects("out/annotations/")) > len(committed))
    assert len(ray_workers(kosmos2, "PartDriver")) == 2
    asked = kosmos2.run_here("stop", bucket.output, "--wait")
    _, stderr = end_of(run)
    here.write_text("go on")
    assert (asked.returncode, run.returncode) == (0, 7), stderr
    assert bucket.objects("out/failed/") == {}
    wait_for(lambda: not ray_workers(kosmos2, "PartDriver"))

    again = kosmos2.run("annotate", bucket.input, bucket.output, "--drivers", "1")
    assert again.returncode == 0, again.stderr
    assert committed.items() <= bucket.objects("out/annotations/").items()
    check_dataset(bucket, kosmos2)


UNEVEN = """
import sys
from pathlib import Path

from jobs.bench.jobs import light_spec, run_whole
from jobs.bench.light.model import LightModel
from jobs.bench.light.reader import LightReader


class Uneven(LightReader):
    def read(self, shard):
        return LightReader(images=1 if "quick" in shard.uri else 64).read(shard)


class Seen(Exception):
    pass


def look(progress):
    seen.update(actor.name for actor in progress.actors)
    if len(seen) == 3:
        raise Seen


seen, place = set(), Path(sys.argv[1])
(place / "in").mkdir()
for number in range(400):
    (place / "in" / f"{number:03d}-{'quick' if number % 2 else 'slow'}.tar").touch()
spec = light_spec(place / "in", place / "out", actors=2, drivers=2)
try:
    run_whole(spec, look, LightModel(image_cost_s=0.04), lambda spec: Uneven(images=1))
except Seen:
    print("three actors")
"""


def test_a_driver_that_ends_gives_its_actor_to_the_other(kosmos2: Kosmos2, tmp_path: Path) -> None:
    """Its own, and two that the other has one after the other."""
    done = subprocess.run(
        [sys.executable, "-c", UNEVEN, str(tmp_path)],
        env={**kosmos2.environment, "RAY_ENABLE_AUTO_CONNECT": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "three actors\n", done.stderr
