"""What goes into the engine and what comes out."""

from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np

from kosmos2_core.annotation import FinishReason
from kosmos2_core.engine.vitals import Vitals
from kosmos2_core.errors import AnnotationError, InvalidRequest
from kosmos2_core.grounding.grid import IMAGE_SIZE
from kosmos2_core.grounding.scores import TokenScores
from kosmos2_core.quick_init import quick_init

PREFIX_LENGTH = 67  # `<s> <image>`, 64 placeholders, `</image>`: what all prompts of an image share


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """`ids` is the whole prompt, from `<s> <image>` on, as the checkpoint's processor gives it.

    Generation ends at the end of sequence (unless `ignore_eos`), after one of `stop_ids`, or
    after `max_new_tokens`; the token that ends it belongs to the answer.
    """

    task: str
    ids: tuple[int, ...]
    max_new_tokens: int
    stop_ids: tuple[int, ...] = ()
    ignore_eos: bool = False


@quick_init
@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """The answer to one prompt, or the error that took its place.

    `sender` is that of the request.

    `index` counts the prompts of a request, those of its follow-up after the others. With an
    `error`, `finish_reason` is "error" and there are no tokens. `is_ngram_suppressed`: once at
    least the n-gram ban took a tag or a location that the model thought best;
    `is_grammar_enforced`: the grammar took what was best.
    """

    request_id: Hashable
    index: int
    task: str
    token_ids: tuple[int, ...]
    scores: TokenScores
    finish_reason: FinishReason | Literal["error"]
    is_ngram_suppressed: bool = False
    is_grammar_enforced: bool = False
    error: AnnotationError | None = None
    sender: object = field(default=None, compare=False, repr=False)


FollowUp = Callable[[tuple[Completion, ...]], tuple[Prompt, ...]]


@quick_init
@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One image, uint8 [3, 224, 224], and what is asked about it.

    The prompts share the work on the image. `follow_up` gets their completions, in the order
    of the prompts, and may ask more while that work is still at hand; it is called once. `sender`
    tells apart requests of several senders with equal ids.
    """

    id: Hashable
    pixels: np.ndarray
    prompts: tuple[Prompt, ...]
    follow_up: FollowUp | None = None
    sender: object = None


class Generates(Protocol):
    """The interface of `Engine`, which documents it."""

    def generate(self, requests: Iterable[Request | None]) -> Iterator[Completion]: ...

    @property
    def vitals(self) -> Vitals: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptRules:
    """Limits of prompts; `start`, `image`, `end_of_image` stand in the prefix.

    A prompt and its answer have at most `length` tokens, for which each slot has room.
    """

    start: int
    image: int
    end_of_image: int
    padding: int
    vocabulary_size: int
    positions: int
    length: int

    @property
    def prefix(self) -> tuple[int, ...]:
        """A prefix for any image: what stands in for the placeholders is never looked at."""
        return (self.start, self.image, *[self.image] * (PREFIX_LENGTH - 3), self.end_of_image)

    def check(self, prompt: Prompt) -> None:
        """Raises InvalidRequest."""
        ids = prompt.ids
        if len(ids) <= PREFIX_LENGTH:
            raise InvalidRequest(
                f"the prompt of task {prompt.task!r} is empty: {len(ids)} tokens, where "
                f"<s> <image> ... </image> alone has {PREFIX_LENGTH}"
            )
        if (*ids[:2], ids[PREFIX_LENGTH - 1]) != (self.start, self.image, self.end_of_image):
            raise InvalidRequest(
                f"the prompt of task {prompt.task!r} does not begin with <s> <image> ... </image>"
            )
        if self.padding in ids or not 0 <= min(ids) <= max(ids) < self.vocabulary_size:
            raise InvalidRequest(
                f"the prompt of task {prompt.task!r} holds padding or ids outside the vocabulary"
            )
        if prompt.max_new_tokens < 1:
            raise InvalidRequest(f"max_new_tokens is {prompt.max_new_tokens}; at least 1 is needed")
        if len(ids) + prompt.max_new_tokens > self.positions:
            raise InvalidRequest(
                f"{len(ids)} prompt tokens and {prompt.max_new_tokens} new ones are more than the "
                f"model's {self.positions} positions"
            )
        if len(ids) + prompt.max_new_tokens > self.length:
            raise InvalidRequest(
                f"{len(ids)} prompt tokens and {prompt.max_new_tokens} new ones are more than the "
                f"{self.length} tokens that a slot has room for: shorten the fields of the prompt, "
                f"or name the task {prompt.task!r} where the annotator is made"
            )


def check_request(request: Request) -> None:
    """All but its prompts, which fail one by one. Raises InvalidRequest."""
    if not request.prompts:
        raise InvalidRequest("the request has no prompts")
    pixels = request.pixels
    if pixels.dtype != np.uint8 or pixels.shape != (3, IMAGE_SIZE, IMAGE_SIZE):
        raise InvalidRequest(f"expected uint8 [3, 224, 224], not {pixels.dtype} {pixels.shape}")
