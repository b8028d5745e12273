"""Seeded ways to spoil any file."""

from collections.abc import Callable, Sequence

import numpy as np

Spoil = Callable[[np.random.Generator, bytes], bytes]


def cut(rng: np.random.Generator, data: bytes) -> bytes:
    return data[: rng.integers(len(data))]


def flip(rng: np.random.Generator, data: bytes, *, most: int) -> bytes:
    """One to `most` bytes become others."""
    spoilt = np.frombuffer(data, np.uint8).copy()
    where = rng.integers(len(data), size=rng.integers(1, most + 1))
    spoilt[where] ^= rng.integers(1, 256, len(where)).astype(np.uint8)
    return spoilt.tobytes()


def spoil(
    rng: np.random.Generator, data: bytes, spoils: Sequence[Spoil]
) -> tuple[bytes, list[str]]:
    """Once or twice over; with the names of the ways."""
    how = []
    for _ in range(rng.integers(1, 3)):
        chosen = spoils[rng.integers(len(spoils))]
        data = chosen(rng, data)
        how.append(chosen.__name__)
        if not data:
            break
    return data, how
