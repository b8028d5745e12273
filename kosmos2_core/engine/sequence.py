"""One answer while it grows, and the request that it belongs to."""

import math
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar

from kosmos2_core.annotation import FinishReason
from kosmos2_core.engine.requests import Completion, Prompt, Request
from kosmos2_core.errors import AnnotationError, NonFiniteLogits
from kosmos2_core.grounding.parser import TokenScore

Image = TypeVar("Image")


@dataclass(slots=True, kw_only=True, eq=False)
class Flight(Generic[Image]):
    """A request under way. `image` is what the engine holds of its picture."""

    request: Request
    image: Image
    asked: int = 0
    completions: dict[int, Completion] = field(default_factory=dict)
    has_followed_up: bool = False

    @property
    def is_answered(self) -> bool:
        return len(self.completions) == self.asked

    def in_order(self) -> tuple[Completion, ...]:
        return tuple(completion for _, completion in sorted(self.completions.items()))


@dataclass(slots=True, kw_only=True, eq=False)
class Growing(Generic[Image]):
    """`chosen` tokens so far; the last one may be on its way, and not in `token_ids` yet."""

    flight: Flight[Image]
    index: int
    prompt: Prompt
    chosen: int = 0
    token_ids: list[int] = field(default_factory=list)
    scores: list[TokenScore] = field(default_factory=list)
    is_ngram_suppressed: bool = False
    is_grammar_enforced: bool = False
    finish_reason: FinishReason | Literal["error"] | None = None

    @property
    def length(self) -> int:
        """Of prompt and answer; all but the last token are in the cache."""
        return len(self.prompt.ids) + self.chosen

    def add(self, token_id: int, score: TokenScore, eos: int) -> None:
        if not math.isfinite(score.logprob):
            self.finish_reason = "error"
            return
        self.token_ids.append(token_id)
        self.scores.append(score)
        self.finish_reason = self._finish_reason(token_id, eos)

    def _finish_reason(self, token_id: int, eos: int) -> FinishReason | None:
        if token_id == eos and not self.prompt.ignore_eos:
            return "eos"
        if token_id in self.prompt.stop_ids:
            return "stop"
        return "length" if len(self.token_ids) == self.prompt.max_new_tokens else None

    def completion(self) -> Completion:
        assert self.finish_reason is not None
        if self.finish_reason == "error":
            error = NonFiniteLogits("the model's probabilities are not finite; try --dtype float32")
            return failed(self.flight.request, self.index, self.prompt.task, error)
        return Completion(
            request_id=self.flight.request.id,
            index=self.index,
            task=self.prompt.task,
            token_ids=tuple(self.token_ids),
            scores=tuple(self.scores),
            finish_reason=self.finish_reason,
            is_ngram_suppressed=self.is_ngram_suppressed,
            is_grammar_enforced=self.is_grammar_enforced,
        )


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
