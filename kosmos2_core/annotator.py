"""Images in, grounded annotations out.

>>> annotator = Annotator.from_pretrained("shapes")
>>> for annotation in annotator.annotate(["snowman.jpg"], task="brief"):
...     print(annotation.caption, annotation.to_huggingface())
"""

import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import chain, repeat
from pathlib import Path
from typing import cast

import numpy as np
from PIL import Image

from kosmos2_core.annotation import Annotation, Issue
from kosmos2_core.checkpoint.files import CheckpointFiles, locate
from kosmos2_core.checkpoint.load import Checkpoint, device_named, dtypes_for, load_checkpoint
from kosmos2_core.engine.available_memory import available_bytes
from kosmos2_core.engine.capacity import choose_slots, memory_needs
from kosmos2_core.engine.engine import Engine
from kosmos2_core.engine.requests import HEAD_LENGTH, Completion, Generates, Prompt, Request
from kosmos2_core.engine.sampling.modes import GrammarMode, NgramMode, ngram_mode_for
from kosmos2_core.errors import AnnotationError, CheckpointError, PromptError
from kosmos2_core.grounding.consistency import phrases_to_check, with_consistency
from kosmos2_core.grounding.grid import IMAGE_SIZE
from kosmos2_core.grounding.parser import parse_tokens
from kosmos2_core.grounding.quality import quality_issues
from kosmos2_core.images.decode import decode_image, square_pixels
from kosmos2_core.prompts.encoder import Asker, Question
from kosmos2_core.prompts.tasks import GROUND, TASKS, Task, task_named
from kosmos2_core.prompts.text import PromptFields

_log = logging.getLogger(__name__)

ImageLike = Image.Image | bytes | str | os.PathLike[str]
Answer = Annotation | AnnotationError


class Annotator:
    """A loaded checkpoint that annotates images, `slots` at a time."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        slots: int = 16,
        ngram_mode: NgramMode | None = None,
        grammar: GrammarMode = "off",
        keep_model: bool = True,
        cuda_graph: bool = False,
        memory_bytes: int | None = None,
        verify_boxes: bool = False,
        engine: Generates | None = None,
    ) -> None:
        """See `Engine`. With `verify_boxes` each phrase of an answer is grounded once more on its
        own, which gives its boxes their `consistency`. `memory_bytes` is what all of it may come
        to, where that was estimated; `engine` takes the place of one of its own.

        Raises ValueError for slots < 1, and for modes that contradict each other.
        """
        if slots < 1:
            raise ValueError(f"slots must be at least 1, not {slots}")
        self.checkpoint = checkpoint
        self.slots = slots
        self.ngram_mode = ngram_mode_for(ngram_mode, grammar)
        self.grammar = grammar
        self.keep_model = keep_model
        self.cuda_graph = cuda_graph
        self.memory_bytes = memory_bytes
        self.verify_boxes = verify_boxes
        self._given_engine = engine
        self._asker = Asker(checkpoint)

    @classmethod
    def from_pretrained(
        cls,
        name: str = "shapes",
        *,
        device: str = "auto",
        dtype: str = "auto",
        no_repeat_ngram_size: int | None = None,
        ngram_mode: NgramMode | None = None,
        grammar: GrammarMode = "off",
        slots: int | None = None,
        keep_model: bool = False,
        verify_boxes: bool = False,
        cuda_graph: bool = False,
        tasks: Iterable[Task] = tuple(TASKS.values()),
    ) -> "Annotator":
        """A hub id, a directory or `shapes`; see `load_checkpoint` and `Engine` for the rest.

        `slots` None is what fits into memory beside the weights, for the longest of `tasks`, up
        to where more would help little. Raises NotEnoughMemory before anything is loaded, and
        CheckpointError for `cuda_graph` on another device.
        """
        if cuda_graph and device_named(device).type != "cuda":
            raise CheckpointError(f"{name}: graphs are for CUDA: use --device cuda, or no graphs")
        files = locate(name)
        copies = 2 if keep_model else 1
        slots, memory = _slots(
            files, device=device, dtype=dtype, asked=slots, tasks=tasks, copies=copies
        )
        checkpoint = load_checkpoint(
            files, device=device, dtype=dtype, no_repeat_ngram_size=no_repeat_ngram_size
        )
        return cls(
            checkpoint,
            slots=slots,
            ngram_mode=ngram_mode,
            grammar=grammar,
            keep_model=keep_model,
            cuda_graph=cuda_graph,
            memory_bytes=memory,
            verify_boxes=verify_boxes,
        )

    def annotate(
        self,
        images: Iterable[ImageLike],
        task: str | Task = "brief",
        fields: Iterable[PromptFields] | None = None,
    ) -> Iterator[Annotation]:
        """One annotation per image, in order; reads `images` lazily.

        An image is a PIL image (taken as it is), encoded bytes or a path (turned upright by
        its EXIF orientation). `fields`, one mapping per image, hold what the task's prompt
        needs: `{"phrase": "a dog"}` for `ground`. Raises ImageError for an image that cannot be
        decoded, PromptError for fields that make no prompt.
        """
        task = task_named(task) if isinstance(task, str) else task
        pixels = (_pixels(image) for image in images)
        asked: Iterable[list[PromptFields]]
        asked = repeat([{}]) if fields is None else ([of_image] for of_image in fields)
        answers = self._in_order(zip(pixels, asked, strict=fields is not None), [task])
        return (_or_raise(answer) for (answer,) in answers)

    def annotate_pixels(
        self,
        pixels: np.ndarray,
        tasks: Sequence[Task],
        fields: Sequence[Sequence[PromptFields]] | None = None,
    ) -> list[tuple[Annotation, ...]]:
        """uint8 [N, 3, 224, 224] -> for each image one annotation per task, in order.

        `fields[image][task]` are those of that prompt. All tasks of an image share the work on
        it. Raises NonFiniteLogits, PromptError.
        """
        answers = self.answer_pixels(pixels, tasks, fields)
        return [tuple(map(_or_raise, of_image)) for of_image in answers]

    def answer_pixels(
        self,
        pixels: np.ndarray,
        tasks: Sequence[Task],
        fields: Sequence[Sequence[PromptFields]] | None = None,
    ) -> list[tuple[Answer, ...]]:
        """As `annotate_pixels`; what the model cannot annotate is an error in its place."""
        if pixels.dtype != np.uint8 or pixels.shape[1:] != (3, IMAGE_SIZE, IMAGE_SIZE):
            raise ValueError(f"expected uint8 [N, 3, 224, 224], not {pixels.dtype} {pixels.shape}")
        asked = fields if fields is not None else [[{}] * len(tasks)] * len(pixels)
        return list(self._in_order(zip(pixels, asked, strict=True), tasks))

    @cached_property
    def engine(self) -> Generates:
        """Made when it is first needed."""
        return self._given_engine or Engine(
            self.checkpoint,
            slots=self.slots,
            ngram_mode=self.ngram_mode,
            grammar=self.grammar,
            keep_model=self.keep_model,
            cuda_graph=self.cuda_graph,
        )

    def _in_order(
        self, images: Iterable[tuple[np.ndarray, Sequence[PromptFields]]], tasks: Sequence[Task]
    ) -> Iterator[tuple[Answer, ...]]:
        """One tuple per image; the engine completes them as it comes."""
        early: dict[int, _Answers] = {}

        def requests() -> Iterator[Request]:
            for number, (pixels, fields) in enumerate(images):
                early[number] = answers = _Answers(self._ask(tasks, fields))
                if answers.questions:
                    yield self._request(number, pixels, answers)

        number = 0
        for completion in chain(self.engine.generate(requests()), [None]):
            if completion is not None:
                answers = early[cast(int, completion.request_id)]
                answers.add(completion.index, self._answer(answers, completion))
            while number in early and early[number].is_complete:
                yield early.pop(number).in_order()
                number += 1

    def _request(self, number: int, pixels: np.ndarray, answers: "_Answers") -> Request:
        def follow_up(completions: tuple[Completion, ...]) -> tuple[Prompt, ...]:
            said = (self._answer(answers, completion) for completion in completions)
            phrases = phrases_to_check(a for a in said if isinstance(a, Annotation))
            checks = self._ask([GROUND] * len(phrases), [{"phrase": phrase} for phrase in phrases])
            return answers.check(
                {
                    phrase: check
                    for phrase, check in zip(phrases, checks, strict=True)
                    if isinstance(check, Question)
                }
            )

        return Request(
            id=number,
            pixels=pixels,
            prompts=tuple(question.prompt for question in answers.questions),
            follow_up=follow_up if self.verify_boxes else None,
        )

    def _answer(self, answers: "_Answers", completion: Completion) -> Answer:
        question = answers.questions[completion.index]
        return completion.error or self._annotation(question, completion)

    def _ask(
        self, tasks: Sequence[Task], fields: Sequence[PromptFields]
    ) -> Iterator[Question | PromptError]:
        """About one image; where the fields make no prompt, an error."""
        for task, given in zip(tasks, fields, strict=True):
            try:
                yield self._asker.ask(task, given)
            except PromptError as error:
                yield error

    def _annotation(self, question: Question, completion: Completion) -> Annotation:
        assert completion.finish_reason != "error"
        grounding = parse_tokens(
            self.checkpoint.vocabulary,
            question.text_ids,
            completion.token_ids,
            completion.scores,
        )
        return Annotation(
            task=question.task.name,
            prompt=question.text,
            caption=grounding.caption,
            prompt_chars=grounding.prompt_chars,
            entities=grounding.entities,
            issues=(
                *_issues_of(completion),
                *grounding.issues,
                *quality_issues(question.text, grounding),
            ),
            finish_reason=completion.finish_reason,
            token_ids=completion.token_ids,
            token_logprobs=tuple(score.logprob for score in completion.scores),
        )


class _Answers:
    """Those about one image, one per task, as they come, and those to questions that check them.

    What a task's fields did not make a question of has its error from the start.
    """

    def __init__(self, asked: Iterable[Question | PromptError]) -> None:
        self._asked = list(asked)
        self.questions = [each for each in self._asked if isinstance(each, Question)]
        self._checked: dict[str, int] = {}  # phrase -> index of the question that grounds it
        self._answers: dict[int, Answer] = {}

    def check(self, phrases: Mapping[str, Question]) -> tuple[Prompt, ...]:
        """More questions, on what was answered; their prompts."""
        for phrase, question in phrases.items():
            self._checked[phrase] = len(self.questions)
            self.questions.append(question)
        return tuple(question.prompt for question in phrases.values())

    def add(self, index: int, answer: Answer) -> None:
        """To the question of that index."""
        self._answers[index] = answer

    @property
    def is_complete(self) -> bool:
        return len(self._answers) == len(self.questions)

    def in_order(self) -> tuple[Answer, ...]:
        """Of the tasks."""
        grounded = {
            phrase: [box for entity in check.entities for box in entity.boxes]
            for phrase, at in self._checked.items()
            if isinstance(check := self._answers[at], Annotation)
        }
        said = (answer for _, answer in sorted(self._answers.items()))
        answers = (next(said) if isinstance(each, Question) else each for each in self._asked)
        return tuple(
            with_consistency(answer, grounded) if isinstance(answer, Annotation) else answer
            for answer in answers
        )


def _slots(
    files: CheckpointFiles,
    *,
    device: str,
    dtype: str,
    asked: int | None,
    tasks: Iterable[Task],
    copies: int,
) -> tuple[int, int]:
    """How many, and what they and the weights need, in bytes."""
    place = device_named(device)
    # A prompt has fewer tokens than letters; its tokenizer is not loaded yet.
    length = max(HEAD_LENGTH + len(task.prompt) + task.max_new_tokens for task in tasks)
    needs = memory_needs(files, dtype=dtypes_for(dtype, place)[0], length=length, copies=copies)
    available = available_bytes(place)
    slots = choose_slots(needs, asked=asked, available=available, device=place)
    _log.info("%s: %s", files.id, needs.describe(slots))
    return slots, needs.total(slots)


def _or_raise(answer: Answer) -> Annotation:
    if isinstance(answer, AnnotationError):
        raise answer
    return answer


def _issues_of(completion: Completion) -> tuple[Issue, ...]:
    truncated = (Issue.TRUNCATED,) if completion.finish_reason == "length" else ()
    suppressed = (Issue.NGRAM_SUPPRESSED,) if completion.is_ngram_suppressed else ()
    enforced = (Issue.GRAMMAR_ENFORCED,) if completion.is_grammar_enforced else ()
    return truncated + suppressed + enforced


def _pixels(image: ImageLike) -> np.ndarray:
    if isinstance(image, Image.Image):
        return square_pixels(image)
    data = image if isinstance(image, bytes) else Path(image).read_bytes()
    return decode_image(data).pixels
