"""Image embeddings of requests, and the keys and values of the prefix that prompts share."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from kosmos2_core.engine.model.decoder import TextDecoder
from kosmos2_core.engine.model.kv_cache import KVCache
from kosmos2_core.engine.model.placement import TokenBatch
from kosmos2_core.engine.model.vision import EncodesImages
from kosmos2_core.engine.requests import PREFIX_LENGTH, PromptRules, Request
from kosmos2_core.grounding.grid import IMAGE_SIZE
from kosmos2_core.quick_init import quick_init


@quick_init
@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedImage:
    """Embeddings [64, D].

    `prefix`: for several prompts or a follow-up, the keys and values of `<s> <image> ...
    </image>`, [layers, 2, heads, 67, D / H], which they share; None for a single prompt.
    """

    features: Tensor
    prefix: Tensor | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageEncoder:
    """Encodes the images of some requests, all at once. Up to `batch` are read ahead.

    `scratch` has `batch` slots, in which prefixes are computed. Images that are not neighbours are
    gathered in memory that is used again: new memory costs more than the copy.
    """

    vision: EncodesImages
    decoder: TextDecoder
    rules: PromptRules
    batch: int
    scratch: KVCache
    _gathered: np.ndarray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        shape = (self.batch, 3, IMAGE_SIZE, IMAGE_SIZE)
        object.__setattr__(self, "_gathered", np.empty(shape, np.uint8))

    def encode(self, requests: Sequence[Request]) -> list[EncodedImage]:
        if not requests:
            return []
        pixels = self._together([request.pixels for request in requests])
        features = self.vision(torch.from_numpy(pixels))  # [N, 64, D]
        forked = [i for i, r in enumerate(requests) if len(r.prompts) > 1 or r.follow_up]
        prefixes = dict(zip(forked, self._prefixes([features[i] for i in forked]), strict=True))
        return [
            EncodedImage(features=row, prefix=prefixes.get(i)) for i, row in enumerate(features)
        ]

    def _together(self, images: Sequence[np.ndarray]) -> np.ndarray:
        if (neighbours := as_one_array(images)) is not None:
            return neighbours
        return np.stack(images, out=self._gathered[: len(images)])

    def _prefixes(self, features: Sequence[Tensor]) -> list[Tensor]:
        if not (n := len(features)):
            return []
        batch = TokenBatch(first_slot=0, ids=[self.rules.prefix] * n, start=0)
        self.decoder(self.scratch, batch, torch.stack(list(features)))
        return [self.scratch.prefix(slot, PREFIX_LENGTH) for slot in range(n)]


def as_one_array(images: Sequence[np.ndarray]) -> np.ndarray | None:
    """Return uint8 images of one shape that lie side by side in memory as one array, uncopied.

    Images of a table do. None for others. The array counts as writable even where the images do
    not, as those of Arrow and Ray: torch warns otherwise. Nothing may write to it.
    """
    first, size = images[0].__array_interface__["data"][0], images[0].nbytes
    for number, image in enumerate(images):
        address = image.__array_interface__["data"][0]
        if address != first + number * size or not image.flags.c_contiguous:
            return None
    return np.asarray(_Neighbours(images, first))


class _Neighbours:
    """The memory of `images` from an address on, which lives as long as this."""

    def __init__(self, images: Sequence[np.ndarray], address: int) -> None:
        self._images = images
        self.__array_interface__ = {
            "version": 3,
            "typestr": images[0].dtype.str,
            "shape": (len(images), *images[0].shape),
            "data": (address, False),  # it is not read-only
        }
