import math

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from kosmos2_core.shapes.evaluation.roc import bootstrapped_auc, roc_auc


@pytest.mark.parametrize("levels", [1000, 5])  # without ties, with many
def test_area_is_scikit_learns(levels):
    rng = np.random.default_rng(levels)
    scores = rng.integers(levels, size=400).astype(float)
    is_right = rng.uniform(size=400) < scores / levels
    assert roc_auc(scores, is_right) == pytest.approx(roc_auc_score(is_right, scores))


def test_no_area_where_all_are_right():
    assert math.isnan(roc_auc(np.ones(3), np.ones(3, bool)))


def test_interval_holds_the_value_and_narrows_with_more_images():
    rng = np.random.default_rng(1)
    widths = []
    for images in (40, 640):
        groups = np.repeat(np.arange(images), 5)
        is_right = rng.uniform(size=len(groups)) < 0.7
        scores = rng.normal(size=len(groups)) + is_right
        auc = bootstrapped_auc(scores, is_right, groups)
        assert auc.low < auc.value < auc.high
        widths.append(auc.high - auc.low)
    assert widths[1] < widths[0] / 2


def test_boxes_of_one_image_are_drawn_together():
    """Copies within an image add no information: the interval is that of the images."""
    rng = np.random.default_rng(2)
    is_right = rng.uniform(size=60) < 0.7
    scores = rng.normal(size=60) + is_right
    once = bootstrapped_auc(scores, is_right, np.arange(60))
    copied = bootstrapped_auc(
        np.repeat(scores, 9), np.repeat(is_right, 9), np.repeat(np.arange(60), 9)
    )
    assert (copied.low, copied.high) == pytest.approx((once.low, once.high))
