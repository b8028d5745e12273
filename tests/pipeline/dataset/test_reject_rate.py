"""When rejects are no accident any more."""

import pytest

from pipeline.dataset.reject_rate import Breaker, is_mostly_rejects


def judged(shards: list[tuple[int, int]], rate: float = 0.05) -> list[bool]:
    """Of shards as (rejected, samples), in order."""
    breaker = Breaker(max_reject_rate=rate)
    return [breaker.has_too_many(rejected=bad, samples=all_) for bad, all_ in shards]


@pytest.mark.parametrize(
    ("shards", "expected"),
    [
        pytest.param([(0, 0)] * 3, [False] * 3, id="nothing in them"),
        pytest.param([(10, 10)] * 4, [False] * 4, id="40 samples say too little"),
        pytest.param([(10, 10)] * 6, [False] * 4 + [True] * 2, id="50 say enough"),
        pytest.param([(1, 1)] * 60, [False] * 49 + [True] * 11, id="one picture each"),
        pytest.param([(0, 10)] * 20 + [(10, 10)], [False] * 21, id="one of many is bad"),
        pytest.param(
            [(0, 10)] * 20 + [(10, 10)] * 2, [False] * 21 + [True], id="two of many are too many"
        ),
        pytest.param([(10, 10)] * 5 + [(0, 10)], [False] * 4 + [True, False], id="a good one"),
        pytest.param([(50, 50)] + [(1, 1)] * 9, [True] + [False] * 9, id="a large one is apart"),
        pytest.param([(2, 40)] * 9, [False] * 9, id="exactly the rate"),
    ],
)
def test_small_shards_are_judged_together(
    shards: list[tuple[int, int]], expected: list[bool]
) -> None:
    assert judged(shards) == expected


def test_a_rate_of_one_lets_everything_pass() -> None:
    assert not any(judged([(10, 10), (99, 99)] * 9, rate=1))


@pytest.mark.parametrize(
    ("annotated", "rejected", "rate", "expected"),
    [
        (0, 0, 0.05, False),
        (0, 1, 0.05, True),  # nothing but a reject
        (1, 9, 0.05, False),  # too few to say
        (45, 5, 0.05, True),
        (950, 50, 0.05, False),
        (949, 51, 0.05, True),
        (0, 9, 1, False),
    ],
)
def test_a_dataset_of_rejects_is_no_success(
    annotated: int, rejected: int, rate: float, expected: bool
) -> None:
    assert (
        is_mostly_rejects(annotated=annotated, rejected=rejected, max_reject_rate=rate) == expected
    )
