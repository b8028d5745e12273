"""Images, prompts and forced lengths of answers: the same work for both sides."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from kosmos2_core.checkpoint.load import Checkpoint
from kosmos2_core.grounding.grid import IMAGE_SIZE
from kosmos2_core.prompts.encoder import PromptEncoder
from kosmos2_core.prompts.tasks import BRIEF, DETAILED, Task

_SEED = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """Lengths of answers in tokens: lognormal, cut at `most`."""

    mean: float
    deviation: float
    most: int

    def draw(self, count: int) -> tuple[int, ...]:
        spread = np.log1p((self.deviation / self.mean) ** 2)
        rng = np.random.default_rng(_SEED)
        drawn = rng.lognormal(np.log(self.mean) - spread / 2, np.sqrt(spread), count)
        return tuple(np.clip(drawn.round(), 1, self.most).astype(int).tolist())


# As the published model is expected to answer; the docs state them with each figure.
BRIEF_LENGTHS = Lengths(mean=30, deviation=15, most=64)
DETAILED_LENGTHS = Lengths(mean=110, deviation=45, most=256)


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchQuestion:
    """One question to every image, and the length of the answer for each image.

    With `stops_at_eos` an answer may end before.
    """

    task: str
    ids: tuple[int, ...]
    lengths: tuple[int, ...]
    stops_at_eos: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """`pixels` uint8 [N, 3, 224, 224]; every image gets all questions."""

    pixels: np.ndarray
    questions: tuple[BatchQuestion, ...]

    @property
    def longest(self) -> int:
        """Most tokens of a prompt and its answer."""
        return max(len(each.ids) + max(each.lengths) for each in self.questions)

    def first(self, images: int) -> "Workload":
        questions = (replace(each, lengths=each.lengths[:images]) for each in self.questions)
        return Workload(pixels=self.pixels[:images], questions=tuple(questions))


@dataclass(frozen=True, slots=True, kw_only=True)
class Workloads:
    """The works to measure. `constant_length` is the worst case for continuous batching."""

    brief: Workload
    detailed: Workload
    two_tasks: Workload
    constant_length: Workload


def workloads(
    checkpoint: Checkpoint, *, images: int, brief: Lengths, detailed: Lengths
) -> Workloads:
    pixels = np.random.default_rng(_SEED).integers(
        0, 256, (images, 3, IMAGE_SIZE, IMAGE_SIZE), np.uint8
    )
    short = _question(checkpoint, BRIEF, brief.draw(images))
    long = _question(checkpoint, DETAILED, detailed.draw(images))
    constant = _question(checkpoint, BRIEF, (round(brief.mean),) * images)
    return Workloads(
        brief=Workload(pixels=pixels, questions=(short,)),
        detailed=Workload(pixels=pixels, questions=(long,)),
        two_tasks=Workload(pixels=pixels, questions=(short, long)),
        constant_length=Workload(pixels=pixels, questions=(constant,)),
    )


def questions_about(checkpoint: Checkpoint, pixels: np.ndarray, *tasks: Task) -> Workload:
    """Return the work of asking about each of some images, with answers that end by themselves."""
    questions = (
        replace(
            _question(checkpoint, task, (task.max_new_tokens,) * len(pixels)), stops_at_eos=True
        )
        for task in tasks
    )
    return Workload(pixels=pixels, questions=tuple(questions))


def _question(checkpoint: Checkpoint, task: Task, lengths: Sequence[int]) -> BatchQuestion:
    ids = PromptEncoder(checkpoint).encode(task, {}).prompt.ids
    return BatchQuestion(task=task.name, ids=ids, lengths=tuple(lengths))
