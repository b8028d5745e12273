"""Torch's profiler, of operators on a CPU and of kernels on a GPU."""

from typing import Any

import torch
from torch.autograd.profiler import profile as profile_operators
from torch.profiler import ProfilerActivity
from torch.profiler import profile as profile_kernels


def profiled(device: torch.device) -> Any:
    """Return a context manager; its value has `key_averages()` and `events()` afterwards.

    On a CPU it is the profiler that does without Kineto, which writes to the standard error.
    """
    if device.type == "cuda":
        return profile_kernels(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA])
    return profile_operators(use_kineto=False)
