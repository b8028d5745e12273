"""The engine in its steady state: all slots in use, and requests without end."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import count

from kosmos2_core.comparison.sides import requests_of
from kosmos2_core.comparison.workload import Workload
from kosmos2_core.engine.engine import Engine
from kosmos2_core.engine.requests import Completion, Request


def endless(work: Workload) -> Iterator[Request]:
    """Yield the requests of `work` again and again, each with a number of its own."""
    number = count()
    while True:
        for request in requests_of(work):
            yield replace(request, id=next(number))


def steady_completions(engine: Engine, work: Workload) -> Iterator[Completion]:
    """Return completions without end, after as many as there are slots. Close it after use."""
    completions = engine.generate(endless(work))
    for _ in range(engine.slots):
        next(completions)
    return completions
