"""The last answers of an actor."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pytest

from kosmos2_core.errors import EngineOutOfMemory, NonFiniteLogits
from pipeline.execution.annotate.recent import Answers, NamedSample, RecentAnswers

PIXELS = np.arange(4, dtype=np.uint8)[:, None]


def named(*hashes: str, shard: str = "a") -> list[NamedSample]:
    return [
        NamedSample(
            shard_id=shard, index=index, key=name, image_sha256=name.encode(), metadata=None
        )
        for index, name in enumerate(hashes)
    ]


class Computing:
    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, pixels: np.ndarray, samples: Sequence[NamedSample]) -> list[Answers]:
        assert len(pixels) == len(samples)
        names = [sample.image_sha256.decode() for sample in samples]
        self.asked += names
        return [(NonFiniteLogits(name),) for name in names]


def test_each_image_is_computed_once() -> None:
    recent, compute = RecentAnswers(), Computing()
    found = recent.answers(PIXELS, named("x", "y", "x", "z"), compute)
    assert compute.asked == ["x", "y", "z"]
    assert [str(each.answers[0]) for each in found] == ["x", "y", "x", "z"]
    assert [each.original and each.original.index for each in found] == [None, None, 0, None]
    again = recent.answers(PIXELS[:2], named("w", "z", shard="b"), compute)
    assert compute.asked == ["x", "y", "z", "w"]
    assert [each.original and (each.original.shard_id, each.original.index) for each in again] == [
        None, ("a", 3)
    ]  # fmt: skip


def test_a_rejected_image_has_no_copies() -> None:
    [_, copy] = RecentAnswers().answers(PIXELS[:2], named("x", "x"), Computing())
    assert copy.original is not None
    assert not copy.is_complete


def test_two_calls_wait_for_each_others_images() -> None:
    recent, both = RecentAnswers(), Barrier(2)

    def compute(pixels: np.ndarray, samples: Sequence[NamedSample]) -> list[Answers]:
        both.wait(30)  # each call has its own images by now, and the other's among its copies
        return Computing()(pixels, samples)

    with ThreadPoolExecutor(2) as pool:
        calls = [
            pool.submit(recent.answers, PIXELS[:2], named(*names, shard=shard), compute)
            for shard, names in (("a", ("x", "y")), ("b", ("z", "x")))
        ]
        found = [[str(each.answers[0]) for each in call.result(30)] for call in calls]
    assert found == [["x", "y"], ["z", "x"]]


def test_an_error_reaches_all_that_wait_and_is_not_kept() -> None:
    recent = RecentAnswers()

    def fail(pixels: np.ndarray, samples: Sequence[NamedSample]) -> list[Answers]:
        raise EngineOutOfMemory("no memory")

    with pytest.raises(EngineOutOfMemory):
        recent.answers(PIXELS[:1], named("x"), fail)
    [found] = recent.answers(PIXELS[:1], named("x"), Computing())
    assert found.original is None


def test_only_the_last_answers_are_kept() -> None:
    recent, compute = RecentAnswers(kept=2), Computing()
    for name in ("x", "y", "x", "z", "x", "y"):
        recent.answers(PIXELS[:1], named(name), compute)
    assert compute.asked == ["x", "y", "z", "y"]
