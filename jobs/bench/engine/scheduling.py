"""Share of the engine's time that is neither the model nor the choice of tokens."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from jobs.bench.machine import cpu_s
from kosmos2_core.comparison.sides import requests_of
from kosmos2_core.comparison.workload import Workload
from kosmos2_core.engine.engine import Engine
from kosmos2_core.engine.loop import BatchingLoop


def scheduler_share(engine: Engine, work: Workload) -> float:
    """Return the share of CPU time for requests, slots, sequences and answers."""
    components, encoder = engine.components, engine.components.image_encoder
    vision, decoder, step, sampler = (
        _Timed(part)
        for part in (encoder.vision, components.decoder, components.step, components.sampler)
    )
    timed: Any = replace(
        components,
        image_encoder=replace(encoder, vision=vision, decoder=decoder),  # type: ignore[arg-type]
        decoder=decoder,  # type: ignore[arg-type]
        step=step,
        sampler=sampler,  # type: ignore[arg-type]
    )
    loop = BatchingLoop(timed, engine.new_memory(), slots=engine.slots, requests=requests_of(work))
    total_s = cpu_s(lambda: list(loop.completions()))
    return 1 - sum(part.spent_s for part in (vision, decoder, step, sampler)) / total_s


class _Timed:
    """Wraps a part of the engine and adds up the CPU time of its calls."""

    def __init__(self, part: Callable[..., Any]) -> None:
        self._part = part
        self.spent_s = 0.0

    def __call__(self, *args: Any, **options: Any) -> Any:
        start = time.process_time()
        found = self._part(*args, **options)
        self.spent_s += time.process_time() - start
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._part, name)
