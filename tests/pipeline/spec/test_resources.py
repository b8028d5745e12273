"""What a job asks of its cluster."""

import signal
import sys
from typing import Any

import pytest
import ray
from pydantic import ValidationError

from kosmos2_core.annotator import Annotator
from pipeline.errors import SpecError
from pipeline.execution import graph
from pipeline.execution.cluster import connect
from pipeline.execution.model import load_annotator
from pipeline.execution.resources import ActorResources, actor_resources
from pipeline.spec.job import JobSpec


def spec(**options: Any) -> JobSpec:
    return JobSpec(input="in", output="out", **options)


@pytest.mark.parametrize(
    ("actors", "least", "most"), [("3", 3, 3), (3, 3, 3), ("2:64", 2, 64), ("2:2", 2, 2)]
)
def test_actors_are_a_number_or_a_range(actors: object, least: int, most: int) -> None:
    asked = spec(actors=actors)
    assert asked.actors == (least, most)


@pytest.mark.parametrize("actors", [0, "0:3", "3:2", "2:", ":2", "two", "2-3", "1:2:3"])
def test_other_numbers_of_actors_are_refused(actors: object) -> None:
    with pytest.raises(ValidationError, match="2:64"):
        spec(actors=actors)


def test_labels_are_pairs() -> None:
    asked = spec(reader_label=("pool=cpu", "zone=a=b"))
    assert asked.reader_label == {"pool": "cpu", "zone": "a=b"}
    with pytest.raises(ValidationError, match="pool=readers"):
        spec(actor_label=("pool",))


@pytest.mark.parametrize(("gpus", "share"), [(None, 1), (0.5, 0.5), (2, 1)])
def test_actors_that_share_a_gpu_share_its_memory(
    monkeypatch: pytest.MonkeyPatch, gpus: float | None, share: float
) -> None:
    asked: dict[str, Any] = {}
    monkeypatch.setattr(Annotator, "from_pretrained", lambda name, **options: asked.update(options))
    load_annotator(spec(gpus_per_actor=gpus))
    assert asked["gpu_share"] == share


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Stands in for GPUs that are not here."""
    total = {"CPU": 8.0, "GPU": 2.0, "accelerator_type:A100": 1.0}
    monkeypatch.setattr(ray, "cluster_resources", lambda: total)
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": total}])
    return total


def test_each_actor_gets_what_it_asked_for(cluster: dict[str, float]) -> None:
    asked = spec(
        actors="4:64",
        gpus_per_actor=0.5,
        slots=8,
        accelerator_type="A100",
        actor_label=("pool=gpu",),
    )
    resources = actor_resources(asked)
    assert resources.options == {
        "num_cpus": 1,
        "num_gpus": 0.5,
        "accelerator_type": "A100",
        "label_selector": {"pool": "gpu"},
    }
    assert str(resources) == "1 CPU, 0.5 GPU, A100, pool=gpu"


def test_of_a_growing_pool_the_least_must_fit(cluster: dict[str, float]) -> None:
    assert actor_resources(spec(actors="2:64")) == ActorResources(num_cpus=1, num_gpus=1)
    with pytest.raises(SpecError, match="3 actors with 1 GPUs each"):
        actor_resources(spec(actors="3:64", device="cuda"))
    with pytest.raises(SpecError, match="9 CPUs, but the cluster has 8"):
        actor_resources(spec(actors="8:64", device="cpu"))


def test_auto_is_refused_where_gpus_do_not_suffice(cluster: dict[str, float]) -> None:
    with pytest.raises(SpecError, match=r"3 actors with 1 GPUs each do not fit.* --device cpu"):
        actor_resources(spec(actors=3))
    assert actor_resources(spec(actors=3, device="cpu")).num_gpus == 0
    assert actor_resources(spec(actors=4, gpus_per_actor=0.5)).num_gpus == 0.5


def test_actors_without_a_gpu_are_told_to_use_the_cpu() -> None:
    """Ray leaves all GPUs of the node visible to them."""
    without, with_gpu = (ActorResources(num_cpus=1, num_gpus=gpus) for gpus in (0, 1))
    assert graph._placed(spec(), without).device == "cpu"
    assert graph._placed(spec(), with_gpu).device == "auto"


def test_gpus_that_are_asked_for_must_be_there(cluster: dict[str, float]) -> None:
    cluster["GPU"] = 0
    assert actor_resources(spec()).num_gpus == 0
    with pytest.raises(SpecError, match="the cluster has 0"):
        actor_resources(spec(gpus_per_actor=1))


def test_accelerator_that_no_node_has_is_named(cluster: dict[str, float]) -> None:
    with pytest.raises(SpecError, match=r"H100 \(the nodes have: A100"):
        actor_resources(spec(accelerator_type="H100"))


def test_a_signal_while_ray_starts_is_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: object) -> None:
        """Ray puts its own handler in place, which exits with the signal's number."""
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(number))
        signal.raise_signal(signal.SIGTERM)

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ray, "init", init)
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            connect()
        assert signal.getsignal(signal.SIGTERM) is interrupt
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(
    ("asked", "actors", "needed", "drivers"),
    [
        (None, 1, 1, 1),
        (None, 256, 7, 7),
        (None, (2, 256), 7, 2),  # each needs an actor from the start
        (4, 8, 1, 4),
        (4, (3, 8), 1, 3),
        (1, 256, 7, 1),
    ],
)
def test_number_of_drivers(asked: int | None, actors: object, needed: int, drivers: int) -> None:
    spec = JobSpec.model_validate(
        {"input": "in", "output": "out", "actors": actors, "drivers": asked}
    )
    assert spec.drivers_for(needed) == drivers
