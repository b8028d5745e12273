"""A decode step as one CUDA graph: replayed, it costs one launch. Never tried on a GPU."""

from dataclasses import dataclass

import torch
from torch import Tensor

from kosmos2_core.engine.model.decoder import TextDecoder
from kosmos2_core.engine.model.kv_cache import KVCache


@dataclass(frozen=True, slots=True, kw_only=True)
class _CapturedStep:
    """A step over all slots with one span."""

    graph: torch.cuda.CUDAGraph
    logits: Tensor  # [slots, V], written by every replay


class GraphedSteps:
    """Stands for `TextDecoder.step` with one shape per span: each slot has a row, live or not.

    A free slot's row writes to position 0, which the next prefill there overwrites. The logits
    are good until the next step.
    """

    def __init__(self, decoder: TextDecoder, slots: int) -> None:
        self._decoder = decoder
        self._slots = slots
        self._cache_at = 0  # where the cache lay when the graphs were captured
        self._captured: dict[int, _CapturedStep] = {}  # by span

    def __call__(self, cache: KVCache, ids: Tensor, starts: Tensor, *, span: int) -> Tensor:
        if cache.data.data_ptr() != self._cache_at:  # it grew, or is another run's
            self._captured.clear()
            self._cache_at = cache.data.data_ptr()
            self._ids, self._starts = ids.new_zeros((2, self._slots))
        self._ids[: len(ids)] = ids
        self._starts.zero_()[: len(ids)] = starts
        if span not in self._captured:
            self._captured[span] = self._capture(cache, span)
        captured = self._captured[span]
        captured.graph.replay()
        return captured.logits[: len(ids)]

    def _capture(self, cache: KVCache, span: int) -> _CapturedStep:
        """Running a step twice writes the same keys and values twice."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # what is only set up in a first call is no part of it
            self._decoder.step(cache, self._ids, self._starts, span=span)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            logits = self._decoder.step(cache, self._ids, self._starts, span=span)
        return _CapturedStep(graph=graph, logits=logits)
