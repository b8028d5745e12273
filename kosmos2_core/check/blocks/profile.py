"""Where the time of some decode steps goes: kernels by category, and the share without any."""

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from kosmos2_core.check.blocks.steady import steady_completions
from kosmos2_core.check.budget import Deadline
from kosmos2_core.check.context import CheckContext
from kosmos2_core.check.profiling import profiled
from kosmos2_core.check.report import Figures
from kosmos2_core.generation import Generation

# Parts of the names of operators and kernels, in this order.
_CATEGORIES = {
    "attention": ("attention", "fmha", "flash", "softmax", "bmm"),
    "products": ("gemm", "addmm", "mm", "linear", "cutlass", "cublas", "conv", "nvjet"),
    "layer norms": ("norm",),
    "copies": ("copy", "memcpy", "memset", "index", "cat", "clone", "fill", "scatter", "gather"),
    "sampling": ("argmax", "topk", "logsumexp", "sort", "reduce", "max", "unfold"),
    "elementwise": ("elementwise", "add", "mul", "gelu", "sigmoid", "silu", "div", "where"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileFigures(Figures):
    """`shares` of the time by category; `idle_share`: no kernel on a GPU, Python on a CPU.

    The profiler's own cost is part of it. `kernels_per_step` counts operators on a CPU.
    """

    slots: int
    steps: int
    seconds: float
    shares: dict[str, float]
    idle_share: float
    kernels_per_step: float
    is_cuda: bool

    def lines(self) -> Iterator[str]:
        kinds = "kernels" if self.is_cuda else "operators"
        yield (
            f"{self.steps} decode steps with {self.slots} slots, prompts and images between them: "
            f"{1000 * self.seconds / self.steps:.1f} ms and {self.kernels_per_step:.0f} {kinds} "
            "per step, with the profiler's cost"
        )
        yield ", ".join(f"{name} {share:.0%}" for name, share in self.shares.items())
        idle = "the GPU has nothing to do" if self.is_cuda else "Python runs between operators"
        yield f"{idle} in {self.idle_share:.0%} of the time"


def check_profile(context: CheckContext, deadline: Deadline) -> ProfileFigures:
    """Profile decode steps of brief captions in the engine's steady state."""
    slots = context.extent.profile_slots
    work = context.workloads(context.main, images=2 * slots).brief
    engine = context.engine(context.main, Generation(slots=slots), length=work.longest)
    completions: Any = steady_completions(engine, work)
    with closing(completions):
        begun = engine.vitals.decode_steps
        with profiled(context.device) as seen:
            context.wait()
            started = time.perf_counter()
            while engine.vitals.decode_steps - begun < context.extent.cycles:
                next(completions)
            context.wait()
            seconds = time.perf_counter() - started
        steps = engine.vitals.decode_steps - begun
    spans = list(_spans(seen, is_cuda=context.is_cuda))
    sums = defaultdict[str, float](float)
    for name, start_us, end_us in spans:
        sums[_category(name)] += (end_us - start_us) / 1e6
    busy = _union_s(spans) if context.is_cuda else sum(sums.values())
    ordered = sorted(sums.items(), key=lambda item: -item[1])
    return ProfileFigures(
        slots=slots,
        steps=steps,
        seconds=seconds,
        shares={name: took / seconds for name, took in ordered},
        idle_share=max(1 - busy / seconds, 0.0),
        kernels_per_step=len(spans) / steps,
        is_cuda=context.is_cuda,
    )


def _spans(seen: Any, *, is_cuda: bool) -> Iterator[tuple[str, float, float]]:
    """Yield name, begin and end in microseconds; on a CPU each operator without those within it."""
    for event in seen.events():
        if is_cuda and event.device_type.name == "CUDA":
            yield event.name, event.time_range.start, event.time_range.end
        if not is_cuda and event.self_cpu_time_total > 0:
            begin = event.time_range.start
            yield event.name.removeprefix("aten::"), begin, begin + event.self_cpu_time_total


def _category(name: str) -> str:
    lower = name.lower()
    for category, parts in _CATEGORIES.items():
        if any(part in lower for part in parts):
            return category
    return "other"


def _union_s(spans: Iterable[tuple[str, float, float]]) -> float:
    """Return the seconds in which any kernel ran; streams overlap."""
    total, until = 0.0, float("-inf")
    for _, begin, end in sorted(spans, key=lambda span: span[1]):
        total += max(end - max(begin, until), 0.0)
        until = max(until, end)
    return total / 1e6
