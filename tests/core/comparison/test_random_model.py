"""The random model has the sizes of the published one where it is asked for them."""

import torch
from transformers import Kosmos2Config, Kosmos2ForConditionalGeneration

from kosmos2_core.comparison.random_model import FULL_SIZE, Proportions, random_checkpoint


def shapes_of(config):
    with torch.device("meta"):
        model = Kosmos2ForConditionalGeneration(config)
    return {name: tuple(weight.shape) for name, weight in model.named_parameters()}


def test_the_full_size_is_that_of_the_published_model():
    found = shapes_of(FULL_SIZE.config())
    assert found == shapes_of(Kosmos2Config())
    assert sum(torch.Size(shape).numel() for shape in found.values()) > 1.6e9


def test_weights_depend_on_the_seed_alone():
    tiny = Proportions(text_layers=1, text_width=48, vision_layers=1, vision_width=48, patch=28)
    one, same, other = (random_checkpoint(tiny, ngram_size=0, seed=n) for n in (1, 1, 2))
    weights = [each.model.text_model.model.embed_tokens.weight for each in (one, same, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_half_precision_has_the_same_weights_rounded():
    tiny = Proportions(text_layers=1, text_width=48, vision_layers=1, vision_width=48, patch=28)
    exact = random_checkpoint(tiny, ngram_size=0)
    half = random_checkpoint(tiny, ngram_size=0, dtype=torch.float16)
    assert half.dtype == half.model.dtype == torch.float16
    for one, other in zip(exact.model.parameters(), half.model.parameters(), strict=True):
        assert torch.equal(one.half(), other)
