"""Raw scores of generated tokens, in columns."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenScores:
    """One value per token in each column.

    Attributes:
        logprobs: Log-probability of each token, before the n-gram ban and the grammar.
        masses: Probability mass of the 3x3 cells around a location; NaN for other tokens.
    """

    logprobs: tuple[float, ...] = ()
    masses: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if len(self.logprobs) != len(self.masses):
            raise ValueError(
                f"scores need one mass per token: {len(self.logprobs)} log-probabilities, but "
                f"{len(self.masses)} masses"
            )

    @classmethod
    def uniform(cls, count: int, *, logprob: float = 0.0, mass: float = math.nan) -> "TokenScores":
        """Return the same scores for each of `count` tokens, where no model gave any."""
        return cls(logprobs=(logprob,) * count, masses=(mass,) * count)
