"""The attention kernels that torch picks for the shapes of the engine, and what new shapes cost."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from kosmos2_core.check.budget import Deadline
from kosmos2_core.check.context import CheckContext
from kosmos2_core.check.profiling import profiled
from kosmos2_core.check.report import Figures
from kosmos2_core.engine.model.kv_cache import BUCKET, bucketed
from kosmos2_core.engine.model.placement import TokenBatch
from kosmos2_core.engine.requests import PREFIX_LENGTH
from kosmos2_core.generation import Generation

_NEW_SHAPES = 10
_ROWS = 8
_PROMPT = 72
_STALL = 5.0  # times the second call; the first one of a shape may choose a kernel


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionKernels:
    """Names of the operators and kernels that attention ran in one phase."""

    phase: str
    kernels: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionFigures(Figures):
    """`new_ms`, `known_ms`: a decode step of ten new spans, and of the same again; medians."""

    phases: tuple[AttentionKernels, ...]
    new_ms: float
    known_ms: float

    def lines(self) -> Iterator[str]:
        for each in self.phases:
            yield f"{each.phase}: {', '.join(each.kernels) or 'products of matrices'}"
        slow = ", so new lengths make the engine wait" if self._is_stalling else ""
        yield (
            f"a decode step with a new length: {self.new_ms:.2f} ms, with a known one: "
            f"{self.known_ms:.2f} ms{slow}"
        )

    @property
    def _is_stalling(self) -> bool:
        return self.new_ms > _STALL * self.known_ms


@torch.inference_mode()
def check_attention(context: CheckContext, deadline: Deadline) -> AttentionFigures:
    """Name the kernels of vision tower, prompt and decode step, and time steps of new lengths."""
    engine = context.engine(context.main, Generation(slots=_ROWS), length=_PROMPT)
    encoder, decoder = engine.components.image_encoder, engine.components.decoder
    pixels = torch.from_numpy(context.scenes(_ROWS))
    images = encoder.vision(pixels)
    cache = decoder.new_cache(_ROWS, _PROMPT + BUCKET * (_NEW_SHAPES + 2))
    ids = [[*engine.components.rules.prefix, *[5] * (_PROMPT - PREFIX_LENGTH)]] * _ROWS
    batch = TokenBatch(first_slot=0, ids=ids, start=0)
    tokens = torch.full((_ROWS,), 5, device=context.device)

    def step(start: int) -> None:
        starts = torch.full((_ROWS,), start, device=context.device)
        decoder.step(cache, tokens, starts, span=bucketed(start + 1))

    phases = {
        "vision tower": lambda: encoder.vision(pixels),
        "prompt": lambda: decoder(cache, batch, images),
        "decode step": lambda: step(_PROMPT),
    }
    kernels = [
        AttentionKernels(phase=name, kernels=_attention_kernels(context, run))
        for name, run in phases.items()
    ]
    starts = [_PROMPT + BUCKET * number for number in range(1, _NEW_SHAPES + 1)]
    new, known = (_times(context, step, starts) for _ in range(2))
    return AttentionFigures(phases=tuple(kernels), new_ms=_median(new), known_ms=_median(known))


def _attention_kernels(context: CheckContext, run: Callable[[], object]) -> tuple[str, ...]:
    run()
    context.wait()
    with profiled(context.device) as seen:
        run()
        context.wait()
    names = {event.key.removeprefix("aten::") for event in seen.key_averages()}
    # The operator that was called only asks for the one that computes.
    return tuple(sorted(name for name in names if _is_attention(name)))


def _is_attention(name: str) -> bool:
    words = ("attention", "fmha", "flash", "sdpa")
    return name != "scaled_dot_product_attention" and any(w in name.lower() for w in words)


def _times(
    context: CheckContext, step: Callable[[int], None], starts: Sequence[int]
) -> list[float]:
    took = []
    for start in starts:
        context.wait()
        begun = time.perf_counter()
        step(start)
        context.wait()
        took.append(1000 * (time.perf_counter() - begun))
    return took


def _median(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]
