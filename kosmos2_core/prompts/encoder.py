"""Encode tasks and fields as token ids, as the checkpoint's processor does."""

from dataclasses import dataclass
from functools import cached_property
from threading import Lock

from kosmos2_core.checkpoint.load import IMAGE_POSITIONS, Checkpoint
from kosmos2_core.engine.requests import PREFIX_LENGTH, Prompt
from kosmos2_core.grounding.vocabulary import Tag
from kosmos2_core.prompts.tasks import Task
from kosmos2_core.prompts.text import PromptFields, prompt_text


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedPrompt:
    """The prompt of a task for one image. `text` is the part after the image."""

    task: Task
    text: str
    prompt: Prompt

    @property
    def text_ids(self) -> tuple[int, ...]:
        return self.prompt.ids[PREFIX_LENGTH:]


class PromptEncoder:
    """Encode prompts; calls from several threads are safe."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        self.vocabulary = checkpoint.vocabulary
        self._known: dict[Task, EncodedPrompt] = {}  # prompts without fields
        self._lock = Lock()  # the tokenizer is not thread-safe

    def encode(self, task: Task, fields: PromptFields) -> EncodedPrompt:
        """Return the prompt of a task with these fields. Raises PromptError."""
        if (known := self._known.get(task)) is not None:
            return known
        if task.fields:
            return self._encoded(task, prompt_text(task, fields))
        self._known[task] = self._encoded(task, prompt_text(task, {}))
        return self._known[task]

    def _encoded(self, task: Task, text: str) -> EncodedPrompt:
        stop_ids = (self._end_of_object,) if task.is_done_with_boxes else ()
        prompt = Prompt(
            task=task.name,
            ids=self._ids(text),
            max_new_tokens=task.max_new_tokens,
            stop_ids=stop_ids,
        )
        return EncodedPrompt(task=task, text=text, prompt=prompt)

    def _ids(self, text: str) -> tuple[int, ...]:
        with self._lock:
            encoded = self._checkpoint.tokenizer(text, add_special_tokens=False)
            return (*self._prefix, *encoded["input_ids"])

    @cached_property
    def _prefix(self) -> tuple[int, ...]:
        """Token ids of `<s> <image> ... </image>`. Placeholders are the first ids after `<unk>`."""
        tokenizer, id_of = self._checkpoint.tokenizer, self.vocabulary.id_of
        first = tokenizer.unk_token_id + 1
        placeholders = range(first, first + IMAGE_POSITIONS.stop - IMAGE_POSITIONS.start)
        return (tokenizer.bos_token_id, id_of(Tag.IMAGE), *placeholders, id_of(Tag.END_OF_IMAGE))

    @cached_property
    def _end_of_object(self) -> int:
        return self.vocabulary.id_of(Tag.END_OF_OBJECT)
