"""Small things between host and device, without waiting for what the device has still to do."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from torch import Tensor


def to_device(
    values: Tensor | np.ndarray | Sequence[int] | Sequence[Sequence[int]], device: torch.device
) -> Tensor:
    """Values of the host on the device, integers as int64, without waiting for the device."""
    tensor = values if isinstance(values, Tensor) else torch.as_tensor(values)
    if device.type != "cuda" or tensor.device.type == "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def refill(to: Tensor, values: Tensor) -> None:
    """Copy a tensor of the host to one on a CUDA device, without waiting for the device."""
    to.copy_(values.pin_memory(), non_blocking=True)


def current_device(device: torch.device) -> AbstractContextManager[object]:
    """Make a CUDA device the current one in a block; others are never current."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


class AsyncCopy:
    """A tensor on its way to the host; whoever asks for its values waits for this one alone.

    `columns`: the first ones of the last dimension, if not all are wanted.
    """

    def __init__(self, tensor: Tensor, *, columns: int | None = None) -> None:
        self._host, self._arrival, self._columns = tensor, None, columns
        if tensor.device.type == "cuda":
            self._host = torch.empty_like(tensor, device="cpu", pin_memory=True)
            self._host.copy_(tensor, non_blocking=True)
            self._arrival = torch.cuda.Event()
            # not of the current device, which may be another one
            self._arrival.record(torch.cuda.current_stream(tensor.device))

    def values(self) -> np.ndarray:
        if self._arrival is not None:
            self._arrival.synchronize()
        values: np.ndarray = self._host.numpy()
        return values[..., : self._columns]
