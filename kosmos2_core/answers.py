"""What is asked of one image, and how the engine's completions become its annotations."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from kosmos2_core.annotation import Annotation, Issue
from kosmos2_core.engine.requests import Completion, Generates, Prompt, Request
from kosmos2_core.errors import AnnotationError, PromptError
from kosmos2_core.grounding.consistency import phrases_to_check, with_consistency
from kosmos2_core.grounding.parser import parse_tokens
from kosmos2_core.grounding.quality import quality_issues
from kosmos2_core.grounding.vocabulary import Vocabulary
from kosmos2_core.prompts.encoder import EncodedPrompt, PromptEncoder
from kosmos2_core.prompts.tasks import GROUND, Task
from kosmos2_core.prompts.text import PromptFields

Answer = Annotation | AnnotationError


class ImageAnswers:
    """One answer per task about one image, and those to prompts that check them.

    Fields that make no prompt are an error from the start.
    """

    def __init__(
        self, encoder: PromptEncoder, tasks: Sequence[Task], fields: Sequence[PromptFields]
    ) -> None:
        self._encoder = encoder
        self._asked = [
            _encoded(encoder, task, given) for task, given in zip(tasks, fields, strict=True)
        ]
        self._prompts = [each for each in self._asked if isinstance(each, EncodedPrompt)]
        self._checked: dict[str, int] = {}  # phrase -> index of the prompt that grounds it
        self._answers: dict[int, Answer] = {}

    def request(self, pixels: np.ndarray, *, verify_boxes: bool) -> Request | None:
        """Return the request for the engine, with these answers as its id; None for no prompts."""
        if not self._prompts:
            return None
        return Request(
            id=self,
            pixels=pixels,
            prompts=tuple(each.prompt for each in self._prompts),
            follow_up=self._check if verify_boxes else None,
        )

    def add(self, completion: Completion) -> None:
        self._answers[completion.index] = self._answer(completion)

    @property
    def is_complete(self) -> bool:
        return len(self._answers) == len(self._prompts)

    def by_task(self) -> tuple[Answer, ...]:
        """One per task, in order; boxes that were checked have their consistency."""
        said = (answer for _, answer in sorted(self._answers.items()))
        answers = (next(said) if isinstance(each, EncodedPrompt) else each for each in self._asked)
        if not self._checked:
            return tuple(answers)
        grounded = {
            phrase: [box for entity in check.entities for box in entity.boxes]
            for phrase, index in self._checked.items()
            if isinstance(check := self._answers[index], Annotation)
        }
        return tuple(
            with_consistency(answer, grounded) if isinstance(answer, Annotation) else answer
            for answer in answers
        )

    def _check(self, completions: tuple[Completion, ...]) -> tuple[Prompt, ...]:
        """Ground each phrase of the answers once more on its own."""
        answers = map(self._answer, completions)
        checks = []
        for phrase in phrases_to_check(a for a in answers if isinstance(a, Annotation)):
            check = _encoded(self._encoder, GROUND, {"phrase": phrase})
            if isinstance(check, EncodedPrompt):
                self._checked[phrase] = len(self._prompts)
                self._prompts.append(check)
                checks.append(check.prompt)
        return tuple(checks)

    def _answer(self, completion: Completion) -> Answer:
        prompt = self._prompts[completion.index]
        return completion.error or _annotation(self._encoder.vocabulary, prompt, completion)


def answers_in_order(
    engine: Generates,
    images: Iterable[tuple[np.ndarray, ImageAnswers]],
    *,
    verify_boxes: bool,
) -> Iterator[tuple[Answer, ...]]:
    """One tuple per image, in the order of `images`; the engine completes them as it comes."""
    waiting: deque[ImageAnswers] = deque()

    def requests() -> Iterator[Request]:
        for pixels, answers in images:
            waiting.append(answers)
            if request := answers.request(pixels, verify_boxes=verify_boxes):
                yield request

    for completion in engine.generate(requests()):
        assert isinstance(completion.request_id, ImageAnswers)
        completion.request_id.add(completion)
        yield from _complete(waiting)
    yield from _complete(waiting)  # the last images may have asked nothing


def _complete(waiting: deque[ImageAnswers]) -> Iterator[tuple[Answer, ...]]:
    """Take out the first ones, up to one that lacks an answer."""
    while waiting and waiting[0].is_complete:
        yield waiting.popleft().by_task()


def _encoded(
    encoder: PromptEncoder, task: Task, fields: PromptFields
) -> EncodedPrompt | PromptError:
    try:
        return encoder.encode(task, fields)
    except PromptError as error:
        return error


def _annotation(
    vocabulary: Vocabulary, prompt: EncodedPrompt, completion: Completion
) -> Annotation:
    assert completion.finish_reason != "error"
    grounding = parse_tokens(vocabulary, prompt.text_ids, completion.token_ids, completion.scores)
    return Annotation(
        task=prompt.task.name,
        prompt=prompt.text,
        caption=grounding.caption,
        prompt_chars=grounding.prompt_chars,
        entities=grounding.entities,
        issues=(
            *_generation_issues(completion),
            *grounding.issues,
            *quality_issues(prompt.text, grounding),
        ),
        finish_reason=completion.finish_reason,
        token_ids=completion.token_ids,
        token_logprobs=completion.scores.logprobs,
    )


def _generation_issues(completion: Completion) -> Iterator[Issue]:
    if completion.finish_reason == "length":
        yield Issue.TRUNCATED
    if completion.is_ngram_suppressed:
        yield Issue.NGRAM_SUPPRESSED
    if completion.is_grammar_enforced:
        yield Issue.GRAMMAR_ENFORCED
