"""The oracle is judged by what it does before it judges; each defect is simulated here."""

from copy import deepcopy

import pytest
import torch
from transformers.models.kosmos2 import modeling_kosmos2

from kosmos2_core.comparison.oracle import (
    Oracle,
    is_left_padding_wrong,
    is_resampler_causal,
    mend_resampler,
)
from kosmos2_core.errors import WrongOracle
from tests.support.engine_models import (
    checkpoint_with_causal_resampler,
    ids_of,
    pixels,
    random_model,
    shapes,
)

Positions = modeling_kosmos2.Kosmos2TextSinusoidalPositionalEmbedding


def always_causal(monkeypatch, checkpoint_of):
    """A defect that no attribute of the module mends."""
    checkpoint = checkpoint_with_causal_resampler(checkpoint_of)
    attention = checkpoint.model.image_to_text_projection.x_attn
    forward = attention.forward

    def causal(*args, **options):
        attention.is_causal = True
        return forward(*args, **options)

    monkeypatch.setattr(attention, "forward", causal)
    return checkpoint


@pytest.mark.parametrize("checkpoint_of", [shapes, random_model])
def test_a_causal_resampler_is_refused_by_name(checkpoint_of):
    checkpoint = checkpoint_with_causal_resampler(checkpoint_of)
    with pytest.raises(WrongOracle, match=r"resampler of transformers \d.* is causal.*5\.23"):
        Oracle(checkpoint)


def test_a_causal_resampler_changes_the_embeddings():
    """The defect that is refused matters."""
    right = Oracle(shapes()).embed_images(pixels(2))
    checkpoint = checkpoint_with_causal_resampler(shapes)
    wrong = checkpoint.model.image_to_text_projection
    features = torch.nn.functional.normalize(torch.randn(2, 257, wrong.dense.in_features), dim=-1)
    with torch.inference_mode():
        causal = wrong(features)[0]
        mend_resampler(checkpoint.model)
        mended = wrong(features)[0]
    assert (causal - mended).abs().max() > 0.1 * mended.abs().max()
    torch.testing.assert_close(Oracle(checkpoint).embed_images(pixels(2)), right)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("checkpoint_of", [shapes, random_model])
def test_rounding_is_no_defect(checkpoint_of, dtype):
    assert not is_resampler_causal(deepcopy(checkpoint_of().model).to(dtype))


def test_what_mending_does_not_help_is_refused(monkeypatch):
    checkpoint = always_causal(monkeypatch, shapes)
    with pytest.raises(WrongOracle, match="is causal"):
        mend_resampler(checkpoint.model)


def test_a_right_resampler_needs_no_mending():
    assert mend_resampler(deepcopy(shapes().model)) is False


def test_left_padding_that_is_mended_is_no_defect(monkeypatch):
    """Count tokens and no padding for the positions of generated tokens."""
    forward = Positions.forward

    def counting(self, *, past_key_values_length, **options):
        return forward(self, past_key_values_length=min(past_key_values_length, 12), **options)

    assert is_left_padding_wrong(shapes().model)
    monkeypatch.setattr(Positions, "forward", counting)
    assert not is_left_padding_wrong(shapes().model)


@pytest.mark.parametrize("checkpoint_of", [shapes, random_model])
def test_a_prompt_with_padding_on_the_left_is_refused_where_that_is_wrong(checkpoint_of):
    """It is in all versions that are supported."""
    oracle = Oracle(checkpoint_of())
    assert oracle.shifts_padded_rows
    embeds, ids = oracle.embed_images(pixels(1)), ids_of(shapes)
    padding = oracle.checkpoint.tokenizer.pad_token_id
    with pytest.raises(WrongOracle, match="left padding; give one prompt without padding"):
        oracle.generate(embeds, (padding, *ids), max_new_tokens=1)
    assert len(oracle.generate(embeds, ids, max_new_tokens=1)[0]) == len(ids) + 1
