"""Images in, grounded annotations out.

>>> annotator = Annotator.from_pretrained("shapes")
>>> for annotation in annotator.annotate(["snowman.jpg"], task="brief"):
...     print(annotation.caption, annotation.to_huggingface())
"""

import logging
import os
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from threading import Lock

import numpy as np
from PIL import Image

from kosmos2_core.annotation import Annotation, Issue
from kosmos2_core.checkpoint import Checkpoint, device_named, dtypes_for, load_checkpoint
from kosmos2_core.checkpoint_files import CheckpointFiles, locate
from kosmos2_core.engine.available_memory import available_bytes
from kosmos2_core.engine.capacity import choose_slots, memory_needs
from kosmos2_core.engine.engine import Engine
from kosmos2_core.engine.modes import GrammarMode, NgramMode, ngram_mode_for
from kosmos2_core.engine.requests import HEAD_LENGTH, Completion, Generates, Prompt, Request
from kosmos2_core.errors import AnnotationError, CheckpointError
from kosmos2_core.grounding import parse_tokens
from kosmos2_core.images import decode_image, square_pixels
from kosmos2_core.locations import IMAGE_SIZE
from kosmos2_core.tasks import TASKS, Task, task_named

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
        engine: Generates | None = None,
    ) -> None:
        """See `Engine`. `memory_bytes` is what all of it may come to, where that was estimated;
        `engine` takes the place of one of its own.

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
        self._given_engine = engine
        self._known_prompts: dict[str, tuple[int, ...]] = {}
        self._prompts_lock = Lock()

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
        )

    def annotate(
        self, images: Iterable[ImageLike], task: str | Task = "brief"
    ) -> Iterator[Annotation]:
        """One annotation per image, in order; reads `images` lazily.

        An image is a PIL image (taken as it is), encoded bytes or a path (turned upright by
        its EXIF orientation). Raises ImageError for one that cannot be decoded.
        """
        task = task_named(task) if isinstance(task, str) else task
        pixels = (_pixels(image) for image in images)
        return (_or_raise(answer) for (answer,) in self._in_order(pixels, [task]))

    def annotate_pixels(
        self, pixels: np.ndarray, tasks: Sequence[Task]
    ) -> list[tuple[Annotation, ...]]:
        """uint8 [N, 3, 224, 224] -> for each image one annotation per task, in order.

        All tasks of an image share the work on it. Raises NonFiniteLogits.
        """
        answers = self.answer_pixels(pixels, tasks)
        return [tuple(map(_or_raise, of_image)) for of_image in answers]

    def answer_pixels(self, pixels: np.ndarray, tasks: Sequence[Task]) -> list[tuple[Answer, ...]]:
        """As `annotate_pixels`; what the model cannot annotate is an error in its place."""
        if pixels.dtype != np.uint8 or pixels.shape[1:] != (3, IMAGE_SIZE, IMAGE_SIZE):
            raise ValueError(f"expected uint8 [N, 3, 224, 224], not {pixels.dtype} {pixels.shape}")
        return list(self._in_order(pixels, tasks))

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
        self, pixels: Iterable[np.ndarray], tasks: Sequence[Task]
    ) -> Iterator[tuple[Answer, ...]]:
        """One tuple per image; the engine completes them as it comes."""
        prompts = tuple(self._prompt(task) for task in tasks)
        requests = (
            Request(id=number, pixels=image, prompts=prompts) for number, image in enumerate(pixels)
        )
        early: dict[Hashable, dict[int, Answer]] = defaultdict(dict)
        number = 0
        for completion in self.engine.generate(requests):
            answer = completion.error or self._annotation(tasks[completion.index], completion)
            early[completion.request_id][completion.index] = answer
            while len(early[number]) == len(tasks):
                answers = early.pop(number)
                yield tuple(answers[index] for index in range(len(tasks)))
                number += 1

    def _prompt(self, task: Task) -> Prompt:
        return Prompt(
            task=task.name, ids=self._prompt_ids(task.prompt), max_new_tokens=task.max_new_tokens
        )

    def _prompt_ids(self, prompt: str) -> tuple[int, ...]:
        """`<s> <image> ... </image> <grounding> ...`: the same for every image."""
        with self._prompts_lock:  # the tokenizer is not for two threads at once
            if prompt not in self._known_prompts:
                blank = Image.new("RGB", (IMAGE_SIZE, IMAGE_SIZE))
                ids = self.checkpoint.processor(text=prompt, images=blank)["input_ids"]
                self._known_prompts[prompt] = tuple(ids)
            return self._known_prompts[prompt]

    def _annotation(self, task: Task, completion: Completion) -> Annotation:
        assert completion.finish_reason != "error"
        text = self._prompt_ids(task.prompt)[HEAD_LENGTH:]
        grounding = parse_tokens(
            self.checkpoint.vocabulary, text, completion.token_ids, completion.scores
        )
        return Annotation(
            task=task.name,
            prompt=task.prompt,
            caption=grounding.caption,
            prompt_chars=grounding.prompt_chars,
            entities=grounding.entities,
            issues=_issues_of(completion) + grounding.issues,
            finish_reason=completion.finish_reason,
            token_ids=completion.token_ids,
            token_logprobs=tuple(score.logprob for score in completion.scores),
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
