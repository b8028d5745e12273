"""The measurement of spans by groups computes the same attention for any number of groups."""

import numpy as np
import pytest
import torch

from jobs.bench.engine.spans import StepAttention, lengths_in_a_run
from kosmos2_core.comparison.workload import DETAILED_LENGTHS


@pytest.mark.parametrize("groups", [2, 4, 8])
def test_groups_give_the_same_attention(groups):
    lengths = lengths_in_a_run(DETAILED_LENGTHS, 8, np.random.default_rng(0))
    attention = StepAttention(lengths, heads=3, head_dim=16)
    assert torch.allclose(attention(groups), attention(1), rtol=1e-5, atol=1e-6)


def test_slots_are_in_the_middle_of_their_answers():
    lengths = lengths_in_a_run(DETAILED_LENGTHS, 4000, np.random.default_rng(0))
    assert lengths.min() >= 73
    assert lengths.max() <= 73 + DETAILED_LENGTHS.most
    # Half of an answer's length, where long ones are met more often: (110 + 45 ** 2 / 110) / 2.
    assert np.mean(lengths) - 73 == pytest.approx(64, abs=3)
