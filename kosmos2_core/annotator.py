"""Images in, grounded annotations out.

>>> annotator = Annotator.from_pretrained("shapes")
>>> for annotation in annotator.annotate(["snowman.jpg"], task="brief"):
...     print(annotation.caption, annotation.to_huggingface())
"""

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import repeat
from pathlib import Path

import numpy as np
from PIL import Image

from kosmos2_core.annotation import Annotation
from kosmos2_core.answers import Answer, ImageAnswers, answers_in_order
from kosmos2_core.checkpoint.files import CheckpointFiles, locate_checkpoint
from kosmos2_core.checkpoint.load import Checkpoint, device_named, dtypes_for, load_checkpoint
from kosmos2_core.engine.capacity import available_bytes, choose_slots, memory_needs
from kosmos2_core.engine.engine import Engine
from kosmos2_core.engine.requests import PREFIX_LENGTH, Generates
from kosmos2_core.errors import AnnotationError, CheckpointError
from kosmos2_core.generation import Generation
from kosmos2_core.grounding.grid import IMAGE_SIZE
from kosmos2_core.images.decode import decode_image, square_pixels
from kosmos2_core.prompts.encoder import PromptEncoder
from kosmos2_core.prompts.tasks import TASKS, Task, task_named
from kosmos2_core.prompts.text import PromptFields

_log = logging.getLogger(__name__)

ImageLike = Image.Image | bytes | str | os.PathLike[str]


class Annotator:
    """A loaded checkpoint that annotates images; `generation` is resolved."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        generation: Generation = Generation(),
        *,
        keep_model: bool = True,
        memory_bytes: int | None = None,
        engine: Generates | None = None,
    ) -> None:
        """See `Engine`. `memory_bytes` is what all of it may come to, where that was estimated;
        `engine` takes the place of one of its own.
        """
        self.checkpoint = checkpoint
        self.generation = generation.resolved(no_repeat_ngram_size=checkpoint.no_repeat_ngram_size)
        self.keep_model = keep_model
        self.memory_bytes = memory_bytes
        self._given_engine = engine
        self._prompt_encoder = PromptEncoder(checkpoint)

    @classmethod
    def from_pretrained(
        cls,
        name: str = "shapes",
        *,
        device: str = "auto",
        dtype: str = "auto",
        generation: Generation = Generation(),
        keep_model: bool = False,
        tasks: Iterable[Task] = tuple(TASKS.values()),
    ) -> "Annotator":
        """A hub id, a directory or `shapes`; see `load_checkpoint` and `Engine` for the rest.

        Slots left open are as many as fit into memory beside the weights, for the longest of
        `tasks`, up to where more would help little. Raises NotEnoughMemory before anything is
        loaded, and CheckpointError for `cuda_graph` on another device.
        """
        if generation.cuda_graph and device_named(device).type != "cuda":
            raise CheckpointError(f"{name}: graphs are for CUDA: use --device cuda, or no graphs")
        files = locate_checkpoint(name)
        copies = 2 if keep_model else 1
        slots, memory = _slots(
            files, device=device, dtype=dtype, asked=generation.slots, tasks=tasks, copies=copies
        )
        checkpoint = load_checkpoint(
            files,
            device=device,
            dtype=dtype,
            no_repeat_ngram_size=generation.no_repeat_ngram_size,
        )
        generation = replace(generation, slots=slots)
        return cls(checkpoint, generation, keep_model=keep_model, memory_bytes=memory)

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
        answers = self._answers(zip(pixels, asked, strict=fields is not None), [task])
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
        return list(self._answers(zip(pixels, asked, strict=True), tasks))

    @cached_property
    def engine(self) -> Generates:
        """Made when it is first needed."""
        return self._given_engine or Engine(
            self.checkpoint, self.generation, keep_model=self.keep_model
        )

    def _answers(
        self, images: Iterable[tuple[np.ndarray, Sequence[PromptFields]]], tasks: Sequence[Task]
    ) -> Iterator[tuple[Answer, ...]]:
        asked = (
            (pixels, ImageAnswers(self._prompt_encoder, tasks, fields)) for pixels, fields in images
        )
        return answers_in_order(self.engine, asked, verify_boxes=self.generation.verify_boxes)


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
    length = max(PREFIX_LENGTH + len(task.prompt) + task.max_new_tokens for task in tasks)
    needs = memory_needs(files, dtype=dtypes_for(dtype, place)[0], length=length, copies=copies)
    available = available_bytes(place)
    slots = choose_slots(needs, asked=asked, available=available, device=place)
    _log.info("%s: %s", files.id, needs.describe(slots))
    return slots, needs.total(slots)


def _or_raise(answer: Answer) -> Annotation:
    if isinstance(answer, AnnotationError):
        raise answer
    return answer


def _pixels(image: ImageLike) -> np.ndarray:
    if isinstance(image, Image.Image):
        return square_pixels(image)
    data = image if isinstance(image, bytes) else Path(image).read_bytes()
    return decode_image(data).pixels
