"""Find the layer in which the first number that is not finite appears."""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from kosmos2_core.engine.model.decoder import TextDecoder
from kosmos2_core.engine.model.vision import VisionEncoder


class NonFiniteDiagnosis:
    """Computes one failed sequence again, layer by layer.

    Only the first failure of an engine is examined: this costs a forward pass, and its reads wait
    for the device. The same checkpoint and dtype overflow in the same layer.
    """

    def __init__(self, vision: VisionEncoder, decoder: TextDecoder) -> None:
        self._vision = vision
        self._decoder = decoder
        self._is_done = False

    def layer_of(self, pixels: np.ndarray, ids: Sequence[int]) -> str | None:
        """Return the name of the first layer with NaN or infinity in its output.

        Args:
            pixels: uint8 [3, 224, 224], the image.
            ids: Prompt and answer so far.

        Returns:
            None if all is finite this time, for lack of memory, or after the first call.
        """
        if self._is_done:
            return None
        self._is_done = True
        try:
            images = None
            for name, images in self._vision.stages(torch.from_numpy(pixels[None])):
                if not images.isfinite().all():
                    return name
            return _first(self._decoder.stages(ids, images))
        except torch.OutOfMemoryError:
            return None


def _first(stages: Iterable[tuple[str, Tensor]]) -> str | None:
    return next((name for name, output in stages if not output.isfinite().all()), None)
