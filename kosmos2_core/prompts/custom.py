"""Tasks that users define, checked before anything is loaded."""

import re
from string import Formatter

from kosmos2_core.grounding.parser import has_markup
from kosmos2_core.grounding.vocabulary import Tag
from kosmos2_core.prompts.tasks import FIELD_KINDS, TASKS, Task

MAX_PROMPT_CHARACTERS = 1000
MAX_NEW_TOKENS = 1024  # the model has 2,048 positions, for prompt and answer
_NAME = re.compile(r"[a-z][a-z0-9-]{0,39}")
_FIELD = re.compile(r"[a-z][a-z0-9_]*")
_PHRASE = re.compile(re.escape(Tag.PHRASE) + r" [^<]+" + re.escape(Tag.END_OF_PHRASE))


def own_task(
    *, name: str, prompt: str, grounded: bool, max_new_tokens: int, ends_with_boxes: bool
) -> Task:
    """Make a task from a user's definition.

    `prompt` is the text after the image, without `<grounding>`. It can contain slots `{field}` or
    `{field:kind}` (`tasks.FIELD_KINDS`) and marked phrases, such as `<phrase> {thing}</phrase>`.

    Raises ValueError if the definition is not valid.
    """
    if name in TASKS:
        raise ValueError(f"name {name!r} is that of a built-in task: choose another name")
    if _NAME.fullmatch(name) is None:
        raise ValueError(
            f"name {name!r} is not valid: use a-z, 0-9 and -, begin with a letter, and use at most "
            "40 characters"
        )
    if not 1 <= max_new_tokens <= MAX_NEW_TOKENS:
        raise ValueError(f"max_new_tokens is {max_new_tokens}; it must be in 1..{MAX_NEW_TOKENS}")
    _check_prompt(prompt)
    if ends_with_boxes and not (grounded and prompt.endswith(Tag.END_OF_PHRASE)):
        raise ValueError(
            "ends_with_boxes needs `grounded: true` and a prompt that ends with "
            f"{Tag.END_OF_PHRASE}"
        )
    # The model was trained with a space before words and none before a tag.
    space = "" if prompt.startswith(Tag.PHRASE) else " "
    return Task(
        name=name,
        prompt=f"{Tag.GROUNDING}{space}{prompt}" if grounded else prompt,
        max_new_tokens=max_new_tokens,
        is_done_with_boxes=ends_with_boxes,
    )


def _check_prompt(prompt: str) -> None:
    if not prompt.strip() or prompt != prompt.strip():
        raise ValueError("prompt must not be empty or begin or end with whitespace")
    if len(prompt) > MAX_PROMPT_CHARACTERS:
        raise ValueError(f"prompt has more than {MAX_PROMPT_CHARACTERS} characters: shorten it")
    if Tag.GROUNDING in prompt:
        raise ValueError(f"prompt contains {Tag.GROUNDING}: use `grounded: true` instead")
    try:
        pieces = list(Formatter().parse(prompt))
    except ValueError as error:
        raise ValueError(
            f"the braces in prompt do not match ({error}): write {{{{ and }}}} for literal braces"
        ) from None
    plain = ""  # the prompt, with a letter in place of each text
    for literal, field, kind, conversion in pieces:
        plain += literal
        if field is None:
            continue
        _check_slot(field, kind or "", conversion)
        if kind == "box" or (field == "box" and not kind):
            if not plain.endswith(Tag.END_OF_PHRASE):
                raise ValueError(
                    f"prompt has the box {{{field}}} without a phrase before it: write "
                    f"{Tag.PHRASE} it{Tag.END_OF_PHRASE}{{{field}}}"
                )
        else:
            plain += "x"
    if has_markup(_PHRASE.sub("", plain)):
        raise ValueError(
            f"prompt contains markup other than phrases: write phrases as {Tag.PHRASE} words"
            f"{Tag.END_OF_PHRASE}, with the space, and boxes as {{field:box}}"
        )


def _check_slot(field: str, kind: str, conversion: str | None) -> None:
    if _FIELD.fullmatch(field) is None:
        raise ValueError(
            f"slot {{{field}}} of prompt: its name must use a-z, 0-9 and _ and begin with a letter"
        )
    if conversion or (kind and kind not in FIELD_KINDS):
        raise ValueError(
            f"slot {{{field}}} of prompt has an unknown kind or a conversion: write {{{field}}}, "
            + ", ".join(f"{{{field}:{each}}}" for each in FIELD_KINDS)
        )
