"""Linear layers over Hugging Face's weights: fused, and on the CPU packed for oneDNN.

`torch.nn.functional.linear` packs the weight again on every call, which for the few rows of a
decode step costs more than the product itself. A packed weight is a second copy in memory.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, layer_norm, linear

Backend = Literal["plain", "onednn"]
Layer = Callable[[Tensor], Tensor]

# Name, scalars and variant of what oneDNN computes with a product.
_FUSED: dict[str | None, tuple[str, list[float], str]] = {
    None: ("none", [], ""),
    "gelu": ("gelu", [], "none"),  # the exact one
    "silu": ("swish", [], ""),
}

# Those of the published model.
_ACTIVATIONS: dict[str, Layer] = {
    "gelu": gelu,
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
}

# Rows for which the packed layout is chosen; a decode step has about as many as slots.
_PACKED_ROWS = 16


def best_backend(device: torch.device, dtype: torch.dtype) -> Backend:
    return "onednn" if device.type == "cpu" and can_pack(dtype) else "plain"


@cache
def can_pack(dtype: torch.dtype) -> bool:
    """Return whether torch and the processor have the private operators that packing needs."""
    try:
        layer = PackedLinear(torch.eye(16, dtype=dtype), None, "gelu")
        layer(torch.ones(2, 16, dtype=dtype))
    except (AttributeError, RuntimeError):
        return False
    return True


def fused(modules: Sequence[nn.Linear], backend: Backend, activation: str | None = None) -> Layer:
    """[..., in] -> [..., sum of out]: the modules' outputs side by side, then the activation."""
    weight = _joined([module.weight for module in modules])
    biases = [module.bias for module in modules if module.bias is not None]
    bias = _joined(biases) if biases else None
    return linear_layer(weight, bias, backend, activation)


def linear_layer(
    weight: Tensor, bias: Tensor | None, backend: Backend, activation: str | None = None
) -> Layer:
    """weight [out, in], bias [out]."""
    kind = PackedLinear if backend == "onednn" else PlainLinear
    return kind(weight, bias, activation)


def lm_head(module: nn.Linear, backend: Backend) -> Layer:
    """The last layer, without a bias. On CUDA its outputs are float32 whatever its weights are: in
    half precision the best two of them are often equal."""
    weight = module.weight.detach()
    is_half = weight.dtype != torch.float32
    return WideLinear(weight) if weight.is_cuda and is_half else fused([module], backend)


def perceptron(first: nn.Linear, second: nn.Linear, backend: Backend, activation: str) -> Layer:
    """[..., in] -> [..., out]: two layers and the activation between them."""
    if activation == "quick_gelu" and backend == "onednn" and first.weight.dtype == torch.float32:
        return _packed_quick_gelu(first, second)
    before, after = fused([first], backend, activation), fused([second], backend)
    return lambda x: after(before(x))


def _packed_quick_gelu(first: nn.Linear, second: nn.Linear) -> Layer:
    """x sigmoid(c x) = silu(c x) / c, and silu is computed with the product; c goes into the
    weights, which only float32 takes without loss."""
    c = 1.702
    before = PackedLinear(c * first.weight.detach(), c * first.bias.detach(), "silu")
    after = PackedLinear(second.weight.detach() / c, second.bias.detach(), None)
    return lambda x: after(before(x))


def detached(layers: Iterable[nn.Module], *, keep: bool) -> Iterator[nn.Module]:
    """Each layer in turn. Unless kept, its weights leave the model once the next is asked for:
    fused and packed copies never double all of them, and what is shared lives on."""
    for layer in layers:
        yield layer
        if not keep:
            layer.to("meta")


def _joined(parts: Sequence[Tensor]) -> Tensor:
    """A single part stays the model's own tensor."""
    return parts[0].detach() if len(parts) == 1 else torch.cat([part.detach() for part in parts])


class PlainLinear:
    def __init__(self, weight: Tensor, bias: Tensor | None, activation: str | None) -> None:
        self._weight, self._bias = weight, bias
        self._activation: Layer | None = _activation(activation)

    def __call__(self, x: Tensor) -> Tensor:
        y = linear(x, self._weight, self._bias)
        return y if self._activation is None else self._activation(y)


class WideLinear:
    """Products of half precision, summed and left in float32; torch has them on CUDA alone."""

    def __init__(self, weight: Tensor) -> None:
        self._weight = weight.t()

    def __call__(self, x: Tensor) -> Tensor:
        rows = torch.mm(x.flatten(0, -2), self._weight, out_dtype=torch.float32)
        return rows.view(*x.shape[:-1], -1)


class PackedLinear:
    """Raises AttributeError or RuntimeError where the private operators do not exist."""

    def __init__(self, weight: Tensor, bias: Tensor | None, activation: str | None) -> None:
        ops = torch.ops.mkldnn
        self._weight = ops._reorder_linear_weight(weight.contiguous(), _PACKED_ROWS)
        self._bias = bias
        self._fused = _FUSED.get(activation, _FUSED[None])
        self._activation = None if activation in _FUSED else _activation(activation)
        self._product = ops._linear_pointwise.default

    def __call__(self, x: Tensor) -> Tensor:
        y: Tensor = self._product(x, self._weight, self._bias, *self._fused)
        return y if self._activation is None else self._activation(y)


def _activation(name: str | None) -> Layer | None:
    if name is None:
        return None
    if name in _ACTIVATIONS:
        return _ACTIVATIONS[name]
    from transformers.activations import ACT2FN  # its import takes longer than torch's

    other: Layer = ACT2FN[name]
    return other


class LayerNorm:
    def __init__(self, module: nn.LayerNorm) -> None:
        assert module.weight is not None
        self._shape, self._eps = tuple(module.normalized_shape), module.eps
        self._weight, self._bias = module.weight.detach(), module.bias.detach()

    def __call__(self, x: Tensor) -> Tensor:
        return layer_norm(x, self._shape, self._weight, self._bias, self._eps)
