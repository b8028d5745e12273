"""Half precision is judged by the probabilities of given answers: where two tokens are almost
equally likely it may choose another than float32, and say something else from there on."""

from functools import cache

import pytest
import torch

from kosmos2_core.checkpoint.load import load_checkpoint
from kosmos2_core.comparison.forced import forced_logprobs
from kosmos2_core.engine.model.weights import can_pack
from kosmos2_core.prompts.tasks import BRIEF
from tests.support.engine_models import ids_of, pixels, reference_of, shapes

IMAGES = 6

# Of log-probabilities, mean and largest; three times what was seen.
TOLERANCE = {"bfloat16": (0.01, 0.15), "float16": (0.0015, 0.02)}

# Of tokens that stay the best, at least. bfloat16 ties some locations.
SAME = {"bfloat16": 0.95, "float16": 1.0}

BACKENDS = [
    pytest.param(
        backend,
        name,
        marks=pytest.mark.skipif(
            backend == "onednn" and not can_pack(getattr(torch, name)),
            reason=f"this processor does not pack {name}",
        ),
    )
    for name in ("bfloat16", "float16")
    for backend in ("plain", "onednn")
]


@cache
def checkpoint_as(name):
    return load_checkpoint("shapes", device="cpu", dtype=name)


def answers():
    """What Hugging Face says in float32, cut to one length; and its log-probabilities."""
    generations = reference_of(shapes, BRIEF, IMAGES, BRIEF.max_new_tokens)
    length = min(len(generation.token_ids) for generation in generations)
    ids = [generation.token_ids[:length] for generation in generations]
    scores = [generation.scores.logprobs[:length] for generation in generations]
    return ids, torch.tensor(scores)


def forced(name, backend):
    """float32 [N, T, V]: the engine's log-probabilities when it is made to give the answers."""
    ids, _ = answers()
    return forced_logprobs(checkpoint_as(name), backend, pixels(64)[:IMAGES], ids_of(shapes), ids)


@pytest.mark.parametrize(("backend", "name"), BACKENDS)
def test_half_precision_is_close_to_float32(backend, name):
    ids, expected = answers()
    logprobs = forced(name, backend)
    found = logprobs.gather(-1, torch.tensor(ids)[..., None]).squeeze(-1)
    error = (found - expected).abs()
    mean, largest = TOLERANCE[name]
    assert error.mean() <= mean
    assert error.max() <= largest
    is_same = logprobs.argmax(-1) == torch.tensor(ids)
    assert is_same.float().mean() >= SAME[name]


def test_float32_is_the_same_to_rounding():
    ids, expected = answers()
    found = forced("float32", "onednn").gather(-1, torch.tensor(ids)[..., None]).squeeze(-1)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
