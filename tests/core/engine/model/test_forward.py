"""Vision and decoder against the model's own forward pass."""

import pytest
import torch

from kosmos2_core.comparison.oracle import Oracle
from kosmos2_core.engine.model.decoder import TextDecoder
from kosmos2_core.engine.model.kv_cache import KVCache, bucketed
from kosmos2_core.engine.model.placement import TokenBatch
from kosmos2_core.engine.model.vision import VisionEncoder
from tests.support.engine_models import HEAD, ids_of, pixels, random_model, shapes

N = 3


@pytest.mark.parametrize(
    ("backend", "tolerance"),
    # Packing changes the order of sums; embeddings of up to 5 pass four layers.
    [("plain", 1e-5), ("onednn", 3e-4)],
)
@pytest.mark.parametrize("checkpoint_of", [shapes, random_model])
def test_image_embeddings_equal_the_model(checkpoint_of, backend, tolerance):
    checkpoint = checkpoint_of()
    with torch.inference_mode():
        found = VisionEncoder(checkpoint, backend)(torch.from_numpy(pixels(N)))
    expected = Oracle(checkpoint).embed_images(pixels(N))
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=0)


@torch.inference_mode()
def reference_logits(checkpoint, ids, images):
    """[N, T, V] of whole rows without a cache."""
    rows = torch.tensor(ids)
    mask = torch.zeros_like(rows)
    mask[:, 2:66] = 1
    model = checkpoint.model.text_model
    return model(input_ids=rows, image_embeds=images, image_embeds_position_mask=mask).logits


@pytest.fixture(scope="module")
def rows():
    """Three rows of random words after the head, and their logits."""
    generator = torch.Generator().manual_seed(1)
    words = torch.randint(4, 1000, (N, 9), generator=generator).tolist()
    ids = [[*ids_of(shapes)[:HEAD], *row] for row in words]
    images = Oracle(shapes()).embed_images(pixels(N))
    return ids, images, reference_logits(shapes(), ids, images)


@torch.inference_mode()
def forward(decoder, cache, ids, start, images=None, first_slot=1):
    return decoder(cache, TokenBatch(first_slot=first_slot, ids=ids, start=start), images)


@torch.inference_mode()
def step(decoder, cache, ids, starts):
    span = bucketed(max(starts) + 1)
    return decoder.step(cache, torch.tensor(ids), torch.tensor(starts), span=span)


def close(found, expected):
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("backend", ["plain", "onednn"])
def test_prefill_extension_and_decode_agree_with_whole_rows(rows, backend):
    ids, images, logits = rows
    decoder = TextDecoder(shapes(), backend)
    cache = decoder.new_cache(N + 2, 100)
    heads = [row[:HEAD] for row in ids]
    close(forward(decoder, cache, heads, 0, images), logits[:, HEAD - 1])
    parts = [row[HEAD : HEAD + 4] for row in ids]
    close(forward(decoder, cache, parts, HEAD), logits[:, HEAD + 3])
    for at in range(HEAD + 4, HEAD + 9):
        close(forward(decoder, cache, [row[at : at + 1] for row in ids], at), logits[:, at])


@pytest.mark.parametrize("backend", ["plain", "onednn"])
def test_rows_of_different_lengths_need_no_padding_by_the_caller(rows, backend):
    ids, images, logits = rows
    lengths = [HEAD + 1, HEAD + 9, HEAD + 4]
    decoder = TextDecoder(shapes(), backend)
    cache = decoder.new_cache(N + 1, 100)
    cut = [row[:length] for row, length in zip(ids, lengths, strict=True)]
    expected = [logits[n, length - 1] for n, length in enumerate(lengths)]
    close(forward(decoder, cache, cut, 0, images, first_slot=0), torch.stack(expected))
    lengths = [HEAD + 1, HEAD + 8, HEAD + 4]
    steps = [row[length] for row, length in zip(ids, lengths, strict=True)]
    expected = [logits[n, length] for n, length in enumerate(lengths)]
    close(step(decoder, cache, steps, lengths), torch.stack(expected))


def test_a_cache_is_as_long_as_the_buckets_that_it_needs():
    cache = KVCache(
        layers=1, slots=2, heads=1, length=5, head_dim=4, dtype=torch.float32, device="cpu"
    )
    assert cache.length == 16
    assert not cache.data.any()
