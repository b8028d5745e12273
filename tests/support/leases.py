"""Leases that somebody left behind."""

from dataclasses import replace

from pipeline.dataset.lease import LeaseState, Owner
from pipeline.progress import Progress

NO_PROCESS = 2**22 + 1  # beyond any pid that Linux gives


def abandoned(*, progress: Progress | None = None, **changes: object) -> bytes:
    """The body that a holder left behind, who was this process but for `changes`."""
    owner = replace(Owner.this_process(), **changes)
    return LeaseState(owner=owner, beat=3, progress=progress).to_json()
