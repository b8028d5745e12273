"""What can be asked of the model about one image.

A task is data: its prompt is a template, whose `{fields}` name what it needs from the sample
(`<grounding><phrase> {phrase}</phrase>` needs a phrase), and limits. `prompts` fills it in. A field
is text, unless it is called `box` or says another kind: `{count:number}`, `{region:box}`.
"""

from dataclasses import dataclass
from string import Formatter

from kosmos2_core.errors import UnknownTask

FIELD_KINDS = ("text", "number", "box")  # kinds of fields


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """`optional` are fields that the prompt does without. With `is_done_with_boxes` the answer is
    the boxes of the prompt's last phrase: it ends when they are closed."""

    name: str
    prompt: str
    max_new_tokens: int
    optional: tuple[str, ...] = ()
    is_done_with_boxes: bool = False

    @property
    def fields(self) -> tuple[str, ...]:
        """The names of what the prompt needs from the sample, in order, and what it can use."""
        named = (name for _, name, _, _ in Formatter().parse(self.prompt) if name)
        return tuple(dict.fromkeys((*named, *self.optional)))

    def kind_of(self, field: str) -> str:
        """One of FIELD_KINDS."""
        said = (kind for _, name, kind, _ in Formatter().parse(self.prompt) if name == field)
        return next(said, None) or ("box" if field == "box" else "text")


# The prompts are those of the model card; they must be met to the letter, or quality drops.
# The limits hold every answer that we have seen, with room to spare.
BRIEF = Task(name="brief", prompt="<grounding> An image of", max_new_tokens=128)
DETAILED = Task(
    name="detailed", prompt="<grounding> Describe this image in detail:", max_new_tokens=256
)
PLAIN = Task(name="plain", prompt="An image of", max_new_tokens=64)
PLAIN_DETAILED = Task(
    name="plain-detailed", prompt="Describe this image in detail:", max_new_tokens=192
)
# Phrase grounding and referring expression comprehension: a phrase -> its boxes.
GROUND = Task(
    name="ground",
    prompt="<grounding><phrase> {phrase}</phrase>",
    max_new_tokens=64,
    is_done_with_boxes=True,
)
# Referring expression generation: a box -> what is in it.
DESCRIBE = Task(
    name="describe", prompt="<grounding><phrase> It</phrase>{box} is", max_new_tokens=64
)
# Visual question answering. The words `phrase` of the question may be tied to a box.
ASK = Task(
    name="ask",
    prompt="Question: {question} Answer:",
    max_new_tokens=64,
    optional=("phrase", "box"),
)
ASK_GROUNDED = Task(
    name="ask-grounded",
    prompt="<grounding> Question: {question} Answer:",
    max_new_tokens=128,
    optional=("phrase", "box"),
)

TASKS = {
    task.name: task
    for task in (BRIEF, DETAILED, PLAIN, PLAIN_DETAILED, GROUND, DESCRIBE, ASK, ASK_GROUNDED)
}


def task_named(name: str) -> Task:
    """Raises UnknownTask, listing those there are."""
    try:
        return TASKS[name]
    except KeyError:
        known = ", ".join(TASKS)
        raise UnknownTask(f"no task named {name!r}; there are: {known}") from None
