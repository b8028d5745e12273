"""The first logits that are not finite name the layer that they come from."""

import copy
from dataclasses import replace

import pytest
import torch

from kosmos2_core.errors import NonFiniteLogits
from tests.support.engine_models import answers, engine_of, pixels, prompt_of, requests_of, shapes


def said(checkpoint, count=3):
    """The errors of `count` images, in the order of their requests."""
    engine = engine_of(checkpoint, backend="plain", slots=1)
    found = answers(engine, requests_of(pixels(64)[:count], prompt_of(shapes)))
    errors = [found[number, 0].error for number in range(count)]
    assert all(isinstance(error, NonFiniteLogits) for error in errors)
    return [str(error) for error in errors]


@pytest.mark.parametrize(
    ("find", "name"),
    [
        (lambda m: m.vision_model.model.encoder.layers[2].mlp.fc1, "layer 3 of 6 of the vision"),
        (lambda m: m.image_to_text_projection.dense, "the resampler"),
        (lambda m: m.text_model.model.layers[1].ffn.fc2, "layer 2 of 4 of the text model"),
        (lambda m: m.text_model.model.layer_norm, "the head of the text model"),
    ],
    ids=["vision", "resampler", "text", "head"],
)
def test_the_first_failure_names_the_layer(find, name):
    broken = replace(shapes(), model=copy.deepcopy(shapes().model))
    with torch.no_grad():
        find(broken.model).bias.fill_(torch.inf)
    first, *others = said(broken)
    assert f"not finite (first in {name}" in first
    remedy = "; try --dtype float32, and `kosmos2 check`"
    assert first.endswith(remedy)
    assert others == [f"the model's probabilities are not finite{remedy}"] * 2
