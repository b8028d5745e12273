"""The state of a request and of its sequences, one per prompt, while they are in the engine."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from kosmos2_core.annotation import FinishReason
from kosmos2_core.engine.image_encoder import EncodedImage
from kosmos2_core.engine.requests import Completion, Prompt, Request
from kosmos2_core.engine.sampling.sampler import Choice, Choices
from kosmos2_core.errors import AnnotationError, NonFiniteLogits
from kosmos2_core.grounding.parser import TokenScore


@dataclass(slots=True, kw_only=True, eq=False)
class RequestState:
    """A request in flight; `asked` counts its prompts so far, those of its follow-up included."""

    request: Request
    image: EncodedImage
    asked: int = 0
    completions: dict[int, Completion] = field(default_factory=dict)
    has_followed_up: bool = False

    @property
    def is_answered(self) -> bool:
        return len(self.completions) == self.asked

    def in_order(self) -> tuple[Completion, ...]:
        return tuple(completion for _, completion in sorted(self.completions.items()))


@dataclass(slots=True, kw_only=True, eq=False)
class SequenceState:
    """`chosen` tokens so far; the last one may be on its way, and not in `token_ids` yet.

    `broken_at` names the layer where numbers that are not finite came from, if it is known.
    """

    request_state: RequestState
    index: int
    prompt: Prompt
    chosen: int = 0
    token_ids: list[int] = field(default_factory=list)
    scores: list[TokenScore] = field(default_factory=list)
    is_ngram_suppressed: bool = False
    is_grammar_enforced: bool = False
    finish_reason: FinishReason | Literal["error"] | None = None
    broken_at: str | None = None

    @property
    def length(self) -> int:
        """Tokens of prompt and answer; all but the last one are in the cache."""
        return len(self.prompt.ids) + self.chosen

    def add(self, choice: Choice, eos: int) -> None:
        """Append a token, unless the sequence has ended meanwhile."""
        if self.finish_reason:
            return
        if not math.isfinite(choice.logprob):
            self.finish_reason = "error"
            return
        self.token_ids.append(choice.token_id)
        self.scores.append(TokenScore(logprob=choice.logprob, mass=choice.mass))
        self.is_ngram_suppressed |= choice.is_ngram_suppressed
        self.is_grammar_enforced |= choice.is_grammar_enforced
        self.finish_reason = self._finish_reason(choice.token_id, eos)

    def _finish_reason(self, token_id: int, eos: int) -> FinishReason | None:
        if token_id == eos and not self.prompt.ignore_eos:
            return "eos"
        if token_id in self.prompt.stop_ids:
            return "stop"
        return "length" if len(self.token_ids) == self.prompt.max_new_tokens else None

    def completion(self) -> Completion:
        request = self.request_state.request
        assert self.finish_reason is not None
        if self.finish_reason == "error":
            where = f" (first in {self.broken_at})" if self.broken_at else ""
            error = NonFiniteLogits(
                f"the model's probabilities are not finite{where}; try --dtype float32"
            )
            return failed(request, self.index, self.prompt.task, error)
        return Completion(
            request_id=request.id,
            index=self.index,
            task=self.prompt.task,
            token_ids=tuple(self.token_ids),
            scores=tuple(self.scores),
            finish_reason=self.finish_reason,
            is_ngram_suppressed=self.is_ngram_suppressed,
            is_grammar_enforced=self.is_grammar_enforced,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingRead:
    """One chosen token for each of some sequences, whatever slots they have gone to since; the
    host has still to read them."""

    sequences: Sequence[SequenceState]
    choices: Choices

    def read(self, eos: int) -> None:
        """Wait for the tokens and append them."""
        for sequence, choice in zip(self.sequences, self.choices.read(), strict=True):
            sequence.add(choice, eos)


def failed(request: Request, index: int, task: str, error: AnnotationError) -> Completion:
    return Completion(
        request_id=request.id,
        index=index,
        task=task,
        token_ids=(),
        scores=(),
        finish_reason="error",
        error=error,
    )
