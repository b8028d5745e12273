"""Torch's profiler, of operators on a CPU and of kernels on a GPU."""

import os
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

_QUIET = "99"  # or Kineto writes a line to the standard error at each start and end


def profiled(device: torch.device) -> Any:
    """Return a context manager; its value has `key_averages()` and `events()` afterwards."""
    os.environ.setdefault("KINETO_LOG_LEVEL", _QUIET)
    kinds = [ProfilerActivity.CPU]
    if device.type == "cuda":
        kinds.append(ProfilerActivity.CUDA)
    return profile(activities=kinds)
