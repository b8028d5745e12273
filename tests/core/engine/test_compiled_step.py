"""A decode step holds nothing that a compiler or a graph would stumble over."""

import pytest
import torch
from torch._dynamo.utils import counters

from kosmos2_core.engine.model.decoder import TextDecoder
from kosmos2_core.engine.model.kv_cache import bucketed
from kosmos2_core.engine.model.placement import TokenBatch
from kosmos2_core.engine.model.vision import VisionEncoder
from tests.support.engine_models import ids_of, pixels, random_model, shapes

N, STEPS = 3, 25


@torch.no_grad()
def decoded(checkpoint_of, wrap):
    """Tokens [N][STEPS] of greedy decoding, and the spans of the steps; `wrap` gets the step."""
    checkpoint, prompt = checkpoint_of(), ids_of(checkpoint_of)
    decoder = TextDecoder(checkpoint, "plain")
    images = VisionEncoder(checkpoint, "plain")(torch.from_numpy(pixels(N)))
    cache = decoder.new_cache(N, len(prompt) + STEPS)
    logits = decoder(cache, TokenBatch(first_slot=0, ids=[prompt] * N, start=0), images)
    step, ids, found, spans = wrap(decoder.step), logits.argmax(-1), [], []
    for at in range(len(prompt), len(prompt) + STEPS):
        found.append(ids.tolist())
        spans.append(bucketed(at + 1))
        ids = step(cache, ids, torch.full((N,), at), span=spans[-1]).argmax(-1)
    return list(zip(*found, strict=True)), spans


@pytest.mark.parametrize(
    "checkpoint_of", [random_model, pytest.param(shapes, marks=pytest.mark.slow)]
)
def test_a_compiled_step_says_the_same_and_compiles_once_per_bucket(checkpoint_of):
    torch._dynamo.reset()
    counters.clear()

    def compiled(step):  # fullgraph: a graph break would raise
        return torch.compile(step, backend="aot_eager", fullgraph=True, dynamic=False)

    found, spans = decoded(checkpoint_of, compiled)
    expected, _ = decoded(checkpoint_of, lambda step: step)
    assert found == expected
    assert len(set(spans)) == 2
    assert counters["stats"]["unique_graphs"] == 2
