"""Raw scores of chosen tokens, from the logits before any ban."""

from torch import Tensor, nan
from torch.nn.functional import avg_pool2d

from kosmos2_core.locations import CELLS, GRID


def score_tokens(logits: Tensor, tokens: Tensor, first_location: int) -> tuple[Tensor, Tensor]:
    """[..., V], int64 [...] -> log-probabilities, 3x3 masses; float32 [...] each.

    The mass is the probability of the cells around a location and its own, those outside the
    grid left out; NaN for a token that is no location.
    """
    logits = logits.float()
    total = logits.logsumexp(-1, keepdim=True)
    chosen = (logits.gather(-1, tokens[..., None]) - total).squeeze(-1)
    grid = (logits[..., first_location : first_location + CELLS] - total).exp()
    planes = grid.reshape(-1, 1, GRID, GRID)
    sums = avg_pool2d(planes, 3, stride=1, padding=1, divisor_override=1).view_as(grid)
    cells = tokens - first_location
    masses = sums.gather(-1, cells.clamp(0, CELLS - 1)[..., None]).squeeze(-1).clamp(max=1)
    return chosen, masses.where((cells >= 0) & (cells < CELLS), nan)
