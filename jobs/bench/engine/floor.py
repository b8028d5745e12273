"""Time of the matrix products alone, packed, with every slot in use all the time."""

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from jobs.bench.machine import cpu_s
from kosmos2_core.comparison.random_model import LATENTS, Proportions
from kosmos2_core.comparison.workload import Workload
from kosmos2_core.engine.model.weights import Layer, best_backend, linear_layer
from kosmos2_core.engine.requests import PREFIX_LENGTH

_IMAGES = 8  # whose products are made at once, where nothing forces fewer rows
_ROUNDS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """[rows, inputs] x [inputs, outputs], `layers` times, each with a weight of its own."""

    rows: int
    inputs: int
    outputs: int
    layers: int = 1


class Floor:
    """The floor of a model. Each part is measured when it is first needed."""

    def __init__(self, proportions: Proportions, slots: int) -> None:
        self._proportions = proportions
        self._slots = slots
        self._measured: dict[tuple[Product, ...], float] = {}

    def seconds(self, work: Workload) -> float:
        """Return the CPU time for all images and answers of `work`."""
        size, images = self._proportions, len(work.pixels)
        seen = self._of(image_products(size)) * images / _IMAGES
        read = sum(
            self._of(prompt_products(size, rows=rows)) * images / _IMAGES
            for rows in _prompt_rows(work)
        )
        # The first token of an answer is the prompt's work.
        steps = sum(sum(q.lengths) - images for q in work.questions) / self._slots
        return seen + read + self._of(step_products(size, slots=self._slots)) * steps

    def _of(self, products: Iterator[Product]) -> float:
        key = tuple(products)
        if key not in self._measured:
            self._measured[key] = _seconds(key)
        return self._measured[key]


def _prompt_rows(work: Workload) -> list[int]:
    """Return the tokens of an image's prompts. A prefix that several share counts once."""
    lengths = [len(question.ids) for question in work.questions]
    if len(lengths) == 1:
        return lengths
    return [PREFIX_LENGTH, *(length - PREFIX_LENGTH for length in lengths)]


def image_products(size: Proportions) -> Iterator[Product]:
    width, rows = size.vision_width, _IMAGES * size.patches
    yield from _block(width, rows, size.vision_layers)
    keys = rows + _IMAGES * LATENTS
    yield Product(rows=rows, inputs=width, outputs=size.text_width)
    yield Product(rows=keys, inputs=size.text_width, outputs=2 * size.text_width)
    yield Product(rows=_IMAGES * LATENTS, inputs=size.text_width, outputs=size.text_width)


def prompt_products(size: Proportions, *, rows: int) -> Iterator[Product]:
    """Yield the products of a prompt. Its last block computes the last token, and all keys."""
    yield from _block(size.text_width, _IMAGES * rows, size.text_layers - 1)
    yield Product(rows=_IMAGES * rows, inputs=size.text_width, outputs=3 * size.text_width)
    yield from _block_after_qkv(size.text_width, _IMAGES, 1)
    yield Product(rows=_IMAGES, inputs=size.text_width, outputs=size.vocabulary)


def step_products(size: Proportions, *, slots: int) -> Iterator[Product]:
    yield from _block(size.text_width, slots, size.text_layers)
    yield Product(rows=slots, inputs=size.text_width, outputs=size.vocabulary)


def _block(width: int, rows: int, layers: int) -> Iterator[Product]:
    yield Product(rows=rows, inputs=width, outputs=3 * width, layers=layers)
    yield from _block_after_qkv(width, rows, layers)


def _block_after_qkv(width: int, rows: int, layers: int) -> Iterator[Product]:
    yield Product(rows=rows, inputs=width, outputs=width, layers=layers)
    yield Product(rows=rows, inputs=width, outputs=4 * width, layers=layers)
    yield Product(rows=rows, inputs=4 * width, outputs=width, layers=layers)


@torch.inference_mode()
def _seconds(products: Sequence[Product]) -> float:
    """Return the CPU time of all products once, as a median.

    Each layer has its own weight, as in the model: the processor's cache cannot hold them all.
    """
    calls = [call for product in products for call in _calls(product)]

    def once() -> None:
        for layer, x in calls:
            layer(x)

    once()
    return statistics.median(cpu_s(once) for _ in range(_ROUNDS))


def _calls(product: Product) -> Sequence[tuple[Layer, torch.Tensor]]:
    x = torch.randn(product.rows, product.inputs)
    backend = best_backend(x.device, x.dtype)
    weights = [torch.randn(product.outputs, product.inputs) for _ in range(product.layers)]
    bias = torch.zeros(product.outputs)
    return [(linear_layer(weight, bias, backend), x) for weight in weights]
