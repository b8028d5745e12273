"""The annotator: a loaded checkpoint that takes images and gives annotations."""

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
from kosmos2_core.engine.capacity import (
    available_bytes,
    choose_slots,
    memory_needs,
    vision_batch_for,
)
from kosmos2_core.engine.engine import Engine
from kosmos2_core.engine.requests import Generates
from kosmos2_core.errors import AnnotationError
from kosmos2_core.generation import Generation
from kosmos2_core.grounding.grid import IMAGE_SIZE
from kosmos2_core.images.decode import decode_image, square_pixels
from kosmos2_core.prompts.encoder import PromptEncoder
from kosmos2_core.prompts.length import most_tokens
from kosmos2_core.prompts.tasks import GROUND, TASKS, Task, task_named
from kosmos2_core.prompts.text import PromptFields

_log = logging.getLogger(__name__)

ImageLike = Image.Image | bytes | str | os.PathLike[str]


class Annotator:
    """Annotate images with a loaded checkpoint, through the engine of this project.

    An annotator is for one thread. Its engine keeps memory for its slots until the annotator is
    deleted.

    Attributes:
        checkpoint: The loaded checkpoint.
        generation: Options of generation, all resolved.

    Args:
        checkpoint: The checkpoint, as `load_checkpoint` returns it.
        generation: Options of generation. What is None is taken from the checkpoint.
        keep_model: Keep `checkpoint.model` usable, which takes the memory of the weights twice.
            Otherwise the engine takes the weights, and no other engine can use this checkpoint.
        memory_bytes: Estimated memory of weights and slots, in bytes. For information only.
        tasks: The tasks that will be asked. Each slot has room for the longest of their prompts
            and answers; a longer prompt is an AnnotationError.
        engine: An engine to use instead of a new one.

    Example:
        >>> from kosmos2_core.shapes.world.shards import encode_jpeg, make_scene
        >>> scene = make_scene(seed=0, index=1, objects=(1, 1))  # drawn, with one object
        >>> annotator = Annotator.from_pretrained("shapes")
        >>> images = [encode_jpeg(scene, quality=95)]  # or paths, or PIL images
        >>> for annotation in annotator.annotate(images, task="brief"):
        ...     print(annotation.caption)
        ...     for entity in annotation.entities:
        ...         print(entity.phrase, entity.boxes[0].xyxy)
        An image of a black star.
        a black star (0.109375, 0.640625, 0.265625, 0.796875)
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        generation: Generation = Generation(),
        *,
        keep_model: bool = True,
        memory_bytes: int | None = None,
        tasks: Iterable[Task] = tuple(TASKS.values()),
        engine: Generates | None = None,
    ) -> None:
        self.checkpoint = checkpoint
        self.generation = generation.resolved(no_repeat_ngram_size=checkpoint.no_repeat_ngram_size)
        self.keep_model = keep_model
        self.memory_bytes = memory_bytes
        self._given_engine = engine
        self._length = _sequence_length(tasks, generation)
        self._prompt_encoder = PromptEncoder(checkpoint)

    @classmethod
    def from_pretrained(
        cls,
        name: str | CheckpointFiles = "shapes",
        *,
        device: str = "auto",
        dtype: str = "auto",
        generation: Generation = Generation(),
        keep_model: bool = False,
        tasks: Iterable[Task] = tuple(TASKS.values()),
        gpu_share: float = 1,
    ) -> "Annotator":
        """Load a checkpoint and choose the number of slots by the free memory.

        Args:
            name: Hub id (`owner/name` or `owner/name@revision`), directory, or `shapes`, the
                embedded checkpoint, which knows drawn shapes only; or files that
                `locate_checkpoint` returned.
            device: "auto" (CUDA if there is one), "cpu", "cuda" or "cuda:N".
            dtype: "auto" (float32 on the CPU, float16 on CUDA), "float32", "float16" or
                "bfloat16". See `load_checkpoint`.
            generation: Options of generation. `slots` None takes as many as fit into memory for
                the longest of `tasks`, up to a limit beyond which more slots gain little.
            keep_model: Keep `checkpoint.model` usable, which takes the memory of the weights twice.
            tasks: The tasks that will be asked, as in the constructor.
            gpu_share: Share of the GPU's memory that this annotator may take, from 0 to 1, where
                several processes use one GPU.

        Returns:
            An annotator that is ready for use.

        Raises:
            NotEnoughMemory: The weights and the slots asked for do not fit. Nothing was loaded.
            CheckpointError: The checkpoint, the device or the dtype cannot be used.
        """
        files = locate_checkpoint(name) if isinstance(name, str) else name
        copies = 2 if keep_model else 1
        tasks = tuple(tasks)
        slots, memory = _slots(
            files,
            device=device,
            dtype=dtype,
            asked=generation.slots,
            length=_sequence_length(tasks, generation),
            copies=copies,
            are_images_shared=len(tasks) > 1 or generation.verify_boxes,
            gpu_share=gpu_share,
        )
        checkpoint = load_checkpoint(
            files,
            device=device,
            dtype=dtype,
            no_repeat_ngram_size=generation.no_repeat_ngram_size,
        )
        generation = replace(generation, slots=slots)
        return cls(checkpoint, generation, keep_model=keep_model, memory_bytes=memory, tasks=tasks)

    def annotate(
        self,
        images: Iterable[ImageLike],
        task: str | Task = "brief",
        fields: Iterable[PromptFields] | None = None,
    ) -> Iterator[Annotation]:
        """Annotate images for one task.

        Images are read lazily and annotated together in the engine's slots.

        Args:
            images: PIL images (used as they are), encoded bytes or paths (both turned upright
                by their EXIF orientation), of any size.
            task: A task, or the name of one in `TASKS`.
            fields: One mapping per image with the fields of the task's prompt, such as
                `{"phrase": "a dog"}` for `ground`. Boxes are [x1, y1, x2, y2], normalised to
                [0, 1], origin top left. None for a task without fields.

        Returns:
            An iterator of annotations, one per image, in the order of `images`.

        Raises:
            UnknownTask: No task has this name.
            ImageError: While iterating, for an image that cannot be decoded.
            AnnotationError: While iterating, for an image without a usable answer; PromptError
                for fields that do not make a prompt.
            OSError: While iterating, for a path that cannot be read.
            ValueError: While iterating, if `images` and `fields` differ in length.
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
        """Annotate decoded images for several tasks. The tasks of an image share its encoding.

        Args:
            pixels: uint8 [N, 3, 224, 224], RGB, as in `DecodedImage.pixels`.
            tasks: The tasks, in the order of the result.
            fields: `fields[image][task]` holds the fields of that prompt. None if no task has
                fields.

        Returns:
            For each image, one annotation per task, in order.

        Raises:
            AnnotationError: The first error of any answer. `answer_pixels` returns errors
                instead.
            ValueError: `pixels` has another dtype or shape, or `fields` another length.
        """
        answers = self.answer_pixels(pixels, tasks, fields)
        return [tuple(map(_or_raise, of_image)) for of_image in answers]

    def answer_pixels(
        self,
        pixels: np.ndarray,
        tasks: Sequence[Task],
        fields: Sequence[Sequence[PromptFields]] | None = None,
    ) -> list[tuple[Answer, ...]]:
        """Annotate decoded images for several tasks, and return errors as values.

        Args:
            pixels: uint8 [N, 3, 224, 224], RGB, as in `DecodedImage.pixels`.
            tasks: The tasks, in the order of the result.
            fields: `fields[image][task]` holds the fields of that prompt. None if no task has
                fields.

        Returns:
            For each image, one annotation or AnnotationError per task, in order.

        Raises:
            ValueError: `pixels` has another dtype or shape, or `fields` another length.
        """
        if pixels.dtype != np.uint8 or pixels.shape[1:] != (3, IMAGE_SIZE, IMAGE_SIZE):
            raise ValueError(
                f"pixels: expected uint8 [N, 3, 224, 224], not {pixels.dtype} "
                f"{list(pixels.shape)}. Decode images with decode_image"
            )
        asked = fields if fields is not None else [[{}] * len(tasks)] * len(pixels)
        return list(self._answers(zip(pixels, asked, strict=True), tasks))

    @cached_property
    def engine(self) -> Generates:
        """The engine, created on first use."""
        return self._given_engine or Engine(
            self.checkpoint, self.generation, keep_model=self.keep_model, length=self._length
        )

    def _answers(
        self, images: Iterable[tuple[np.ndarray, Sequence[PromptFields]]], tasks: Sequence[Task]
    ) -> Iterator[tuple[Answer, ...]]:
        asked = (
            (pixels, ImageAnswers(self._prompt_encoder, tasks, fields)) for pixels, fields in images
        )
        return answers_in_order(self.engine, asked, verify_boxes=self.generation.verify_boxes)


def _sequence_length(tasks: Iterable[Task], generation: Generation) -> int:
    """Return the most tokens of a prompt and its answer; boxes are verified by another task."""
    checks = [GROUND] if generation.verify_boxes else []
    return max(map(most_tokens, [*tasks, *checks]))


def _slots(
    files: CheckpointFiles,
    *,
    device: str,
    dtype: str,
    asked: int | None,
    length: int,
    copies: int,
    are_images_shared: bool,
    gpu_share: float,
) -> tuple[int, int]:
    """Return the number of slots, and the memory of slots and weights in bytes."""
    place = device_named(device)
    needs = memory_needs(
        files,
        dtype=dtypes_for(dtype, place)[0],
        length=length,
        vision_batch=vision_batch_for(place.type),
        copies=copies,
        are_images_shared=are_images_shared,
    )
    available = available_bytes(place, gpu_share=gpu_share)
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
