"""How many actors, on what: what a job asks of its cluster.

Values are typed; their text is what flags, job files and `job.json` have.
"""

import re
from collections.abc import Mapping
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer


def _parse_actors(value: object) -> object:
    """`2:64`, or one number: YAML has it, and earlier records do."""
    if isinstance(value, tuple | list):
        value = ":".join(map(str, value))
    text = str(value)
    match = re.fullmatch(r"([1-9]\d*)(?::([1-9]\d*))?", text, re.ASCII)
    if match is None or int(match[2] or match[1]) < int(match[1]):
        raise ValueError(f"{text!r}: give a number from 1 on, or a range of them, as in 2:64")
    return int(match[1]), int(match[2] or match[1])


def actors_text(actors: tuple[int, int]) -> str:
    least, most = actors
    return str(least) if least == most else f"{least}:{most}"


def _parse_labels(value: object) -> object:
    """`KEY=VALUE`, several."""
    if not isinstance(value, tuple | list):
        return value
    for label in value:
        if not re.fullmatch(r"[^=\s]+=\S+", str(label)):
            raise ValueError(f"{label!r}: give a key and a value, as in pool=readers")
    return dict(label.split("=", 1) for label in value)


def labels_text(labels: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(f"{key}={value}" for key, value in labels.items())


Actors = Annotated[tuple[int, int], BeforeValidator(_parse_actors), PlainSerializer(actors_text)]
Labels = Annotated[dict[str, str], BeforeValidator(_parse_labels), PlainSerializer(labels_text)]


class SpendingLimits(BaseModel):
    """Limits of what a dataset may cost. They do not change its annotations."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    gpu_hour_cost: float | None = Field(
        None, ge=0, allow_inf_nan=False, description="Price of one GPU hour, in any currency."
    )
    max_gpu_hours: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="End the run with exit code 7 when GPUs were held for that many hours, counted "
        "over all runs on the output. The same command with a higher limit resumes.",
    )
    max_cost: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="As --max-gpu-hours, by what these hours cost with --gpu-hour-cost.",
    )

    def check_price(self) -> None:
        """Raise ValueError for a limit of cost without a price."""
        if self.max_cost is not None and self.gpu_hour_cost is None:
            raise ValueError("--max-cost needs the price of a GPU hour: add --gpu-hour-cost")


# A GPU annotates up to 900 images/s, and half a core of a driver carries 30,000: see docs/scale.md.
GPU_ACTORS_PER_DRIVER = 32


class Placement(BaseModel):
    """Ray resources of a job. They do not change its annotations. `actors`: least and most."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    actors: Actors = Field(
        (1, 1),
        description="Number of model actors. MIN:MAX autoscales with the backlog and the free "
        "resources.",
    )
    drivers: int | None = Field(
        None,
        ge=1,
        description="Number of driver processes, each for a part of the shards; at most one per "
        "actor. Default: so many that each is half busy at most, by the pace of earlier runs on "
        "the output. A first run expects 900 images/s of a GPU; without GPUs it has one driver.",
    )
    gpus_per_actor: float | None = Field(
        None,
        gt=0,
        description="GPUs that each actor reserves. 0.5 puts two actors on a GPU; each "
        "takes half of its memory. Default: 1 if the cluster has GPUs, otherwise 0.",
    )
    accelerator_type: str | None = Field(
        None, description="Ray accelerator type that actors require, such as A100."
    )
    actor_label: Labels = Field(
        {}, description="Node label that actors require, as KEY=VALUE. Repeat for several."
    )
    reader_label: Labels = Field(
        {}, description="Node label that readers require, as KEY=VALUE. Repeat for several."
    )

    def drivers_for(self, needed: int) -> int:
        """Return the number of drivers where `needed` keep up; each has an actor from the start."""
        return min(self.drivers or needed, self.actors[0])
