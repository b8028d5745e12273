"""One job whose processes die one after the other, on a cluster that loses a node."""

import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.bucket import Bucket
from tests.support.cluster import (
    Kosmos2,
    Node,
    NodeKind,
    end_node,
    join_node,
    ray_workers,
    workers_on,
)
from tests.support.dataset import primary_keys, read
from tests.support.patience import end_of, wait_for
from tests.support.proxy import Proxy
from tests.support.s3 import S3Server
from tests.support.tars import picture, tar

# Images of each shard; their keys begin as the second part of its name. By their bytes, one driver
# gets the first and all slow ones, and the other all others.
IMAGES = {
    "0-first": 60,
    "1-quick-0": 22,
    "1-quick-1": 22,
    "2-held": 40,
    **{f"3-slow-{number}": 5 for number in range(4)},
}
DONE = [shard for shard in IMAGES if "slow" not in shard]  # before the run is killed
JOB = ("--actors", "2", "--skip-copies")


def fill(bucket: Bucket) -> None:
    seeds = iter(range(1000))
    for shard, images in IMAGES.items():
        key = shard.split("-")[1]
        members = [(f"{key}-{number}.jpg", picture(next(seeds))) for number in range(images)]
        bucket.put(f"shards/{shard}.tar", tar(members))
    bucket.put("shards/3-slow-3.tar", bucket.get("shards/3-slow-2.tar"))  # copies


@dataclass(frozen=True, slots=True, kw_only=True)
class Killed:
    """A killed run, with all that was seen of it."""

    bucket: Bucket
    pid: int
    stderr: str
    actors: frozenset[int]
    second: subprocess.CompletedProcess[str]  # run, while it was alive


@pytest.fixture(scope="module")
def killed(
    kosmos2: Kosmos2, s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory
) -> Killed:
    """A run with two drivers. One dies when it knows its second outcome and the process of the run
    does not: one of its shards is left. The run is killed when only slow shards are left."""
    bucket = Bucket(name=s3_server.make_bucket("e2e-killed"), server=s3_server)
    fill(bucket)
    job = ("annotate", bucket.input, bucket.output, *JOB, "--drivers", "2")
    folder = tmp_path_factory.mktemp("killed")
    first, held, died = (folder / name for name in ("first", "held", "died"))
    faults = [
        f"annotate.sample[key=first-0]=pause@{first}",
        f"annotate.sample[key=held-0]=pause@{held}",
        "annotate.sample[key=slow-0]=pause",
        f"driver.part:2=kill@{died}",
        f"driver.committed:{len(DONE)}=kill",
    ]
    run = kosmos2.light.with_faults(";".join(faults)).start(*job)
    actors = set[int]()

    def has_passed_on_its_actor() -> bool:
        """Each driver had an actor, the one that began again, too; the fourth is given."""
        if died.exists():
            held.write_text("go on")
        actors.update(worker.pid for worker in ray_workers(kosmos2, "MapBatches(Annotate)"))
        return len(actors) == 4 or run.poll() is not None

    wait_for(has_passed_on_its_actor)
    second = kosmos2.run_here(*job)
    first.write_text("go on")
    _, stderr = end_of(run)
    assert run.returncode == -signal.SIGKILL, stderr
    return Killed(
        bucket=bucket, pid=run.pid, stderr=stderr, actors=frozenset(actors), second=second
    )


def test_a_run_with_two_drivers_goes_on_after_the_death_of_one(killed: Killed) -> None:
    assert len(killed.actors) == 4, killed.stderr
    assert "drivers: 2, each with actors: 1" in killed.stderr
    assert " of 2 died with 1 shards left" in killed.stderr
    assert "its actors go to the other" in killed.stderr
    assert killed.stderr.count("committed ") == len(DONE)


def test_second_live_run_is_told_who_is_at_work(killed: Killed) -> None:
    assert killed.second.returncode == 4, killed.second.stderr
    assert f"pid {killed.pid}" in killed.second.stderr


def test_killed_run_leaves_its_commits_and_no_driver(killed: Killed, kosmos2: Kosmos2) -> None:
    wait_for(lambda: not ray_workers(kosmos2, "PartDriver"))
    assert len(killed.bucket.objects("out/annotations/")) == len(DONE)


@pytest.fixture(scope="module")
def second_node(kosmos2: Kosmos2) -> Iterator[Node]:
    """Joins the cluster, with room for one actor."""
    node = join_node(kosmos2, NodeKind(cpus=1))
    yield node
    end_node(node)


def test_local_input_that_a_node_does_not_see_is_named_before_the_start(
    second_node: Node, kosmos2: Kosmos2, scenes: Path, tmp_path: Path
) -> None:
    blind = kosmos2.with_faults(
        f"cluster.look=raise:builtins.FileNotFoundError@{tmp_path}/one-of-them"
    )
    done = blind.run("annotate", str(scenes), str(tmp_path / "out"))
    assert done.returncode == 2
    assert "does not exist on 1 nodes of the cluster" in done.stderr
    assert not (tmp_path / "out" / "annotations").exists()


DEATHS = {
    "device": "annotate.batch:2=raise:kosmos2_core.errors.EngineFailed",
    "finisher": "committer.before_put=kill",
    "finisher-after-its-put": "committer.after_put=kill",
    "index-of-copies": "originals.find:3=kill",
}
TROUBLES = ("resets", "slow_downs", "lose_answers")


def test_lost_node_and_killed_workers_cost_nothing(
    killed: Killed,
    second_node: Node,
    kosmos2: Kosmos2,
    recorder: Proxy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The next run loses a node with one of two actors, and one worker of each kind, while the
    store gives trouble."""
    bucket = killed.bucket
    committed = bucket.objects("out/annotations/")
    recorder.requests.clear()
    for trouble in TROUBLES:
        monkeypatch.setattr(recorder, trouble, 2)
    here = tmp_path / "here"
    faults = [f"{fault}@{tmp_path}/death-of-{who}" for who, fault in DEATHS.items()]
    loses = kosmos2.light.with_faults(";".join([f"annotate.batch=pause@{here}", *faults]))
    run = loses.start("annotate", bucket.input, bucket.output, *JOB)
    wait_for(lambda: here.exists() and bool(workers_on(kosmos2, second_node, "Annotate")))
    end_node(second_node)
    here.write_text("go on")
    _, stderr = end_of(run)

    assert run.returncode == 0, stderr
    assert {path.name for path in tmp_path.glob("death-*")} == {f"death-of-{who}" for who in DEATHS}
    assert [getattr(recorder, trouble) for trouble in TROUBLES] == [0] * len(TROUBLES)
    assert committed.items() <= bucket.objects("out/annotations/").items()
    was_read = {r.split("?")[0] for r in recorder.requests if r.startswith("GET") and ".tar" in r}
    assert len(was_read) == len(IMAGES) - len(committed)
    keys = primary_keys(read(bucket))
    assert set(keys.values()) == {1}
    assert len(keys) == sum(IMAGES.values())
    verified = kosmos2.run_here("verify", bucket.output)
    assert verified.returncode == 0, verified.stdout
