"""Who works where, on a node for readers and two that say that they have a GPU each."""

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.world import IMAGES, SHARDS, World, running_world
from tests.support.bucket import JobBucket
from tests.support.cluster import Node, NodeKind
from tests.support.dataset import exported_rows, primary_keys, read
from tests.support.patience import end_of, wait_for
from tests.support.s3 import S3Server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

READERS = NodeKind(cpus=2, labels=("pool=readers",))
GPU = NodeKind(cpus=1, gpus=1)
ACTORS = NodeKind(cpus=2, labels=("pool=actors",))
READER = NodeKind(cpus=1)
NAMES = ("ReadShard", "Annotate")
EMBEDDED = ("--images", "embed")


@pytest.fixture(scope="module")
def world(s3_server: S3Server) -> Iterator[World]:
    with running_world(s3_server, (READERS, GPU, GPU)) as world:
        world.proxy.pause_before_shards_s = 0.5  # long enough to see who reads
        yield world


def bucket_of(world: World, name: str, folder: Path) -> JobBucket:
    bucket = world.bucket(name)
    bucket.put_shards(folder)
    return bucket


def check_dataset(bucket: JobBucket) -> None:
    assert bucket.objects("out/failed/") == {}
    keys = primary_keys(read(bucket))
    assert set(keys.values()) == {1}
    assert len(keys) == SHARDS * IMAGES


class Sightings:
    """Which nodes had workers of which name."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.nodes: dict[str, set[Node]] = {name: set() for name in NAMES}

    def look(self) -> None:
        for node in self.world.nodes:
            for name in NAMES:
                if self.world.workers_on(node, name):
                    self.nodes[name].add(node)

    def look_until_it_ends(self, driver: subprocess.Popen[str]) -> None:
        while driver.poll() is None:
            self.look()
            time.sleep(0.1)


def test_each_has_its_nodes_and_a_lost_gpu_node_costs_no_shard(
    world: World,
    few: Path,
    tmp_path: Path,
) -> None:
    bucket, here = bucket_of(world, "placement", few), tmp_path / "here"
    readers, *gpus = world.nodes
    seen = Sightings(world)
    driver = world.kosmos2.with_faults(f"annotate.batch:2=pause@{here}").start(
        *("annotate", bucket.input, bucket.output, "--actors", "2"),
        *("--reader-label", "pool=readers"),
    )

    def is_at_work() -> bool:
        seen.look()
        return here.exists() and seen.nodes["Annotate"] >= set(gpus)

    wait_for(is_at_work)
    world.lose(gpus[0])
    here.write_text("go on")
    seen.look_until_it_ends(driver)
    _, stderr = end_of(driver)
    world.join(GPU)
    assert driver.returncode == 0, stderr
    assert seen.nodes == {"ReadShard": {readers}, "Annotate": set(gpus)}
    assert "actors: 2, each requests 1 CPU, 1 GPU" in stderr
    check_dataset(bucket)


def test_a_pool_grows_while_work_waits(world: World, few: Path, tmp_path: Path) -> None:
    bucket, here = bucket_of(world, "growing", few), tmp_path / "here"
    driver = world.kosmos2.with_faults(f"annotate.batch=pause@{here}").start(
        *("annotate", bucket.input, bucket.output, "--actors", "1:2"),
        *("--reader-label", "pool=readers"),
    )
    sizes: list[int] = []

    def has_grown() -> bool:
        actors = sum(len(world.workers_on(node, "Annotate")) for node in world.nodes)
        sizes.append(actors)
        return actors == 2

    wait_for(has_grown)
    assert sorted(set(sizes) - {0}) == [1, 2]
    assert sizes == sorted(sizes)
    here.write_text("go on")
    _, stderr = end_of(driver)
    assert driver.returncode == 0, stderr
    check_dataset(bucket)


def test_an_export_is_shared_out_and_goes_on_without_a_node(
    world: World,
    few: Path,
    tmp_path: Path,
) -> None:
    bucket, here = bucket_of(world, "exported", few), tmp_path / "here"
    annotated = world.kosmos2.run("annotate", bucket.input, bucket.output, "--actors", "2")
    assert annotated.returncode == 0, annotated.stderr
    plain, parallel = (
        ("export", bucket.output, f"s3://{bucket.name}/{name}", "--format", "hf", *EMBEDDED)
        for name in ("plain", "parallel")
    )
    alone = world.kosmos2.run(*plain)
    assert alone.returncode == 0, alone.stderr
    driver = world.kosmos2.with_faults(f"export.shard=pause@{here}").start(
        *parallel, "--parallel", "4"
    )
    wait_for(lambda: all(world.workers_on(node, "export_section") for node in world.nodes))
    world.lose(world.nodes[-1])
    here.write_text("go on")
    _, stderr = end_of(driver)
    world.join(GPU)
    assert driver.returncode == 0, stderr
    assert exported_rows(bucket, "parallel") == exported_rows(bucket, "plain") != []


def test_actors_that_take_all_cpus_that_are_left_give_way_to_a_reader(
    s3_server: S3Server,
    few: Path,
    tmp_path: Path,
) -> None:
    """The node that is lost had the only reader; each actor on the other has a table in work."""
    here, reading = tmp_path / "here", tmp_path / "reading"
    with running_world(s3_server, (ACTORS, READER)) as world:
        bucket = bucket_of(world, "starved", few)
        at_work, reads = world.nodes
        driver = world.kosmos2.with_faults(
            f"annotate.batch=pause@{here};reader.block:3=pause@{reading}"
        ).start(
            *("annotate", bucket.input, bucket.output, "--actors", "2"),
            *("--actor-label", "pool=actors"),
        )
        wait_for(lambda: here.exists() and reading.exists())
        world.lose(reads)
        wait_for(lambda: len(world.workers_on(at_work, "Annotate")) == 1)
        here.write_text("go on")
        reading.write_text("go on")
        _, stderr = end_of(driver)
    assert driver.returncode == 0, stderr
    assert "2 actors hold all 2 remaining CPUs, so no reader can run: ending one actor" in stderr
    check_dataset(bucket)
