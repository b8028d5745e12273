"""Schedules of faults with one and with two drivers, and a node lost with one of two actors."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.__main__ import prepared, stems
from tests.chaos.schedule import DEATH_OF_A_DRIVER, DEATHS, TROUBLES, draw
from tests.chaos.world import IMAGES, SHARDS, World, running_world
from tests.support.bucket import Bucket
from tests.support.dataset import primary_keys, read
from tests.support.patience import end_of, wait_for
from tests.support.s3 import S3Server


@pytest.fixture(scope="module")
def world(s3_server: S3Server) -> Iterator[World]:
    with running_world(s3_server) as world:
        yield world


@pytest.mark.parametrize(
    "number", [4, 5, *(pytest.param(number, marks=pytest.mark.slow) for number in (8, 12, 26))]
)
def test_schedule_of_faults_loses_nothing(world: World, few: Path, number: int) -> None:
    """4 kills a driver, an actor and a reader, 5 one of two drivers and a node."""
    chaos = prepared(world, few, seed=1, number=number)
    outcome = chaos.run(dict.fromkeys(stems(few), IMAGES))
    print(outcome)
    assert outcome.is_good, (outcome, *chaos.said)


def test_lost_node_costs_no_shard(
    world: World, few: Path, tmp_path: Path, s3_server: S3Server
) -> None:
    """With an actor that has a table in work; the node that is left has only two CPUs."""
    bucket = Bucket(name=s3_server.make_bucket("lost-node"), server=s3_server)
    bucket.put_shards(few)
    here = tmp_path / "here"
    driver = world.kosmos2.light.with_faults(f"annotate.batch=pause@{here}").start(
        "annotate", bucket.input, bucket.output, "--actors", "2"
    )
    wait_for(here.exists)
    world.lose(next(node for node in world.nodes if world.workers_on(node, "Annotate")))
    here.write_text("go on")
    _, stderr = end_of(driver)
    world.join()
    assert driver.returncode == 0, stderr
    assert bucket.objects("out/failed/") == {}
    keys = primary_keys(read(bucket))
    assert set(keys.values()) == {1}
    assert len(keys) == SHARDS * IMAGES


def test_local_input_that_a_node_does_not_see_is_named_before_the_start(
    world: World, few: Path, tmp_path: Path
) -> None:
    blind = world.kosmos2.with_faults(
        f"cluster.look=raise:builtins.FileNotFoundError@{tmp_path}/one-of-them"
    )
    done = blind.run("annotate", str(few), str(tmp_path / "out"))
    assert done.returncode == 2
    assert "does not exist on 1 nodes of the cluster" in done.stderr
    assert not (tmp_path / "out" / "annotations").exists()


def test_schedules_are_drawn_from_their_seed() -> None:
    assert draw(1, 2) == draw(1, 2)
    drawn = [draw(1, number) for number in range(50)]
    assert len(set(drawn)) == 50
    assert {fault.kind for faults in drawn for fault in faults} == {
        *(*DEATHS, DEATH_OF_A_DRIVER),
        *TROUBLES,
    }
