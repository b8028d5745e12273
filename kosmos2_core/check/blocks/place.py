"""The machine: versions, processor, memory, GPU."""

import os
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from kosmos2_core.check.budget import Deadline
from kosmos2_core.check.context import CheckContext
from kosmos2_core.check.report import Figures
from kosmos2_core.comparison.machine import machine, processor, versions
from kosmos2_core.engine.capacity import available_bytes

PACKAGES = ("torch", "transformers", "numpy", "tokenizers", "safetensors")


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuDescription:
    """`memory_bytes`: all of it; `capability` such as "9.0"; `cudnn` is 0 where there is none."""

    name: str
    memory_bytes: int
    capability: str
    cuda: str
    cudnn: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceFigures(Figures):
    """`free_bytes`: memory of the device that is free for the model."""

    machine: str
    processor: str
    cpus: int
    threads: int
    free_bytes: int
    versions: dict[str, str]
    gpu: GpuDescription | None

    def lines(self) -> Iterator[str]:
        yield f"{self.processor}, {self.cpus} CPUs, torch uses {self.threads} threads"
        if self.gpu:
            yield (
                f"{self.gpu.name} (capability {self.gpu.capability}), "
                f"{self.gpu.memory_bytes / 2**30:.0f} GiB, CUDA {self.gpu.cuda}, "
                f"cuDNN {self.gpu.cudnn}"
            )
        yield f"{self.free_bytes / 2**30:.1f} GiB of memory are free"
        yield ", ".join(f"{name} {number}" for name, number in self.versions.items())


def check_place(context: CheckContext, deadline: Deadline) -> PlaceFigures:
    """Describe the machine."""
    return PlaceFigures(
        machine=machine(),
        processor=processor(),
        cpus=os.cpu_count() or 1,
        threads=torch.get_num_threads(),
        free_bytes=available_bytes(context.device),
        versions=versions(*PACKAGES),
        gpu=_gpu(context.device) if context.is_cuda else None,
    )


def _gpu(device: torch.device) -> GpuDescription:
    properties = torch.cuda.get_device_properties(device)
    return GpuDescription(
        name=properties.name,
        memory_bytes=properties.total_memory,
        capability=f"{properties.major}.{properties.minor}",
        cuda=str(torch.version.cuda),
        cudnn=torch.backends.cudnn.version() or 0,
    )
