"""The calibration of scores, against scikit-learn's isotonic regression."""

import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression

from pipeline.review.curve import fit_curve
from tests.support.reliability import reliability_error


@pytest.mark.parametrize("seed", range(20))
def test_the_curve_is_the_isotonic_regression(seed: int) -> None:
    draw = np.random.default_rng(seed)
    scores = np.round(draw.random(60), 2)  # some are equal
    rights = (draw.random(60) < scores).astype(float)
    weights = draw.integers(1, 6, 60).astype(float)
    curve = fit_curve(scores, rights, weights)
    fitted = IsotonicRegression(out_of_bounds="clip").fit(scores, rights, sample_weight=weights)
    grid = np.linspace(-0.1, 1.1, 200)
    assert [curve(score) for score in grid] == pytest.approx(list(fitted.predict(grid)), abs=1e-9)


def test_the_curve_is_linear_between_the_blocks() -> None:
    curve = fit_curve([0.2, 0.4, 0.6, 0.8], [0, 0, 1, 1], [1, 1, 1, 1])
    assert (curve.scores, curve.precisions) == ((0.2, 0.4, 0.6, 0.8), (0, 0, 1, 1))
    assert curve(0.5) == pytest.approx(0.5)
    assert curve.judgements == 4


def test_a_threshold_keeps_boxes_that_are_right_often_enough() -> None:
    curve = fit_curve([0.1, 0.5, 0.5, 0.9], [0, 1, 0, 1], [1, 1, 1, 1])
    assert curve.threshold(0.95) == (0.9, 1)
    score, precision = curve.threshold(0.6)
    assert (score, precision) == (0.5, pytest.approx(2 / 3))
    assert curve.threshold(0.1)[0] == 0.1


def test_a_precision_that_no_score_gives_has_no_threshold() -> None:
    curve = fit_curve([0.1, 0.9], [0, 0.5], [1, 1])
    assert curve.threshold(0.6) == (None, 0.5)


def test_weights_count_as_boxes() -> None:
    weighted = fit_curve([0.2, 0.5, 0.5, 0.9], [0, 1, 0, 1], [1, 3, 1, 2])
    repeated = fit_curve([0.2, *[0.5] * 4, 0.9, 0.9], [0, 1, 1, 1, 0, 1, 1], [1] * 7)
    assert weighted.precisions == pytest.approx(repeated.precisions)
    assert weighted.threshold(0.7) == pytest.approx(repeated.threshold(0.7))


def test_reliability_error_is_the_gap_between_probability_and_share() -> None:
    assert reliability_error([0.95] * 20, [1] * 19 + [0]) == pytest.approx(0)
    assert reliability_error([0.95] * 10 + [0.15] * 10, [1] * 10 + [0.5] * 10) == pytest.approx(
        (10 * 0.05 + 10 * 0.35) / 20
    )
    assert reliability_error([1.0], [1]) == 0
