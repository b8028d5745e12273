"""Figures from a sample, with their uncertainty."""

import math
import random

import pytest

from pipeline.costs.interval import Estimate, ratio


def test_a_ratio_is_one_of_sums() -> None:
    assert ratio([(1, 2), (3, 2)]).value == 1.0
    assert ratio([(2, 4), (3, 6)]) == Estimate(value=0.5, low=0.5, high=0.5)


def test_one_look_says_nothing_of_itself() -> None:
    assert ratio([(1, 2)]) == Estimate(value=0.5, low=0, high=math.inf)


def test_products_are_less_sure_than_their_factors() -> None:
    found = Estimate(value=10, low=9, high=11).by(Estimate(value=2, low=1.6, high=2.4))
    assert found.value == 20
    assert (found.low, found.high) == pytest.approx((15.53, 24.47), abs=0.01)
    exact = Estimate(value=3, low=3, high=3)
    assert exact.by(Estimate(value=2, low=1, high=3)) == Estimate(value=6, low=3, high=9)


@pytest.mark.parametrize("looks", [4, 8])
def test_the_truth_lies_within_in_19_of_20_cases(looks: int) -> None:
    draw = random.Random(20261127)

    def holds_truth() -> bool:
        sizes = [draw.uniform(50, 150) for _ in range(looks)]
        found = ratio([(size * draw.gauss(2, 0.4), size) for size in sizes])
        return found.low <= 2 <= found.high

    share = sum(holds_truth() for _ in range(2000)) / 2000
    assert 0.92 <= share <= 0.98
