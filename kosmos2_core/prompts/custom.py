"""Tasks that users define: a template of theirs, checked before anything is loaded."""

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
    """`prompt` is what follows the image, `<grounding>` aside, with slots `{field}` or
    `{field:kind}` (`tasks.FIELD_KINDS`). It may mark phrases, as in `<phrase> {thing}</phrase>`.

    Raises ValueError, naming what is wrong.
    """
    if _NAME.fullmatch(name) is None or name in TASKS:
        taken = "that is one of ours" if name in TASKS else "want a-z, 0-9 and -, a letter first"
        raise ValueError(f"name {name!r}: {taken}")
    if not 1 <= max_new_tokens <= MAX_NEW_TOKENS:
        raise ValueError(f"max_new_tokens is {max_new_tokens}, not in 1 .. {MAX_NEW_TOKENS}")
    _check_prompt(prompt)
    if ends_with_boxes and not (grounded and prompt.endswith(Tag.END_OF_PHRASE)):
        raise ValueError(
            "an answer that ends with the boxes of a phrase needs `grounded: true` and a prompt "
            f"that ends with {Tag.END_OF_PHRASE}"
        )
    # As in the model's own prompts: a space before words, none before a tag.
    space = "" if prompt.startswith(Tag.PHRASE) else " "
    return Task(
        name=name,
        prompt=f"{Tag.GROUNDING}{space}{prompt}" if grounded else prompt,
        max_new_tokens=max_new_tokens,
        is_done_with_boxes=ends_with_boxes,
    )


def _check_prompt(prompt: str) -> None:
    if not prompt.strip() or prompt != prompt.strip():
        raise ValueError("its prompt must be text, without space around it")
    if len(prompt) > MAX_PROMPT_CHARACTERS:
        raise ValueError(f"its prompt has more than {MAX_PROMPT_CHARACTERS} characters")
    if Tag.GROUNDING in prompt:
        raise ValueError(f"its prompt holds {Tag.GROUNDING}: say `grounded: true` instead")
    try:
        pieces = list(Formatter().parse(prompt))
    except ValueError as error:
        raise ValueError(f"its prompt has a brace too many, or too few: {error}") from None
    plain = ""  # the prompt, with a letter in place of each text
    for literal, field, kind, conversion in pieces:
        plain += literal
        if field is None:
            continue
        _check_slot(field, kind or "", conversion)
        if kind == "box" or (field == "box" and not kind):
            if not plain.endswith(Tag.END_OF_PHRASE):
                raise ValueError(
                    f"the box {{{field}}} must follow the phrase it is of: "
                    f"{Tag.PHRASE} it{Tag.END_OF_PHRASE}{{{field}}}"
                )
        else:
            plain += "x"
    if has_markup(_PHRASE.sub("", plain)):
        raise ValueError(
            f"its prompt holds markup that is no phrase: write {Tag.PHRASE} words"
            f"{Tag.END_OF_PHRASE}, with the space, and boxes as {{field:box}}"
        )


def _check_slot(field: str, kind: str, conversion: str | None) -> None:
    if _FIELD.fullmatch(field) is None:
        raise ValueError(f"slot {{{field}}}: its name must be of a-z, 0-9 and _, a letter first")
    if conversion or (kind and kind not in FIELD_KINDS):
        raise ValueError(
            f"slot {{{field}}}: it is one of {{{field}}}, "
            + ", ".join(f"{{{field}:{each}}}" for each in FIELD_KINDS)
        )
