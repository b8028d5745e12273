"""What is held of a request's image until its prompts have slots."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from kosmos2_core.engine.model.decoder import Decoder
from kosmos2_core.engine.model.placement import Tokens
from kosmos2_core.engine.model.vision import VisionEncoder
from kosmos2_core.engine.requests import HEAD_LENGTH, PromptRules, Request


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """Embeddings [64, D].

    `head`: for several prompts or a follow-up, the keys and values of `<s> <image> ...
    </image>`, [layers, 2, heads, 67, D / H], which they share; None for a single prompt.
    """

    features: Tensor
    head: Tensor | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Viewer:
    """Looks at the images of some requests, all at once. Up to `batch` are read ahead."""

    vision: VisionEncoder
    decoder: Decoder
    rules: PromptRules
    batch: int

    def look(self, requests: Sequence[Request]) -> list[Picture]:
        if not requests:
            return []
        pixels = torch.from_numpy(np.stack([request.pixels for request in requests]))
        features = self.vision(pixels)  # [N, 64, D]
        forked = [i for i, r in enumerate(requests) if len(r.prompts) > 1 or r.follow_up]
        heads = dict(zip(forked, self._heads(features[forked]), strict=True))
        return [Picture(features=row, head=heads.get(i)) for i, row in enumerate(features)]

    def _heads(self, features: Tensor) -> list[Tensor]:
        if not (n := len(features)):
            return []
        cache = self.decoder.new_cache(n, HEAD_LENGTH)
        tokens = Tokens(first_slot=0, ids=[self.rules.head] * n, starts=[0] * n)
        self.decoder(cache, tokens, features)
        return [cache.head(slot, HEAD_LENGTH) for slot in range(n)]
