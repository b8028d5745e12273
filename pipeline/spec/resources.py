"""How many actors, on what: what a job asks of its cluster."""

import re
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator


def _actors(value: object) -> object:
    """A number is as good as its digits: YAML has it, and earlier records do."""
    text = str(value)
    match = re.fullmatch(r"([1-9]\d*)(?::([1-9]\d*))?", text, re.ASCII)
    if match is None or int(match[2] or match[1]) < int(match[1]):
        raise ValueError(f"{text!r}: give a number from 1 on, or a range of them, as in 2:64")
    return text


Actors = Annotated[str, BeforeValidator(_actors)]


class Placement(BaseModel):
    """None of it changes what is annotated."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    actors: Actors = Field(
        "1",
        description="Model actors: a number, or MIN:MAX for as many as there is work and room for.",
    )
    gpus_per_actor: float | None = Field(
        None,
        gt=0,
        description="0.5 puts two actors on a GPU; then --slots is needed. Default: 1 where there "
        "are any.",
    )
    accelerator_type: str | None = Field(
        None, description="Only on nodes with that accelerator, as in A100."
    )
    actor_label: tuple[str, ...] = Field(
        (), description="KEY=VALUE: actors only on nodes with that label. Repeat for more."
    )
    reader_label: tuple[str, ...] = Field(
        (), description="KEY=VALUE: readers only on nodes with that label. Repeat for more."
    )

    @field_validator("actor_label", "reader_label")
    @classmethod
    def _pairs(cls, labels: tuple[str, ...]) -> tuple[str, ...]:
        for label in labels:
            if not re.fullmatch(r"[^=\s]+=\S+", label):
                raise ValueError(f"{label!r}: give a key and a value, as in pool=readers")
        return labels

    @property
    def least_actors(self) -> int:
        return int(self.actors.partition(":")[0])

    @property
    def most_actors(self) -> int:
        return int(self.actors.rpartition(":")[2])

    @property
    def is_fixed_pool(self) -> bool:
        return self.least_actors == self.most_actors

    @property
    def actor_labels(self) -> dict[str, str]:
        return _as_dict(self.actor_label)

    @property
    def reader_labels(self) -> dict[str, str]:
        return _as_dict(self.reader_label)


def _as_dict(labels: tuple[str, ...]) -> dict[str, str]:
    return {key: value for key, _, value in (label.partition("=") for label in labels)}
