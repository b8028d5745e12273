"""Tokens against Hugging Face's, in float32."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from kosmos2_core.check.budget import Deadline
from kosmos2_core.check.context import CheckContext
from kosmos2_core.check.report import Figures
from kosmos2_core.checkpoint.load import Checkpoint
from kosmos2_core.comparison.oracle import Oracle, mend_resampler
from kosmos2_core.comparison.sides import engine_answers, generate_answers
from kosmos2_core.comparison.ties import is_tie, partings
from kosmos2_core.comparison.workload import Workload, questions_about
from kosmos2_core.generation import Generation
from kosmos2_core.prompts.tasks import BRIEF, DETAILED

_BATCH = 16
_SLOTS = 16
NGRAM_SIZES = (0, 3)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenComparison:
    """`ties`: answers that differ first where two tokens are equally likely; `wrong`: elsewhere."""

    model: str
    ngram_size: int
    answers: int
    tokens: int
    ties: int
    wrong: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenFigures(Figures):
    """`is_oracle_mended`: this version's resampler is causal, and was mended before it judged."""

    comparisons: tuple[TokenComparison, ...]
    is_oracle_mended: bool
    shifts_padded_rows: bool

    @property
    def problems(self) -> tuple[str, ...]:
        return tuple(
            f"{each.wrong} of {each.answers} answers of {each.model} differ from Hugging Face's "
            f"(n-gram ban {each.ngram_size})"
            for each in self.comparisons
            if each.wrong
        )

    def lines(self) -> Iterator[str]:
        if self.is_oracle_mended:
            yield (
                "Hugging Face's resampler is causal in this version of transformers, which is "
                "wrong: mended here, for the comparison"
            )
        if self.shifts_padded_rows:
            yield "its generate is wrong for rows with left padding; no row is padded here"
        for each in self.comparisons:
            ties = f", {each.ties} ties" if each.ties else ""
            yield (
                f"{each.model}, n-gram ban {each.ngram_size}: {each.answers} answers, "
                f"{each.tokens} tokens, {each.answers - each.ties - each.wrong} answers equal{ties}"
            )


def check_tokens(context: CheckContext, deadline: Deadline) -> TokenFigures:
    """Compare all answers about scenes and noise with those of Hugging Face's `generate`."""
    extent, found, left_out = context.extent, list[TokenComparison](), list[str]()
    is_mended = mend_resampler(context.shapes.model)
    mend_resampler(context.small.model)
    asked = questions_about(context.shapes, context.scenes(extent.images), BRIEF, DETAILED)
    forced = context.workloads(context.small, images=extent.images).two_tasks
    for name, checkpoint, work in (
        ("shapes", context.shapes, asked),
        ("a random model", context.small, forced),
    ):
        for size in NGRAM_SIZES:
            if found and deadline.is_over:
                left_out.append(f"{name} with an n-gram ban of {size}: the time is up")
            else:
                found.append(_compared(context, name, checkpoint, size, work))
    return TokenFigures(
        comparisons=tuple(found),
        is_oracle_mended=is_mended,
        shifts_padded_rows=Oracle(context.shapes).shifts_padded_rows,
        left_out=tuple(left_out),
    )


def _compared(
    context: CheckContext, name: str, checkpoint: Checkpoint, ngram_size: int, work: Workload
) -> TokenComparison:
    checkpoint = replace(checkpoint, no_repeat_ngram_size=ngram_size)
    oracle = Oracle(checkpoint)
    theirs = generate_answers(oracle, work, _BATCH)
    engine = context.engine(checkpoint, Generation(slots=_SLOTS), length=work.longest)
    ours = engine_answers(engine, work)
    parted = [is_tie(oracle, work, theirs, ours, key) for key in partings(theirs, ours)]
    return TokenComparison(
        model=name,
        ngram_size=ngram_size,
        answers=len(theirs),
        tokens=sum(map(len, theirs.values())),
        ties=sum(parted),
        wrong=len(parted) - sum(parted),
    )
