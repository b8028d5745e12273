"""How an answer is generated: the options that every layer hands on whole. Imports no torch."""

from dataclasses import dataclass, replace
from typing import Literal

# reference: exactly as Hugging Face's processor, over the whole row with the placeholders of
# the image. text: a run counts only if all its tokens are text. (The reference takes boxes from
# repeated nouns: after "dog </phrase> <object>" once, the second dog gets no <object>.)
NgramMode = Literal["reference", "text"]

# strict: only well-formed grounding.
GrammarMode = Literal["off", "strict"]

DEFAULT_SLOTS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """Options of generation. None leaves the choice to the checkpoint and the machine.

    `no_repeat_ngram_size`: runs of that many tokens occur once, 0 bans none; None as the
    checkpoint says. `ngram_mode` None: reference, or text where `grammar` is strict. `slots`:
    sequences decoded at once. `verify_boxes`: each phrase of an answer is grounded once more on
    its own, which gives its boxes their `consistency`. `cuda_graph`: replay each decode step as one
    CUDA graph; never tried on a GPU.

    Raises ValueError for slots < 1, and for ngram_mode reference with a strict grammar.
    """

    no_repeat_ngram_size: int | None = None
    ngram_mode: NgramMode | None = None
    grammar: GrammarMode = "off"
    slots: int | None = None
    verify_boxes: bool = False
    cuda_graph: bool = False

    def __post_init__(self) -> None:
        if self.slots is not None and self.slots < 1:
            raise ValueError(f"slots must be at least 1, not {self.slots}")
        if self.grammar == "strict" and self.ngram_mode == "reference":
            raise ValueError(
                "the strict grammar cannot keep the reference's n-gram ban, which takes tags that "
                "the grammar needs: use ngram mode text, or grammar off"
            )

    @property
    def resolved_ngram_mode(self) -> NgramMode:
        """The strict grammar implies `text`: what it calls for must not be banned."""
        return self.ngram_mode or ("text" if self.grammar == "strict" else "reference")

    def resolved(self, *, no_repeat_ngram_size: int, slots: int = DEFAULT_SLOTS) -> "Generation":
        """Return it with nothing left open; the arguments stand for what was not asked for."""
        size = self.no_repeat_ngram_size
        return replace(
            self,
            no_repeat_ngram_size=no_repeat_ngram_size if size is None else size,
            ngram_mode=self.resolved_ngram_mode,
            slots=self.slots or slots,
        )
