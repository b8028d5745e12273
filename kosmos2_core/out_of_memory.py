"""Errors of our own for memory that ran out, which name the remedy."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from kosmos2_core.errors import KosmosError, first_line

# How torch's allocator on the CPU and cuBLAS say it; the allocator on CUDA has a class of its own.
_SIGNS = ("DefaultCPUAllocator: can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error of torch says that memory ran out."""
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS)
    )


@contextmanager
def naming_out_of_memory(error: type[KosmosError], subject: str, remedy: str) -> Iterator[None]:
    """Raise `error` instead of torch's own where memory runs out in the block."""
    try:
        yield
    except RuntimeError as cause:
        if not is_out_of_memory(cause):
            raise
        raise error(f"{subject}: memory ran out ({first_line(cause)}); {remedy}") from cause
