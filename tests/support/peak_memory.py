"""The most memory that an engine of the real model's size holds, counted without any memory.

Tensors are torch's fake ones: shapes and storages, no data.
"""

import weakref
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import Kosmos2Config, Kosmos2ForConditionalGeneration
from transformers.initialization import no_init_weights

from kosmos2_core.engine.engine import Engine
from kosmos2_core.engine.model import decoder as decoder_module
from kosmos2_core.engine.model import vision as vision_module
from kosmos2_core.engine.model.placement import TokenBatch
from kosmos2_core.engine.model.weights import WideLinear
from kosmos2_core.engine.requests import Request
from tests.support.engine_models import shapes


class PeakTracker(TorchDispatchMode):
    """Counts the bytes of all storages that are alive, and the most there were."""

    def __init__(self):
        super().__init__()
        self.bytes = self.peak = 0
        self._known = weakref.WeakSet()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(found):
            if isinstance(leaf, torch.Tensor) and leaf.device.type != "meta":
                self.note(leaf)
        return found

    def note(self, tensor):
        storage = tensor.untyped_storage()
        if storage in self._known:
            return
        self._known.add(storage)
        size = storage.nbytes()
        weakref.finalize(storage, self._freed, size)
        self.bytes += size
        self.peak = max(self.peak, self.bytes)

    def _freed(self, size):
        self.bytes -= size


@torch.inference_mode()
def peak_bytes(generation, *, dtype, length, prompts, vision_batch, prefilled):
    """The peak of an engine's construction, a vision batch, a prefill and a step of all slots.

    Each slot's image keeps its prefix if there are several prompts, as at worst. Weights are moved
    into the engine.
    """
    tracker = PeakTracker()
    with FakeTensorMode(allow_non_fake_inputs=True) as fakes, _as_on_cuda():
        checkpoint = replace(shapes(), model=_model(dtype), dtype=dtype)
    with fakes, _as_on_cuda(), tracker:
        for weight in checkpoint.model.parameters():
            tracker.note(weight)
        engine = Engine(
            checkpoint,
            generation,
            length=length,
            backend="plain",
            vision_batch=vision_batch,
            keep_model=False,
            reads_late=True,
        )
        _compute(engine, prompts, prefilled)
    return tracker.peak


def _model(dtype):
    torch.set_default_dtype(dtype)
    try:
        with no_init_weights():
            model = Kosmos2ForConditionalGeneration(Kosmos2Config())
    finally:
        torch.set_default_dtype(torch.float32)
    model.tie_weights()
    return model.eval()


@contextmanager
def _as_on_cuda():
    """Fake tensors say that they are on the CPU, and cannot be moved to the meta device."""

    def wide(module, backend):
        return WideLinear(module.weight.detach())

    def emptied(layers, *, keep):
        for layer in layers:
            yield layer
            for module in layer.modules():
                for name, weight in module._parameters.items():
                    module._parameters[name] = None if weight is None else _without_data(weight)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoder_module, "lm_head", wide)
        for module in (decoder_module, vision_module):
            patch.setattr(module, "detached", emptied)
        yield


def _without_data(weight):
    return torch.nn.Parameter(torch.empty(weight.shape, device="meta"), requires_grad=False)


def _compute(engine, prompts, prefilled):
    parts, memory = engine.components, engine._idle[0]
    image = np.zeros((3, 224, 224), np.uint8)
    batch = parts.image_encoder.batch
    held = []
    for _ in range(engine.slots if len(prompts) > 1 else batch, 0, -batch):
        requests = [Request(id=0, pixels=image, prompts=prompts)] * batch
        held += parts.image_encoder.encode(requests)
    features = torch.stack([each.features for each in held[:prefilled]])
    ids = [prompts[0].ids] * len(features)
    lengths = [len(prompts[0].ids)] * len(features)
    memory.begin(0, [prompts[0]] * len(features))
    logits = parts.decoder(memory.cache, TokenBatch(first_slot=0, ids=ids, start=0), features)
    parts.sampler(logits, memory.constraints, 0, lengths)
    del logits
    lengths = [memory.cache.length] * engine.slots
    starts = torch.tensor(lengths) - 1
    logits = parts.decoder.step(memory.cache, memory.tokens, starts, span=memory.cache.length)
    parts.sampler(logits, memory.constraints, 0, lengths)
