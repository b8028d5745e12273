"""Count the kernels of a decode step, which take most of a GPU's time at small batches."""

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from kosmos2_core.checkpoint.load import Checkpoint
from kosmos2_core.comparison.random_model import Proportions
from kosmos2_core.engine.model.decoder import TextDecoder
from kosmos2_core.engine.requests import PREFIX_LENGTH
from kosmos2_core.engine.sampling.sampler import Sampler
from kosmos2_core.generation import Generation

# As many layers as the real model has: what a step launches does not depend on their width.
NARROW = Proportions(text_layers=24, text_width=48, vision_layers=1, vision_width=48)

# Allocation and bookkeeping; the alias of `_unsafe_view` is not in its schema.
_NO_KERNELS = {
    "empty",
    "empty_strided",
    "new_empty",
    "new_empty_strided",
    "detach_",
    "_unsafe_view",
    "_local_scalar_dense",
}


class _KernelCounter(TorchDispatchMode):
    """Counts operators that compute or copy, by name. Views do not count."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.by_name: dict[str, int] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func._schema.name.removeprefix("aten::")
        if not (name in _NO_KERNELS or _is_view(func)):
            self.by_name[name] = self.by_name.get(name, 0) + 1
        return func(*args, **(kwargs or {}))


def _is_view(func: Any) -> bool:
    aliases = [returned.alias_info for returned in func._schema.returns]
    return any(alias is not None and not alias.is_write for alias in aliases)


def kernels_per_step(checkpoint: Checkpoint, slots: int = 4) -> dict[str, int]:
    """Return the kernels, by name, that choose and score one token per slot.

    They are those of the plain backend, as on CUDA.
    """
    decoder = TextDecoder(checkpoint, "plain")
    sampler = Sampler(checkpoint, Generation(no_repeat_ngram_size=0))
    cache = decoder.new_cache(slots, PREFIX_LENGTH + slots)
    ids, starts = torch.full((slots,), 5), PREFIX_LENGTH + torch.arange(slots)
    counter = _KernelCounter()
    # In inference mode compound operators would count as one.
    with torch.inference_mode(False), torch.no_grad(), counter:
        logits = decoder.step(cache, ids, starts, span=cache.length)
        ids.copy_(sampler(logits, None, 0, (starts + 1).tolist()).tokens)
    return counter.by_name
