"""Tasks of a job, with the fields that their prompts are made of, and tasks of users."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from kosmos2_core.errors import UnknownTask
from kosmos2_core.prompts.custom import own_task
from kosmos2_core.prompts.tasks import Task, task_named
from kosmos2_core.prompts.text import PromptFields
from pipeline.spec.fields import look_up

_FORM = re.compile(r"(?P<name>[^:]+)(?::(?P<sources>.+))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskUse:
    """A task of a job. `sources` pairs every field of the task with its source.

    A source is the name of a metadata field, or a path, as in `objects.0.phrase`.
    """

    task: Task
    sources: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, text: str, own: Mapping[str, Task] = MappingProxyType({})) -> Self:
        """Parse a task, such as `brief`, `ground`, `ground:phrase=caption`, `ask:phrase=a,box=b`.

        `own` holds additional tasks. The source of an unnamed field is the field of the same name.
        Raises ValueError, UnknownTask.
        """
        match = _FORM.fullmatch(text)
        if match is None:
            raise ValueError(
                f"{text!r} is not a task; give for example brief or ground:phrase=caption"
            )
        task = own.get(match["name"]) or _known(match["name"], own)
        return cls(task=task, sources=_sources(text, task, match["sources"]))

    def fields_of(self, metadata: Mapping[str, object]) -> PromptFields:
        """Return the fields that this sample has."""
        found = {field: look_up(metadata, path) for field, path in self.sources}
        return {field: value for field, value in found.items() if value is not None}


def _known(name: str, own: Mapping[str, Task]) -> Task:
    try:
        return task_named(name)
    except UnknownTask as error:
        raise UnknownTask(", ".join([str(error), *own])) from None


def _sources(text: str, task: Task, given: str | None) -> tuple[tuple[str, str], ...]:
    named = dict[str, str]()
    for part in given.split(",") if given else ():
        field, equals, source = part.partition("=")
        if not equals or not source or field in named:
            raise ValueError(
                f"{text!r}: {part!r} is not FIELD=METADATA_FIELD, or repeats a field; correct it"
            )
        named[field] = source
    if unknown := [field for field in named if field not in task.fields]:
        known = ", ".join(task.fields) or "none"
        raise ValueError(f"{text!r}: task {task.name} has no field {unknown[0]!r}; it has {known}")
    return tuple((field, named.get(field, field)) for field in task.fields)


class TaskDefinition(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(description="Name of the task, for --task and the column `task`.")
    prompt: str = Field(
        description="Text that follows the image, with {field} for fields of the sample."
    )
    grounded: bool = Field(False, description="Ask for phrases with boxes.")
    max_new_tokens: int = Field(128, description="Maximum length of an answer, in tokens.")
    ends_with_boxes: bool = Field(
        False, description="The answer is the boxes of the prompt's last phrase."
    )

    @model_validator(mode="after")
    def _is_sound(self) -> Self:
        try:
            self.task  # noqa: B018 - it checks
        except ValueError as error:
            raise ValueError(f"task {self.name}: {error}") from None
        return self

    @property
    def task(self) -> Task:
        return own_task(
            name=self.name,
            prompt=self.prompt,
            grounded=self.grounded,
            max_new_tokens=self.max_new_tokens,
            ends_with_boxes=self.ends_with_boxes,
        )
