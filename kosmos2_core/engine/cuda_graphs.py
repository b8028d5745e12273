"""CUDA graphs of what has one shape: a decode step with its choice of tokens, a vision batch.

A graph costs one launch, whatever it holds. All are captured when their memory is made.
"""

import logging
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from kosmos2_core.engine.model.decoder import TextDecoder
from kosmos2_core.engine.model.kv_cache import BUCKET, KVCache
from kosmos2_core.engine.model.transfer import AsyncCopy, refill
from kosmos2_core.engine.model.vision import EncodesImages
from kosmos2_core.engine.requests import PREFIX_LENGTH
from kosmos2_core.engine.sampling.constraints import Constraints
from kosmos2_core.engine.sampling.sampler import Choices, Sampler
from kosmos2_core.errors import first_line
from kosmos2_core.out_of_memory import is_out_of_memory

_log = logging.getLogger(__name__)

_T = TypeVar("_T")

# Where a free slot's row is written: with room for n-grams before it, and inside of every prompt.
_IDLE_POSITION = PREFIX_LENGTH
_FINE_SPANS = 512  # up to there each bucket has a graph, then each fourth


@dataclass(frozen=True, slots=True, kw_only=True)
class CapturedGraph(Generic[_T]):
    """`output` is written by every replay, and good until the next one of any graph."""

    graph: torch.cuda.CUDAGraph
    output: _T


class GraphCapture:
    """Captures graphs of one device with one pool of memory, on one stream.

    Graphs of one pool use the same memory for what is between input and output, which is right as
    long as no two of them run at a time.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool = torch.cuda.graph_pool_handle()
        self._stream = torch.cuda.Stream(device)

    def capture(self, compute: Callable[[], _T]) -> CapturedGraph[_T]:
        """Raises RuntimeError where something in `compute` cannot be captured."""
        with torch.inference_mode(), torch.cuda.device(self._device):
            self._stream.wait_stream(torch.cuda.current_stream(self._device))
            with torch.cuda.stream(self._stream):  # what a first call sets up is no part of it
                compute()
            torch.cuda.current_stream(self._device).wait_stream(self._stream)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
                output = compute()
        return CapturedGraph(graph=graph, output=output)


class DecodeGraphs:
    """A decode step and its choice of tokens, as one graph for each span.

    Each slot has a row, live or not. A free slot's row writes where its next prompt overwrites it.
    """

    def __init__(
        self,
        capture: GraphCapture,
        decoder: TextDecoder,
        sampler: Sampler,
        *,
        cache: KVCache,
        tokens: Tensor,
        constraints: Constraints | None,
    ) -> None:
        self._decoder = decoder
        self._sampler = sampler
        self._cache = cache
        self._tokens = tokens
        self._constraints = constraints
        self._starts = torch.full_like(tokens, _IDLE_POSITION)
        self._spans = graph_spans(cache.length)
        # The largest first: the smaller ones fit into its memory.
        self._graphs = {
            span: capture.capture(lambda span=span: self._compute(span))  # type: ignore[misc]
            for span in reversed(self._spans)
        }

    def __call__(self, starts: np.ndarray) -> Choices:
        """The next tokens of the slots 0 .. N - 1, whose last ones stand at `starts` int64 [N]."""
        positions = np.full(len(self._tokens), _IDLE_POSITION)
        positions[: len(starts)] = starts
        refill(self._starts, torch.from_numpy(positions))
        span = self._spans[bisect_left(self._spans, int(positions.max()) + 1)]
        captured = self._graphs[span]
        captured.graph.replay()
        report = AsyncCopy(captured.output, columns=len(starts))
        return Choices(tokens=self._tokens[: len(starts)], report=report)

    def _compute(self, span: int) -> Tensor:
        """The report of the sampler, whose tokens are the next step's."""
        logits = self._decoder.step(self._cache, self._tokens, self._starts, span=span)
        chosen, report = self._sampler.choose(
            logits, self._constraints, self._cache.slots, self._starts + 1, span=span
        )
        self._tokens.copy_(chosen)
        return report


class GraphedVision:
    """Stands for a vision encoder. A full batch is a graph; others are computed as they are."""

    def __init__(self, capture: GraphCapture, vision: EncodesImages, pixels: Tensor) -> None:
        """`pixels` uint8 [N, 3, 224, 224] on the device: what a batch is copied to."""
        self._vision = vision
        self._pixels = pixels
        self._graph = capture.capture(lambda: vision(pixels))

    def __call__(self, pixels: Tensor) -> Tensor:
        if len(pixels) < len(self._pixels):
            return self._vision(pixels)
        refill(self._pixels, pixels)
        self._graph.graph.replay()
        return self._graph.output.clone()


def graph_spans(length: int) -> Sequence[int]:
    """Return the spans of a cache's steps that have a graph, in ascending order."""
    spans = range(-(-_IDLE_POSITION // BUCKET) * BUCKET, length, BUCKET)
    return [*(s for s in spans if s < _FINE_SPANS or s % (4 * BUCKET) == 0), length]


def captured_or_none(make: Callable[[], _T], what: str) -> _T | None:
    """Return what `make` captures. Where that fails, log the reason and return None.

    Raises torch's own error where memory ran out: less of it would be left for what follows.
    """
    try:
        return make()
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        _log.warning("no CUDA graphs of %s, which will be slower: %s", what, first_line(error))
        return None
