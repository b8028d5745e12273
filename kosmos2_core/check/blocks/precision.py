"""Half precision, by the log-probabilities of given answers.

Where two tokens are almost equally likely it may choose another than float32, and say something
else from there on. So tokens are not compared.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from kosmos2_core.check.budget import Deadline
from kosmos2_core.check.context import CheckContext, name_of, with_dtype
from kosmos2_core.check.report import Figures
from kosmos2_core.checkpoint.load import Checkpoint
from kosmos2_core.comparison.forced import forced_logprobs
from kosmos2_core.comparison.sides import generate_answers
from kosmos2_core.comparison.workload import Workload, questions_about
from kosmos2_core.engine.model.weights import best_backend, can_pack
from kosmos2_core.prompts.tasks import BRIEF

_DTYPES = (torch.float16, torch.bfloat16)
_IMAGES = 6
# The engine may be as far from float32 as this times what Hugging Face's half precision is.
_FACTOR = 2.0
_ROUNDING = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class HalfPrecision:
    """Errors of log-probabilities against float32: means, and the largest.

    `same_best`: share of tokens that stay the most likely ones.
    """

    model: str
    dtype: str
    mean: float
    largest: float
    same_best: float
    huggingface_mean: float
    huggingface_same_best: float

    @property
    def is_close(self) -> bool:
        return self.mean <= _FACTOR * self.huggingface_mean + _ROUNDING


@dataclass(frozen=True, slots=True, kw_only=True)
class PrecisionFigures(Figures):
    """One comparison per model and dtype."""

    comparisons: tuple[HalfPrecision, ...]

    @property
    def problems(self) -> tuple[str, ...]:
        return tuple(
            f"{each.model} in {each.dtype}: log-probabilities are {each.mean:.4f} off float32, "
            f"Hugging Face's {each.huggingface_mean:.4f}"
            for each in self.comparisons
            if not each.is_close
        )

    def lines(self) -> Iterator[str]:
        for each in self.comparisons:
            yield (
                f"{each.model} in {each.dtype}: log-probabilities are {each.mean:.4f} off float32 "
                f"(Hugging Face's {each.huggingface_mean:.4f}), {each.largest:.3f} at most; "
                f"{each.same_best:.1%} of the tokens stay the best"
            )


def check_precision(context: CheckContext, deadline: Deadline) -> PrecisionFigures:
    """Compare both half precisions with float32, on the trained model and on that of the job."""
    asked = questions_about(context.shapes, context.scenes(_IMAGES), BRIEF)
    todo = [("shapes", context.shapes, asked, dtype) for dtype in _DTYPES]
    left_out = [
        f"packed products in {str(dtype).removeprefix('torch.')}: this processor has none"
        for dtype in _DTYPES
        if not context.is_cuda and not can_pack(dtype)
    ]
    if context.main.dtype in _DTYPES:
        forced = context.workloads(context.main, images=_IMAGES).constant_length
        name = name_of(context.model)
        todo.append((name, context.main, forced, context.main.dtype))
    found = list[HalfPrecision]()
    for name, checkpoint, work, dtype in todo:
        if found and deadline.is_over:
            left_out.append(f"{name} in {str(dtype).removeprefix('torch.')}: the time is up")
        else:
            found.append(_compared(context, name, checkpoint, work, dtype))
            context.free()
    return PrecisionFigures(comparisons=tuple(found), left_out=tuple(left_out))


def _compared(
    context: CheckContext, name: str, checkpoint: Checkpoint, work: Workload, dtype: torch.dtype
) -> HalfPrecision:
    exact = with_dtype(checkpoint, torch.float32)
    half = with_dtype(checkpoint, dtype)
    [question] = work.questions
    answers = generate_answers(context.oracle(exact), work, len(work.pixels))
    length = min(context.extent.forced_tokens, *map(len, answers.values()))
    forced = [ids[:length] for ids in answers.values()]
    expected = _oracle_logprobs(context, exact, work, forced)
    theirs = _oracle_logprobs(context, half, work, forced)
    backend = best_backend(half.device, half.dtype)
    ours = forced_logprobs(half, backend, work.pixels, question.ids, forced)
    tokens = torch.tensor(forced, device=checkpoint.device)
    best = expected.argmax(-1)
    error = (_of_tokens(ours, tokens) - _of_tokens(expected, tokens)).abs()
    their_error = (_of_tokens(theirs, tokens) - _of_tokens(expected, tokens)).abs()
    return HalfPrecision(
        model=name,
        dtype=half.dtype_name,
        mean=error.mean().item(),
        largest=error.max().item(),
        same_best=(ours.argmax(-1) == best).float().mean().item(),
        huggingface_mean=their_error.mean().item(),
        huggingface_same_best=(theirs.argmax(-1) == best).float().mean().item(),
    )


def _oracle_logprobs(
    context: CheckContext, checkpoint: Checkpoint, work: Workload, answers: list[tuple[int, ...]]
) -> Tensor:
    """float32 [N, T, V] by Hugging Face's model."""
    oracle, [question] = context.oracle(checkpoint), work.questions
    rows = [question.ids + ids[:-1] for ids in answers]
    return oracle.logprobs(oracle.embed_images(work.pixels), rows, start=len(question.ids) - 1)


def _of_tokens(logprobs: Tensor, tokens: Tensor) -> Tensor:
    """[N, T, V], int64 [N, T] -> [N, T]."""
    return logprobs.gather(-1, tokens[..., None]).squeeze(-1)
