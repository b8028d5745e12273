"""The resources that actors request, and those that a cluster has."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import ray

from pipeline.errors import SpecError
from pipeline.execution.ray_private import actors_of, are_own, kill_actor
from pipeline.spec.job import JobSpec

_ACCELERATOR = "accelerator_type:"  # Ray's prefix for the names of such resources


@dataclass(frozen=True, slots=True, kw_only=True)
class ActorResources:
    """The resources of each actor. `options` has Ray's names for them."""

    num_cpus: float
    num_gpus: float
    accelerator_type: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def options(self) -> dict[str, Any]:
        return {
            "num_cpus": self.num_cpus,
            "num_gpus": self.num_gpus,
            "accelerator_type": self.accelerator_type,
            "label_selector": dict(self.labels) or None,
        }

    def __str__(self) -> str:
        return ", ".join(
            [
                f"{self.num_cpus:g} CPU",
                *([f"{self.num_gpus:g} GPU"] if self.num_gpus else []),
                *([self.accelerator_type] if self.accelerator_type else []),
                *(f"{key}={value}" for key, value in self.labels.items()),
            ]
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterLoad:
    """The resources of a cluster, the free ones, and the actors of this driver.

    `starting` counts actors that are placed but still in their constructor, `others` the placed
    actors of the run's other drivers.
    """

    cpus: float
    free_cpus: float
    gpus: float
    free_gpus: float
    actors: int
    starting: int = 0
    others: int = 0

    def readers(self, resources: ActorResources) -> float:
        """Return how many readers find a CPU beside all actors of the run; may be negative."""
        placed = self.actors + self.starting + self.others
        return self.cpus - placed * resources.num_cpus


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """The part of a cluster that one of several drivers uses.

    Attributes:
        actors: Least and most actors of the driver.
        of: Most actors of the run.
    """

    actors: tuple[int, int]
    of: int

    @property
    def fraction(self) -> float:
        return self.actors[1] / self.of


def actor_resources(spec: JobSpec) -> ActorResources:
    """Return GPUs for each actor if the job wants CUDA and the cluster has it, else CPUs.

    Raises SpecError if the actors and one reader do not fit; for an autoscaling pool, its minimum.
    """
    total, (actors, most) = ray.cluster_resources(), spec.actors
    cpus, gpus = total.get("CPU", 0), total.get("GPU", 0)
    has_gpus = gpus >= actors * (spec.gpus_per_actor or 1)
    # With some GPUs, `auto` does not mean that all actors use the CPU.
    wants_gpus = spec.device.startswith("cuda") or (spec.device == "auto" and gpus > 0)
    if not has_gpus and (wants_gpus or spec.gpus_per_actor):
        raise SpecError(
            f"{actors} actors with {spec.gpus_per_actor or 1:g} GPUs each do not fit, as the "
            f"cluster has {gpus:g} GPUs; use fewer --actors or a smaller --gpus-per-actor, add "
            "nodes, or use --device cpu without --gpus-per-actor"
        )
    if cpus < actors + 1:
        raise SpecError(
            f"{actors} actors and one reader need {actors + 1} CPUs, but the cluster has "
            f"{cpus:g}; use fewer --actors, or add nodes"
        )
    _check_accelerator(spec.accelerator_type, total)
    is_on_gpu = has_gpus and spec.device != "cpu"
    return ActorResources(
        num_cpus=1 if is_on_gpu else _cpus_per_actor(most),
        num_gpus=(spec.gpus_per_actor or 1) if is_on_gpu else 0,
        accelerator_type=spec.accelerator_type,
        labels=spec.actor_label,
    )


def _check_accelerator(name: str | None, total: Mapping[str, float]) -> None:
    there = [each.removeprefix(_ACCELERATOR) for each in total if each.startswith(_ACCELERATOR)]
    if name is not None and name not in there:
        raise SpecError(
            f"no node has the accelerator {name} (the nodes have: {', '.join(there) or 'none'}); "
            "correct or leave out --accelerator-type"
        )


def _cpus_per_actor(actors: int) -> int:
    """Return the CPUs of an actor.

    On one node, actors share all CPUs except a reader's. On several nodes, one CPU each is sure to
    fit.
    """
    nodes = [node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]]
    return max(int(nodes[0] - 1) // actors, 1) if len(nodes) == 1 else 1


def cluster_load(actor_class: type) -> ClusterLoad:
    total, free = ray.cluster_resources(), ray.available_resources()
    actors, others = _placed(actor_class)
    return ClusterLoad(
        cpus=total.get("CPU", 0),
        free_cpus=free.get("CPU", 0),
        gpus=total.get("GPU", 0),
        free_gpus=free.get("GPU", 0),
        actors=sum(actor["State"] == "ALIVE" for actor in actors),
        starting=sum(_is_starting(actor) for actor in actors),
        others=len(others),
    )


def end_actor(actor_class: type) -> None:
    """End the placed actor that was restarted most often, permanently. Its tables fail."""
    placed, _ = _placed(actor_class)
    if placed:
        kill_actor(max(placed, key=lambda actor: int(actor["NumRestarts"])))


def _placed(actor_class: type) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
    """Return the placed actors of this driver, and those of the run's other drivers."""
    actors = actors_of(actor_class)
    placed = [actor for actor in actors if actor["State"] == "ALIVE" or _is_starting(actor)]
    are_mine = are_own(placed)
    mine = [actor for actor, is_mine in zip(placed, are_mine, strict=True) if is_mine]
    return mine, [actor for actor, is_mine in zip(placed, are_mine, strict=True) if not is_mine]


def _is_starting(actor: Mapping[str, Any]) -> bool:
    """Return whether an actor is in its constructor; one that is not placed has no port yet."""
    return actor["State"] == "PENDING_CREATION" and bool(actor["Address"]["Port"])
