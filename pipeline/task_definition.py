"""A task of the user's own, as a job file has it."""

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from kosmos2_core.prompts.custom import own_task
from kosmos2_core.prompts.tasks import Task


class TaskDefinition(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(description="As in --task and in the column `task`.")
    prompt: str = Field(description="What follows the image, with {field}s of the sample.")
    grounded: bool = Field(False, description="Ask for phrases with boxes.")
    max_new_tokens: int = Field(128, description="How long an answer may become.")
    ends_with_boxes: bool = Field(False, description="It is the boxes of the prompt's last phrase.")

    @model_validator(mode="after")
    def _is_sound(self) -> Self:
        try:
            _ = self.task
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
