"""Both backends compute what the model's own layers compute."""

import pytest
import torch
from torch import nn
from torch.nn.functional import gelu
from transformers.activations import quick_gelu

from kosmos2_core.engine.model import weights
from kosmos2_core.engine.model.weights import (
    LayerNorm,
    WideLinear,
    best_backend,
    can_pack,
    fused,
    perceptron,
)

CPU = torch.device("cpu")


@pytest.fixture
def modules():
    torch.manual_seed(0)
    return [nn.Linear(96, 64) for _ in range(3)]


@pytest.mark.parametrize("backend", ["plain", "onednn"])
@pytest.mark.parametrize(
    ("name", "function"), [(None, lambda y: y), ("gelu", gelu), ("quick_gelu", quick_gelu)]
)
@pytest.mark.parametrize("shape", [(1, 1, 96), (16, 1, 96), (3, 71, 96)], ids=str)
def test_a_fused_layer_gives_the_outputs_side_by_side(modules, backend, name, function, shape):
    x = torch.randn(shape)
    with torch.inference_mode():
        expected = function(torch.cat([module(x) for module in modules], dim=-1))
        found = fused(modules, backend, name)(x)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("backend", ["plain", "onednn"])
@pytest.mark.parametrize(("name", "function"), [("gelu", gelu), ("quick_gelu", quick_gelu)])
def test_a_perceptron_is_two_layers_and_the_activation_between(backend, name, function):
    torch.manual_seed(0)
    first, second = nn.Linear(96, 64), nn.Linear(64, 32)
    x = 5 * torch.randn(7, 96)
    with torch.inference_mode():
        expected = second(function(first(x)))
        found = perceptron(first, second, backend, name)(x)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("backend", ["plain", "onednn"])
def test_a_layer_may_have_no_bias(backend):
    module = nn.Linear(96, 64, bias=False)
    x = torch.randn(4, 96)
    with torch.inference_mode():
        torch.testing.assert_close(fused([module], backend)(x), module(x), atol=1e-5, rtol=0)


def test_a_single_plain_layer_copies_no_weight():
    module = nn.Linear(96, 64)
    assert fused([module], "plain")._weight.data_ptr() == module.weight.data_ptr()


def test_the_best_backend_is_onednn_on_the_cpu_and_plain_elsewhere():
    assert best_backend(CPU, torch.float32) == "onednn"
    assert best_backend(torch.device("cuda"), torch.float32) == "plain"


@pytest.mark.parametrize("error", [AttributeError, RuntimeError])
def test_the_best_backend_is_plain_where_packing_does_not_work(monkeypatch, error):
    def missing(*args):
        raise error

    monkeypatch.setattr(weights, "PackedLinear", missing)
    can_pack.cache_clear()
    try:
        assert best_backend(CPU, torch.float32) == "plain"
    finally:
        can_pack.cache_clear()


def test_a_layer_norm_is_that_of_the_module():
    module = nn.LayerNorm(96, eps=1e-3)
    nn.init.normal_(module.weight)
    nn.init.normal_(module.bias)
    x = torch.randn(2, 5, 96)
    with torch.inference_mode():
        assert torch.equal(LayerNorm(module)(x), module(x))


def test_a_wide_layer_leaves_half_precision_as_float32():
    """Shapes and types alone: the product exists on CUDA only."""
    weight = torch.empty(96, 64, dtype=torch.float16, device="meta")
    found = WideLinear(weight)(torch.empty(3, 1, 64, dtype=torch.float16, device="meta"))
    assert (found.dtype, found.shape) == (torch.float32, (3, 1, 96))
