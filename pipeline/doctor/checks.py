"""The parts of a setup, in the order in which they are checked."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from kosmos2_core.errors import KosmosError
from pipeline.doctor import compute, machine, model, places
from pipeline.doctor.setup import JobSetup
from pipeline.errors import PipelineError

CheckState = Literal["right", "wrong", "skipped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PartCheck:
    """The check of one part. `said`: what was found and, if that is wrong, what to do."""

    part: str
    state: CheckState
    said: str


# Each returns what it found. It returns None if there is nothing to check, and raises an error
# whose message says what to do. The one that connects to Ray comes last: it takes longest.
PARTS: dict[str, Callable[[JobSetup], str | None]] = {
    "versions": machine.supported_versions,
    "disk": machine.disk,
    "shared memory": machine.shared_memory,
    "browser": machine.browser,
    "credentials": places.credentials,
    "input": places.readable_input,
    "output": places.writable_output,
    "clock": places.clock,
    "model": model.model_at_hand,
    "resources": compute.resources,
}


def check_setup(setup: JobSetup) -> Iterator[PartCheck]:
    """Check each part of a setup, and yield the results as they come.

    Args:
        setup: The job, and where it would run.

    Yields:
        One result for each of `PARTS`. A part that is wrong raises nothing.
    """
    for part, check in PARTS.items():
        try:
            said = check(setup)
        except (PipelineError, KosmosError) as error:
            yield PartCheck(part=part, state="wrong", said=str(error))
        else:
            state: CheckState = "skipped" if said is None else "right"
            yield PartCheck(part=part, state=state, said=said or "nothing to check")
