"""What can be asked of the model about one image.

A task is data: its prompt is a template, whose `{fields}` name what it needs from the sample
(`<grounding><phrase> {phrase}</phrase>` needs a phrase), and limits. The two tasks here need
nothing but the image.
"""

from dataclasses import dataclass
from string import Formatter

from kosmos2_core.errors import UnknownTask


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    name: str
    prompt: str
    max_new_tokens: int

    @property
    def fields(self) -> tuple[str, ...]:
        """The names of what the prompt needs from the sample, in order."""
        return tuple(name for _, name, _, _ in Formatter().parse(self.prompt) if name)


# The prompts are those of the model card; both must be met to the letter, or quality drops.
# The limits hold every caption of the two tasks that we have seen, with room to spare.
BRIEF = Task(name="brief", prompt="<grounding> An image of", max_new_tokens=128)
DETAILED = Task(
    name="detailed", prompt="<grounding> Describe this image in detail:", max_new_tokens=256
)

TASKS = {task.name: task for task in (BRIEF, DETAILED)}


def task_named(name: str) -> Task:
    """Raises UnknownTask, listing those there are."""
    try:
        return TASKS[name]
    except KeyError:
        known = ", ".join(TASKS)
        raise UnknownTask(f"no task named {name!r}; there are: {known}") from None
