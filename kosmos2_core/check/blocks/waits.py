"""Check that the host waits for the GPU nowhere but where it reads tokens."""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from kosmos2_core.check.blocks.steady import steady_completions
from kosmos2_core.check.budget import Deadline
from kosmos2_core.check.context import CheckContext
from kosmos2_core.check.report import BlockSkipped, Figures
from kosmos2_core.errors import first_line
from kosmos2_core.generation import Generation

_STEPS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitFigures(Figures):
    """`waits`: torch's words for an operation that waited, with an n-gram ban and without."""

    steps: int
    waits: tuple[str, ...]

    @property
    def problems(self) -> tuple[str, ...]:
        return tuple(f"the host waits for the device: {wait}" for wait in self.waits)

    def lines(self) -> Iterator[str]:
        if not self.waits:
            yield f"in {self.steps} decode steps and their prompts, no operation waits"


def check_waits(context: CheckContext, deadline: Deadline) -> WaitFigures:
    """Run steps and prompts while torch refuses every operation that waits for the device."""
    if not context.is_cuda:
        raise BlockSkipped("only with a GPU can the host wait for the device")
    waits, steps = list[str](), 0
    work = context.workloads(context.main, images=32).two_tasks
    for ngram_size in (0, 3):
        generation = Generation(slots=16, no_repeat_ngram_size=ngram_size)
        engine = context.engine(context.main, generation, length=work.longest)
        completions = steady_completions(engine, work)
        begun = engine.vitals.decode_steps
        try:
            with _waiting_is_an_error():
                while engine.vitals.decode_steps - begun < _STEPS:
                    next(completions)
        except RuntimeError as error:
            if "synchroniz" not in str(error):
                raise
            waits.append(f"{first_line(error)} (n-gram ban {ngram_size})")
        steps += engine.vitals.decode_steps - begun
    return WaitFigures(steps=steps, waits=tuple(waits))


@contextmanager
def _waiting_is_an_error() -> Generator[None]:
    mode = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(mode)
