"""Tasks: the questions that the model can be asked about one image.

A task is data: a prompt template and limits. The `{fields}` of the template are filled in from the
sample: `<grounding><phrase> {phrase}</phrase>` needs a phrase. A field is text, unless its name is
`box` or it names another kind: `{count:number}`, `{region:box}`.
"""

from dataclasses import dataclass
from string import Formatter

from kosmos2_core.errors import UnknownTask

FIELD_KINDS = ("text", "number", "box")  # kinds of fields


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A prompt template and its limits. `TASKS` holds the built-in tasks by name.

    Attributes:
        name: Name of the task, as in the column `task`.
        prompt: Template of the text after the image. `{field}` or `{field:kind}` is filled in from
            the sample; kinds are text, number and box. `<grounding>` asks for boxes.
        max_new_tokens: Maximum number of generated tokens.
        optional: Fields that the prompt can use but does not require.
        is_done_with_boxes: Whether the answer ends when the boxes of the prompt's last phrase are
            closed.

    Example:
        >>> TASKS["ground"].prompt
        '<grounding><phrase> {phrase}</phrase>'
        >>> TASKS["ground"].fields
        ('phrase',)
        >>> cats = Task(name="cats", prompt="<grounding> The cats are", max_new_tokens=64)
        >>> cats.fields
        ()
    """

    name: str
    prompt: str
    max_new_tokens: int
    optional: tuple[str, ...] = ()
    is_done_with_boxes: bool = False

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the fields in the prompt, in order, then of the optional ones."""
        named = (name for _, name, _, _ in Formatter().parse(self.prompt) if name)
        return tuple(dict.fromkeys((*named, *self.optional)))

    def kind_of(self, field: str) -> str:
        """Return the kind of a field.

        Args:
            field: Name of the field.

        Returns:
            "text", "number" or "box".
        """
        said = (kind for _, name, kind, _ in Formatter().parse(self.prompt) if name == field)
        return next(said, None) or ("box" if field == "box" else "text")


# The prompts are those of the model card. Any other wording lowers the quality of the answers.
# The token limits leave room beyond the longest answers seen.
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
# Visual question answering. `phrase`, a part of the question, can be bound to a box.
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
"""The built-in tasks, by name."""


def task_named(name: str) -> Task:
    """Return the built-in task of a name. Raises UnknownTask."""
    try:
        return TASKS[name]
    except KeyError:
        known = ", ".join(TASKS)
        raise UnknownTask(f"no task named {name!r}; there are: {known}") from None
