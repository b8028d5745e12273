"""What actors ask of a cluster, and what it has."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import ray

from pipeline.errors import SpecError
from pipeline.execution.ray_private import actors_of, kill_actor
from pipeline.spec.job import JobSpec

_ACCELERATOR = "accelerator_type:"  # as Ray begins the names of such resources


@dataclass(frozen=True, slots=True, kw_only=True)
class ActorResources:
    """The resources of each actor. `options` are Ray's names for them."""

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
    """The resources of a cluster, those that are free, and the actors of this job.

    `starting` have their place, and are not through with their constructor.
    """

    cpus: float
    free_cpus: float
    gpus: float
    free_gpus: float
    actors: int
    starting: int = 0


def actor_resources(spec: JobSpec) -> ActorResources:
    """GPUs for each actor where the job wants CUDA and the cluster has it, else CPUs.

    Raises SpecError where the actors and one reader do not fit; of a pool that grows, the least.
    """
    total, (actors, most) = ray.cluster_resources(), spec.actors
    cpus, gpus = total.get("CPU", 0), total.get("GPU", 0)
    has_gpus = gpus >= actors * (spec.gpus_per_actor or 1)
    if not has_gpus and (spec.device.startswith("cuda") or spec.gpus_per_actor):
        raise SpecError(
            f"{actors} actors of {spec.gpus_per_actor or 1:g} GPUs asked for, the cluster has "
            f"{gpus:g}; use fewer --actors or --device cpu without --gpus-per-actor"
        )
    if cpus < actors + 1:
        raise SpecError(
            f"{actors} actors and one reader need {actors + 1} CPUs, the cluster has "
            f"{cpus:g}; use fewer --actors"
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
            f"no node has the accelerator {name}; there are: {', '.join(there) or 'none'}"
        )


def _cpus_per_actor(actors: int) -> int:
    """On one node all CPUs but a reader's are shared out; on several, one each is sure to fit."""
    nodes = [node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]]
    return max(int(nodes[0] - 1) // actors, 1) if len(nodes) == 1 else 1


def cluster_load(actor_class: type) -> ClusterLoad:
    total, free = ray.cluster_resources(), ray.available_resources()
    actors = actors_of(actor_class)
    return ClusterLoad(
        cpus=total.get("CPU", 0),
        free_cpus=free.get("CPU", 0),
        gpus=total.get("GPU", 0),
        free_gpus=free.get("GPU", 0),
        actors=sum(actor["State"] == "ALIVE" for actor in actors),
        starting=sum(_is_starting(actor) for actor in actors),
    )


def end_actor(actor_class: type) -> None:
    """One that has its place, the one that was started again most often: for good. Whatever it has
    in work fails."""
    actors = actors_of(actor_class)
    placed = [actor for actor in actors if actor["State"] == "ALIVE" or _is_starting(actor)]
    if placed:
        kill_actor(max(placed, key=lambda actor: int(actor["NumRestarts"])))


def _is_starting(actor: Mapping[str, Any]) -> bool:
    """One that waits for its place has no port yet."""
    return actor["State"] == "PENDING_CREATION" and bool(actor["Address"]["Port"])
