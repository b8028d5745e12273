"""The last answers of an actor, so that it computes those to copies of an image once."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from threading import Lock

import numpy as np

from kosmos2_core.annotation import Annotation
from kosmos2_core.errors import AnnotationError
from kosmos2_core.quick_init import quick_init
from pipeline.errors import WorkerDied
from pipeline.schema import Original

Answers = tuple[Annotation | AnnotationError | WorkerDied, ...]  # of one image, one per task

# The answers of tables whose shards are not committed yet, with a few kB each. Later copies are
# found in the commits.
_KEPT = 16_384


@quick_init
@dataclass(frozen=True, slots=True, kw_only=True)
class NamedSample:
    """Identify a sample, with its own fields: values of `schema.READ` and `schema.SAMPLE`."""

    shard_id: str
    index: int
    key: str
    image_sha256: bytes
    metadata: str | None


Compute = Callable[[np.ndarray, Sequence[NamedSample]], Sequence[Answers]]


@quick_init
@dataclass(frozen=True, slots=True, kw_only=True)
class AnswersTo:
    """The answers to an image; `original` is the image that they were computed for, if another."""

    answers: Answers
    original: Original | None = None

    @property
    def is_complete(self) -> bool:
        """Return whether each task has an annotation."""
        return all(isinstance(answer, Annotation) for answer in self.answers)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Held:
    original: Original
    answers: Future[Answers]


class RecentAnswers:
    """The last answers, by the SHA-256 of the image's bytes. Several threads may call it."""

    def __init__(self, kept: int = _KEPT) -> None:
        self._kept = kept
        self._held = OrderedDict[bytes, _Held]()
        self._lock = Lock()

    def answers(
        self, pixels: np.ndarray, named: Sequence[NamedSample], compute: Compute
    ) -> list[AnswersTo]:
        """Return the answers to each image. `compute` is called with those that no thread has.

        The images of this call are computed before others are waited for, so that two calls never
        wait for each other.
        """
        places = [_place(sample) for sample in named]
        held = [self._hold(*each) for each in zip(named, places, strict=True)]
        own = [i for i, place in enumerate(places) if held[i].original is place]
        try:
            computed = _computed(pixels, named, own, compute)
        except BaseException as error:
            self._fail([held[i] for i in own], error)
            raise
        for i, answers in zip(own, computed, strict=True):
            held[i].answers.set_result(answers)
        return [
            AnswersTo(
                answers=each.answers.result(),
                original=None if each.original is place else each.original,
            )
            for each, place in zip(held, places, strict=True)
        ]

    def _hold(self, sample: NamedSample, place: Original) -> _Held:
        """Return what is held of the image; from now on its answers, which the caller computes."""
        sha256 = sample.image_sha256
        with self._lock:
            if sha256 not in self._held:
                self._held[sha256] = _Held(original=place, answers=Future())
            found = self._held[sha256]
            self._held.move_to_end(sha256)
            while len(self._held) > self._kept and next(iter(self._held.values())).answers.done():
                self._held.popitem(last=False)
        return found

    def _fail(self, held: Sequence[_Held], error: BaseException) -> None:
        """Raise an error for those that wait for these answers, and forget the images."""
        with self._lock:
            failed = {id(each) for each in held}
            for sha256 in [key for key, each in self._held.items() if id(each) in failed]:
                del self._held[sha256]
        for each in held:
            each.answers.set_exception(error)


def _computed(
    pixels: np.ndarray, named: Sequence[NamedSample], own: Sequence[int], compute: Compute
) -> Sequence[Answers]:
    if not own:
        return ()
    if len(own) == len(named):  # without a copy of the pixels
        return compute(pixels, named)
    return compute(pixels[own], [named[i] for i in own])


def _place(sample: NamedSample) -> Original:
    return Original(output="", shard_id=sample.shard_id, index=sample.index)
