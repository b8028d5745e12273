"""Leases that somebody left behind."""

from dataclasses import replace

from pipeline.dataset.lease import LeaseState, Owner

NO_PROCESS = 2**22 + 1  # beyond any pid that Linux gives


def abandoned(**changes: object) -> bytes:
    """The body that a holder left behind, who was this process but for `changes`."""
    return LeaseState(owner=replace(Owner.this_process(), **changes), beat=3).to_json()
