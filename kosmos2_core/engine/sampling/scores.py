"""Raw scores of chosen tokens, from the logits before any ban."""

import torch
from torch import Tensor

from kosmos2_core.grounding.grid import CELLS, GRID

_STEPS = [(column, line) for line in (-1, 0, 1) for column in (-1, 0, 1)]


class TokenScorer:
    """For a model of `rows` tokens. What a token's scores are made of is looked up, not searched:
    the step that calls this launches few kernels, and none over the whole grid."""

    def __init__(self, *, rows: int, first_location: int, device: torch.device) -> None:
        cells = torch.arange(CELLS)[:, None]
        columns, lines = (torch.tensor(steps) for steps in zip(*_STEPS, strict=True))
        columns, lines = cells % GRID + columns, cells // GRID + lines  # [CELLS, 9]
        is_inside = (columns >= 0) & (columns < GRID) & (lines >= 0) & (lines < GRID)
        locations = slice(first_location, first_location + CELLS)
        # [V, 10]: the token itself, then what the 3x3 cells around a location say.
        looked_at = torch.arange(rows)[:, None].repeat(1, 1 + len(_STEPS))
        near = first_location + GRID * lines + columns
        looked_at[locations, 1:] = near.where(is_inside, first_location)
        # [V, 9]: 1 for what counts, 0 outside of the grid, NaN for a token that is no location.
        shares = torch.full((rows, len(_STEPS)), torch.nan)
        shares[locations] = is_inside.float()
        self._looked_at, self._shares = looked_at.to(device), shares.to(device)

    def __call__(self, logits: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """[..., V], int64 [...] -> log-probabilities, 3x3 masses; float32 [...] each.

        The mass is the probability of the cells around a location and its own, those outside the
        grid left out; NaN for a token that is no location.
        """
        logits = logits.float()
        total = logits.logsumexp(-1, keepdim=True)
        logprobs = logits.gather(-1, self._looked_at[tokens]) - total  # [..., 10]
        masses = (logprobs[..., 1:].exp() * self._shares[tokens]).sum(-1).clamp(max=1)
        return logprobs[..., 0], masses
