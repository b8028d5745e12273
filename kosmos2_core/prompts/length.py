"""Upper limits for the tokens of a prompt and its answer, known before a tokenizer is loaded."""

from string import Formatter

from kosmos2_core.engine.requests import PREFIX_LENGTH
from kosmos2_core.prompts.tasks import Task

# Tokens of a field. An English text of 512 tokens has about 2,000 letters, the limit of a text; a
# box has four tokens, a delimiter one.
_FIELD_TOKENS = {"text": 512, "number": 32, "box": 64}


def most_tokens(task: Task) -> int:
    """Return the most tokens of a prompt of this task and its answer, the image's 67 included.

    A text has at most as many tokens as bytes. Longer fields are refused by the engine.
    """
    fixed = sum(len(literal.encode()) for literal, *_ in Formatter().parse(task.prompt))
    fields = sum(_FIELD_TOKENS[task.kind_of(name)] for name in task.fields)
    return PREFIX_LENGTH + fixed + fields + task.max_new_tokens
