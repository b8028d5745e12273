"""Tokens that were chosen on the device, and that the host has still to read."""

from collections.abc import Sequence
from dataclasses import dataclass

from kosmos2_core.engine.image_prefix import Picture
from kosmos2_core.engine.sampling.sampler import Choice, Choices
from kosmos2_core.engine.sequence import Growing
from kosmos2_core.grounding.parser import TokenScore


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """One for each of some sequences, whatever slots they have gone to since."""

    sequences: Sequence[Growing[Picture]]
    choices: Choices

    def read(self, eos: int) -> None:
        """Waits for them. A sequence that has ended meanwhile has no use for its own."""
        for sequence, choice in zip(self.sequences, self.choices.read(), strict=True):
            if not sequence.finish_reason:
                _add(sequence, choice, eos)


def _add(sequence: Growing[Picture], choice: Choice, eos: int) -> None:
    score = TokenScore(logprob=choice.logprob, mass=choice.mass)
    sequence.add(choice.token_id, score, eos)
    sequence.is_ngram_suppressed |= choice.is_ngram_suppressed
    sequence.is_grammar_enforced |= choice.is_grammar_enforced
