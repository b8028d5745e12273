"""Images in, grounded annotations out.

>>> annotator = Annotator.from_pretrained("shapes")
>>> for annotation in annotator.annotate(["snowman.jpg"], task="brief"):
...     print(annotation.caption, annotation.to_huggingface())
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from kosmos2_core.annotation import Annotation, Issue
from kosmos2_core.checkpoint import Checkpoint, load_checkpoint
from kosmos2_core.grounding import parse_tokens
from kosmos2_core.huggingface import Generation, embed_images, generate
from kosmos2_core.images import decode_image, square_pixels
from kosmos2_core.locations import IMAGE_SIZE
from kosmos2_core.tasks import Task, task_named
from kosmos2_core.vocabulary import Tag

ImageLike = Image.Image | bytes | str | os.PathLike[str]


class Annotator:
    """A loaded checkpoint that annotates images, `slots` at a time."""

    def __init__(self, checkpoint: Checkpoint, *, slots: int = 16) -> None:
        if slots < 1:
            raise ValueError(f"slots must be at least 1, not {slots}")
        self.checkpoint = checkpoint
        self.slots = slots
        self._prompt_ids: dict[str, list[int]] = {}

    @classmethod
    def from_pretrained(
        cls,
        name: str = "shapes",
        *,
        device: str = "auto",
        dtype: str = "auto",
        no_repeat_ngram_size: int | None = None,
        slots: int = 16,
    ) -> "Annotator":
        """A hub id, a directory or `shapes`; see `load_checkpoint` for the rest."""
        checkpoint = load_checkpoint(
            name, device=device, dtype=dtype, no_repeat_ngram_size=no_repeat_ngram_size
        )
        return cls(checkpoint, slots=slots)

    def annotate(
        self, images: Iterable[ImageLike], task: str | Task = "brief"
    ) -> Iterator[Annotation]:
        """One annotation per image, in order; reads `images` lazily.

        An image is a PIL image (taken as it is), encoded bytes or a path (turned upright by
        its EXIF orientation). Raises ImageError for one that cannot be decoded.
        """
        task = task_named(task) if isinstance(task, str) else task
        remaining = iter(images)
        while batch := [_pixels(image) for image in islice(remaining, self.slots)]:
            for annotations in self.annotate_pixels(np.stack(batch), [task]):
                yield from annotations

    def annotate_pixels(
        self, pixels: np.ndarray, tasks: Sequence[Task]
    ) -> list[tuple[Annotation, ...]]:
        """uint8 [N, 3, 224, 224] -> for each image one annotation per task, in order.

        All tasks of an image share the vision tower. Raises NonFiniteLogits.
        """
        if pixels.dtype != np.uint8 or pixels.shape[1:] != (3, IMAGE_SIZE, IMAGE_SIZE):
            raise ValueError(f"expected uint8 [N, 3, 224, 224], not {pixels.dtype} {pixels.shape}")
        annotations: list[tuple[Annotation, ...]] = []
        for start in range(0, len(pixels), self.slots):
            embeds = embed_images(self.checkpoint, pixels[start : start + self.slots])
            by_task = [
                [
                    self._annotation(task, generation)
                    for generation in generate(self.checkpoint, embeds, self._prompt(task), task)
                ]
                for task in tasks
            ]
            annotations += zip(*by_task, strict=True)
        return annotations

    def _prompt(self, task: Task) -> list[int]:
        """`<s> <image> ... </image> <grounding> ...`: the same for every image."""
        if task.prompt not in self._prompt_ids:
            blank = Image.new("RGB", (IMAGE_SIZE, IMAGE_SIZE))
            ids = self.checkpoint.processor(text=task.prompt, images=blank)["input_ids"]
            self._prompt_ids[task.prompt] = list(ids)
        return self._prompt_ids[task.prompt]

    @cached_property
    def _end_of_image(self) -> int:
        return next(i for i, t in self.checkpoint.vocabulary.tags.items() if t is Tag.END_OF_IMAGE)

    def _annotation(self, task: Task, generation: Generation) -> Annotation:
        prompt = self._prompt(task)
        text = prompt[prompt.index(self._end_of_image) + 1 :]
        grounding = parse_tokens(
            self.checkpoint.vocabulary, text, generation.token_ids, generation.scores
        )
        truncated = (Issue.TRUNCATED,) if generation.finish_reason == "length" else ()
        return Annotation(
            task=task.name,
            prompt=task.prompt,
            caption=grounding.caption,
            prompt_chars=grounding.prompt_chars,
            entities=grounding.entities,
            issues=truncated + grounding.issues,
            finish_reason=generation.finish_reason,
            token_ids=generation.token_ids,
            token_logprobs=tuple(score.logprob for score in generation.scores),
        )


def _pixels(image: ImageLike) -> np.ndarray:
    if isinstance(image, Image.Image):
        return square_pixels(image)
    data = image if isinstance(image, bytes) else Path(image).read_bytes()
    return decode_image(data).pixels
