"""The engine's log-probabilities of given answers, token by token through the cache."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from kosmos2_core.checkpoint.load import Checkpoint
from kosmos2_core.engine.model.decoder import TextDecoder
from kosmos2_core.engine.model.kv_cache import bucketed
from kosmos2_core.engine.model.placement import TokenBatch
from kosmos2_core.engine.model.vision import VisionEncoder
from kosmos2_core.engine.model.weights import Backend


@torch.inference_mode()
def forced_logprobs(
    checkpoint: Checkpoint,
    backend: Backend,
    pixels: np.ndarray,
    prompt: Sequence[int],
    answers: Sequence[Sequence[int]],
) -> Tensor:
    """float32 [N, T, V] when the engine is made to give `answers`, N of T tokens each."""
    n, device = len(answers), checkpoint.device
    decoder = TextDecoder(checkpoint, backend)
    images = VisionEncoder(checkpoint, backend)(torch.from_numpy(pixels))
    cache = decoder.new_cache(n, len(prompt) + len(answers[0]))
    found = [decoder(cache, TokenBatch(first_slot=0, ids=[prompt] * n, start=0), images)]
    columns = torch.tensor(answers, device=device).t()[:-1]  # what follows the last counts no more
    for start, column in enumerate(columns, len(prompt)):
        starts = torch.full((n,), start, device=device)
        found.append(decoder.step(cache, column, starts, span=bucketed(start + 1)))
    return torch.stack(found, dim=1).float().log_softmax(-1)
