"""Precisions and their intervals."""

import pytest
from scipy.stats import binomtest

from pipeline.review.judgements import JudgedBox
from pipeline.review.precision import precision_report, wilson


def judged(right: float, *, weight: float = 1, score: float = 0.5, people: int = 1) -> JudgedBox:
    return JudgedBox(
        task="brief", phrase="a cat", score=score, weight=weight, right=right, people=people
    )


@pytest.mark.parametrize(("right", "of"), [(0, 7), (3, 9), (45, 50), (7, 7)])
def test_the_interval_is_that_of_wilson(right: int, of: int) -> None:
    expected = binomtest(right, of).proportion_ci(method="wilson")
    assert wilson(right / of, of) == pytest.approx((expected.low, expected.high), abs=1e-4)


def test_a_box_counts_for_those_that_it_stands_for() -> None:
    boxes = [judged(1, weight=9), judged(0), judged(1), judged(0.5, people=2)]
    report = precision_report(boxes)
    assert report.whole.value == pytest.approx((9 + 1 + 0.5) / 12)
    assert (report.whole.boxes, report.judged_twice, report.agreed) == (4, 1, 0)
    even = precision_report([judged(1), judged(0), judged(1), judged(0.5)]).whole
    assert report.whole.high - report.whole.low > even.high - even.low


def test_groups_are_by_task_class_and_score() -> None:
    report = precision_report([judged(1, score=0.05), judged(0, score=1.0)])
    assert [each.group for each in report.by_score] == ["0.0 to 0.1", "0.9 to 1.0"]
    assert [each.group for each in report.by_class] == ["cat"]
    assert [each.group for each in report.by_task] == ["brief"]
    assert [each.value for each in report.by_score] == [1, 0]
