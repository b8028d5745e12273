"""All ways to run the engine, in float32: they must give the same answers."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

from kosmos2_core.check.budget import Deadline
from kosmos2_core.check.context import CheckContext
from kosmos2_core.check.report import Figures
from kosmos2_core.comparison.sides import AnswerTokens, engine_answers
from kosmos2_core.comparison.workload import Workload, questions_about
from kosmos2_core.generation import Generation, GrammarMode
from kosmos2_core.prompts.tasks import BRIEF, DETAILED

# What changes answers: size of the n-gram ban, and the grammar.
_SETTINGS: tuple[tuple[int, GrammarMode], ...] = ((0, "off"), (3, "off"), (0, "strict"))


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantGroup:
    """Variants of one setting. `differing` names those whose answers differ from the first's."""

    ngram_size: int
    grammar: str
    variants: int
    answers: int
    differing: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class VariantFigures(Figures):
    """One group per setting of n-gram ban and grammar."""

    groups: tuple[VariantGroup, ...]

    @property
    def problems(self) -> tuple[str, ...]:
        return tuple(
            f"n-gram ban {each.ngram_size}, grammar {each.grammar}: other answers with {name}"
            for each in self.groups
            for name in each.differing
        )

    def lines(self) -> Iterator[str]:
        for each in self.groups:
            yield (
                f"n-gram ban {each.ngram_size}, grammar {each.grammar}: {each.answers} answers, "
                f"equal in {each.variants - len(each.differing)} of {each.variants} variants"
            )


def check_variants(context: CheckContext, deadline: Deadline) -> VariantFigures:
    """Compare slots, late reads and CUDA graphs among themselves, on the trained checkpoint."""
    extent = context.extent
    work = questions_about(context.shapes, context.scenes(extent.variant_images), BRIEF, DETAILED)
    groups, left_out = list[VariantGroup](), list[str]()
    for ngram_size, grammar in _SETTINGS:
        if groups and deadline.is_over:
            left_out.append(f"n-gram ban {ngram_size}, grammar {grammar}: the time is up")
            continue
        groups.append(_group(context, work, ngram_size, grammar))
    return VariantFigures(groups=tuple(groups), left_out=tuple(left_out))


def _group(
    context: CheckContext, work: Workload, ngram_size: int, grammar: GrammarMode
) -> VariantGroup:
    found: dict[str, AnswerTokens] = {}
    for slots, reads_late, graph in product(
        context.extent.variant_slots, (False, True), (False, True) if context.is_cuda else (False,)
    ):
        generation = Generation(
            slots=slots,
            no_repeat_ngram_size=ngram_size,
            grammar=grammar,
            cuda_graph="auto" if graph else "off",
        )
        engine = context.engine(
            context.shapes, generation, length=work.longest, reads_late=reads_late
        )
        name = f"{slots} slots{', late reads' * reads_late}{', CUDA graphs' * graph}"
        found[name] = engine_answers(engine, work)
    first = next(iter(found.values()))
    return VariantGroup(
        ngram_size=ngram_size,
        grammar=grammar,
        variants=len(found),
        answers=len(first),
        differing=tuple(name for name, answers in found.items() if answers != first),
    )
