"""The memory that the engine takes, against the estimate that a job makes of it."""

import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from kosmos2_core.check.budget import Deadline
from kosmos2_core.check.context import CheckContext
from kosmos2_core.check.report import Figures
from kosmos2_core.checkpoint.load import Checkpoint
from kosmos2_core.comparison.sides import engine_answers
from kosmos2_core.comparison.workload import Workload
from kosmos2_core.engine.capacity import RUNTIME_BYTES, MemoryNeeds, available_bytes, needs_of
from kosmos2_core.engine.engine import Engine
from kosmos2_core.generation import Generation

_GIB = 1 << 30
_TOO_LITTLE, _TOO_MUCH = 0.8, 1.3  # of the estimate / what was taken


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryFigures(Figures):
    """Bytes. `taken`: peak of the tensors; `estimated`: for the same, what a job plans with.

    `reserved`: what torch's allocator on CUDA held, `left`: what is free on the GPU then; 0 on a
    CPU. `estimated` has no share for torch itself on a CPU, where only tensors are counted.
    """

    slots: int
    weights: int
    taken: int
    estimated: int
    reserved: int
    left: int
    is_judged: bool

    @property
    def ratio(self) -> float:
        """Estimate / what was taken."""
        return self.estimated / self.taken

    @property
    def problems(self) -> tuple[str, ...]:
        if self.is_judged and self.ratio < _TOO_LITTLE:
            return (f"the estimate is {self.ratio:.2f} of what was taken: use fewer --slots",)
        return ()

    def lines(self) -> Iterator[str]:
        note = "" if self.is_judged else " (a small model, not judged)"
        if self.is_judged and self.ratio > _TOO_MUCH:
            note = "; more --slots fit than are taken by default"
        yield (
            f"{self.slots} slots: tensors take {self.taken / _GIB:.2f} GiB (weights "
            f"{self.weights / _GIB:.2f}), the estimate is {self.estimated / _GIB:.2f} GiB, "
            f"{self.ratio:.2f} of it{note}"
        )
        if self.reserved:
            yield f"torch holds {self.reserved / _GIB:.2f} GiB, {self.left / _GIB:.2f} are free"


def check_memory(context: CheckContext, deadline: Deadline) -> MemoryFigures:
    """Make an engine, answer two tasks about two images per slot, and read the peak."""
    most_slots = context.extent.memory_slots
    work = context.workloads(context.main, images=2 * most_slots).two_tasks
    needs = model_needs(context.main, length=work.longest)
    slots = min(most_slots, max(needs.most_slots(available_bytes(context.device)), 1))
    measure = _on_cuda if context.is_cuda else _on_cpu
    taken, reserved, left = measure(context, work, slots)
    return MemoryFigures(
        slots=slots,
        weights=needs.weights,
        taken=taken,
        estimated=needs.total(slots) - (0 if context.is_cuda else RUNTIME_BYTES),
        reserved=reserved,
        left=left,
        is_judged=context.is_cuda,
    )


def model_needs(checkpoint: Checkpoint, *, length: int) -> MemoryNeeds:
    """Return the estimate for a model that is loaded and stays usable beside its engine."""
    config = checkpoint.model.config
    return needs_of(
        checkpoint.provenance.id,
        config.text_config,
        config.vision_config,
        parameters=sum(weight.numel() for weight in checkpoint.model.parameters()),
        dtype=checkpoint.dtype,
        length=length,
        vision_batch=8,
        copies=2,
        are_images_shared=True,
    )


def _on_cuda(context: CheckContext, work: Workload, slots: int) -> tuple[int, int, int]:
    """Return the peak of the model and its engine, what torch held, and what was free."""
    device = context.device
    context.free()
    others = torch.cuda.memory_allocated(device) - _bytes_of(context.main)
    torch.cuda.reset_peak_memory_stats(device)
    engine = context.engine(context.main, Generation(slots=slots), length=work.longest)
    engine_answers(engine, work)
    context.wait()
    free, _ = torch.cuda.mem_get_info(device)
    return (
        torch.cuda.max_memory_allocated(device) - others,
        torch.cuda.max_memory_reserved(device),
        free,
    )


def _on_cpu(context: CheckContext, work: Workload, slots: int) -> tuple[int, int, int]:
    """Return the peak of all tensors; weights that are packed for oneDNN cannot be counted."""
    tracker = _TensorTracker()
    with tracker:
        for weight in context.main.model.parameters():
            tracker.note(weight)
        engine: Engine = context.engine(
            context.main, Generation(slots=slots), length=work.longest, backend="plain"
        )
        engine_answers(engine, work)
    return tracker.peak, 0, 0


def _bytes_of(checkpoint: Checkpoint) -> int:
    return sum(weight.numel() * weight.itemsize for weight in checkpoint.model.parameters())


class _TensorTracker(TorchDispatchMode):
    """Counts the bytes of the storages that live and that operators made."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = self.peak = 0
        self._known = weakref.WeakSet[Any]()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(found):
            if isinstance(leaf, Tensor):
                self.note(leaf)
        return found

    def note(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage not in self._known:
            self._known.add(storage)
            self.live += storage.nbytes()
            self.peak = max(self.peak, self.live)
            weakref.finalize(storage, self._freed, storage.nbytes())

    def _freed(self, size: int) -> None:
        self.live -= size
