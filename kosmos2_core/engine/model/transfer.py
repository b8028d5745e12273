"""Small things between host and device, without waiting for what the device has still to do."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def to_device(
    values: Sequence[int] | Sequence[Sequence[int]] | np.ndarray, device: torch.device
) -> Tensor:
    """int64 on the device. A copy from pinned memory waits for nothing."""
    tensor = torch.from_numpy(values) if isinstance(values, np.ndarray) else torch.tensor(values)
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


class AsyncCopy:
    """A tensor on its way to the host; whoever asks for its values waits for this one alone."""

    def __init__(self, tensor: Tensor) -> None:
        self._host, self._arrival = tensor, None
        if tensor.device.type == "cuda":
            self._host = torch.empty_like(tensor, device="cpu", pin_memory=True)
            self._host.copy_(tensor, non_blocking=True)
            self._arrival = torch.cuda.Event()
            self._arrival.record()

    def values(self) -> np.ndarray:
        if self._arrival is not None:
            self._arrival.synchronize()
        values: np.ndarray = self._host.numpy()
        return values
