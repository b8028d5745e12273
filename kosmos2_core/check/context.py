"""The context of the blocks: the device, the models, scenes, and a line of progress."""

import gc
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cache, cached_property

import numpy as np
import torch
from PIL import Image

from kosmos2_core.check.extent import Extent
from kosmos2_core.checkpoint.files import CheckpointFiles
from kosmos2_core.checkpoint.load import Checkpoint, device_named, dtypes_for, load_checkpoint
from kosmos2_core.comparison.oracle import Oracle, mend_resampler
from kosmos2_core.comparison.random_model import random_checkpoint
from kosmos2_core.comparison.reference import with_reference_model
from kosmos2_core.comparison.workload import Workloads, workloads
from kosmos2_core.engine.engine import Engine
from kosmos2_core.engine.model.numerics import set_cuda_numerics
from kosmos2_core.engine.model.weights import Backend
from kosmos2_core.generation import Generation
from kosmos2_core.images.decode import square_pixels
from kosmos2_core.shapes.world.scenes import make_scene

RANDOM = "random"
_SEED = 17  # of the scenes


def name_of(model: str | CheckpointFiles) -> str:
    """Return the name of a model for the report."""
    return model if isinstance(model, str) else model.id


@dataclass(frozen=True)
class CheckContext:
    """The device and the models of a check.

    `model` is `random`, or what `load_checkpoint` takes. `show` gets lines of progress.
    """

    model: str | CheckpointFiles
    device: torch.device
    extent: Extent
    show: Callable[[str], None]

    @classmethod
    def on(
        cls,
        device: str,
        *,
        model: str | CheckpointFiles,
        extent: Extent,
        show: Callable[[str], None],
    ) -> "CheckContext":
        """Resolve the device, and load the model. Raises CheckpointError."""
        context = cls(model, device_named(device), extent, show)
        set_cuda_numerics(context.device)
        _ = context.main
        return context

    @property
    def is_cuda(self) -> bool:
        return self.device.type == "cuda"

    @cached_property
    def main(self) -> Checkpoint:
        """The model whose memory and pace are measured, in the dtype that a job would take."""
        if self.model != RANDOM:
            return with_reference_model(load_checkpoint(self.model, device=str(self.device)))
        return random_checkpoint(
            self.extent.main_model,
            ngram_size=0,
            device=str(self.device),
            dtype=dtypes_for("auto", self.device)[0],
        )

    @cached_property
    def shapes(self) -> Checkpoint:
        """The trained checkpoint that is embedded, in float32."""
        checkpoint = load_checkpoint("shapes", device=str(self.device), dtype="float32")
        return with_reference_model(checkpoint)

    @cached_property
    def small(self) -> Checkpoint:
        """A random model in float32."""
        return random_checkpoint(
            self.extent.small_model, ngram_size=0, seed=1, device=str(self.device)
        )

    def scenes(self, count: int) -> np.ndarray:
        """Return drawn scenes, uint8 [count, 3, 224, 224]."""
        return _scenes(count)

    def workloads(self, checkpoint: Checkpoint, *, images: int) -> Workloads:
        """Return works whose answers are as long as the extent says."""
        return workloads(
            checkpoint, images=images, brief=self.extent.brief, detailed=self.extent.detailed
        )

    def oracle(self, checkpoint: Checkpoint) -> Oracle:
        """Return Hugging Face's model of a checkpoint, its resampler mended. Raises WrongOracle."""
        mend_resampler(checkpoint.model)
        return Oracle(checkpoint)

    def engine(
        self,
        checkpoint: Checkpoint,
        generation: Generation,
        *,
        length: int,
        reads_late: bool | None = None,
        backend: Backend | None = None,
    ) -> Engine:
        """Return an engine that leaves the checkpoint's model as it is."""
        return Engine(checkpoint, generation, length=length, reads_late=reads_late, backend=backend)

    def wait(self) -> None:
        """Wait until the device has done all that it was given."""
        if self.is_cuda:
            torch.cuda.synchronize(self.device)

    def free(self) -> None:
        """Give memory back that no tensor needs; engines may hold themselves in a cycle."""
        gc.collect()
        if self.is_cuda:
            torch.cuda.empty_cache()


def with_dtype(checkpoint: Checkpoint, dtype: torch.dtype) -> Checkpoint:
    """Return a copy of a checkpoint with other weights."""
    return replace(checkpoint, model=deepcopy(checkpoint.model).to(dtype), dtype=dtype)


@cache
def _scenes(count: int) -> np.ndarray:
    scenes = (make_scene(_SEED, index, width=224, height=224) for index in range(count))
    return np.stack([square_pixels(Image.fromarray(scene.pixels)) for scene in scenes])
