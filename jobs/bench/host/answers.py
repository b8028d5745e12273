"""Answers of drawn lengths: words, phrases and boxes in the proportions of real captions."""

from collections.abc import Iterator, Sequence

import numpy as np

from kosmos2_core.comparison.workload import Lengths
from kosmos2_core.grounding.grid import CELLS, GRID
from kosmos2_core.grounding.vocabulary import Tag, Vocabulary

_SEED = 1
_MASS_LEAST = 0.1  # of a location; some scores are then low enough for a quality flag


def scripted_answers(
    vocabulary: Vocabulary, eos: int, *, lengths: Lengths, count: int
) -> np.ndarray:
    """Return `count` answers as float32 [count, most + 2, 3]: token id, log-probability, mass.

    Each answer ends with `eos` at its own length. The rest of its row repeats `eos`: a row of a
    step can be wasted on a sequence that has ended.
    """
    rng = np.random.default_rng(_SEED)
    words = [i for i, piece in enumerate(vocabulary.pieces) if piece[:1] == " " and piece.strip()]
    answers = np.zeros((count, lengths.most + 2, 3), np.float32)
    answers[:, :, 0] = eos
    for answer, length in zip(answers, lengths.draw(count), strict=True):
        answer[: length - 1, 0] = list(_tokens(vocabulary, words, rng, length - 1))
    ids = answers[:, :, 0]
    is_location = (ids >= vocabulary.first_location) & (ids < vocabulary.first_location + CELLS)
    answers[:, :, 1] = -rng.exponential(0.3, ids.shape)
    answers[:, :, 2] = np.where(is_location, rng.uniform(_MASS_LEAST, 1, ids.shape), np.nan)
    return answers


def _tokens(
    vocabulary: Vocabulary, words: Sequence[int], rng: np.random.Generator, length: int
) -> Iterator[int]:
    """Yield some words, then a phrase of two to four words with its box, and so on."""
    left = length
    while left:
        between, inside = int(rng.integers(3, 7)), int(rng.integers(2, 5))
        entity = inside + 6
        if left < between + entity:
            yield from rng.choice(words, left)
            return
        yield from rng.choice(words, between)
        yield vocabulary.id_of(Tag.PHRASE)
        yield from rng.choice(words, inside)
        yield vocabulary.id_of(Tag.END_OF_PHRASE)
        yield vocabulary.id_of(Tag.OBJECT)
        columns, lines = np.sort(rng.integers(0, GRID, (2, 2)), axis=1)
        yield from (vocabulary.first_location + columns + GRID * lines).tolist()
        yield vocabulary.id_of(Tag.END_OF_OBJECT)
        left -= between + entity
