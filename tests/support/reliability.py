"""How reliable scores are as probabilities."""

from collections.abc import Sequence

import numpy as np


def reliability_error(
    probabilities: Sequence[float], rights: Sequence[float], bins: int = 10
) -> float:
    """Return the expected calibration error: |mean probability - share right|, by bin.

    Bins have equal width, and each counts by its number of boxes (Guo et al., On calibration of
    modern neural networks, 2017).
    """
    p, right = np.asarray(probabilities, np.float64), np.asarray(rights, np.float64)
    places = np.minimum((p * bins).astype(np.int64), bins - 1)
    gaps = np.bincount(places, weights=p - right, minlength=bins)
    return float(np.abs(gaps).sum() / len(p))
