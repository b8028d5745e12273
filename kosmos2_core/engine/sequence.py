"""The state of a request and of its sequences, one per prompt, while they are in the engine."""

from dataclasses import dataclass, field

from kosmos2_core.engine.image_encoder import EncodedImage
from kosmos2_core.engine.live_answers import GeneratedAnswer
from kosmos2_core.engine.requests import Completion, Prompt, Request
from kosmos2_core.errors import AnnotationError, NonFiniteLogits
from kosmos2_core.grounding.scores import TokenScores


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
    """One prompt of a request. `LiveAnswers` has the tokens of its answer."""

    request_state: RequestState
    index: int
    prompt: Prompt

    def completion(self, answer: GeneratedAnswer, broken_at: str | None = None) -> Completion:
        """`broken_at` names the layer where numbers that are not finite came from, if known."""
        request = self.request_state.request
        if answer.finish_reason == "error":
            where = f" (first in {broken_at})" if broken_at else ""
            error = NonFiniteLogits(
                f"the model's probabilities are not finite{where}; try --dtype float32, and "
                "`kosmos2 check`"
            )
            return failed(request, self.index, self.prompt.task, error)
        return Completion(
            request_id=request.id,
            index=self.index,
            task=self.prompt.task,
            token_ids=answer.token_ids,
            scores=answer.scores,
            finish_reason=answer.finish_reason,
            is_ngram_suppressed=answer.is_ngram_suppressed,
            is_grammar_enforced=answer.is_grammar_enforced,
            sender=request.sender,
        )


def failed(request: Request, index: int, task: str, error: AnnotationError) -> Completion:
    return Completion(
        request_id=request.id,
        index=index,
        task=task,
        token_ids=(),
        scores=TokenScores(),
        finish_reason="error",
        error=error,
        sender=request.sender,
    )
