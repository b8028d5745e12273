"""Options of generation, in one value that all layers pass on. Imports no torch."""

from dataclasses import dataclass, replace
from typing import Literal

# reference: as Hugging Face's logits processor, over the whole row including the placeholders of
# the image. text: an n-gram counts only if all its tokens are text. The reference removes boxes of
# repeated nouns: after one "dog </phrase> <object>", the second dog cannot get an <object>.
NgramMode = Literal["reference", "text"]

# strict: only well-formed markup can be generated.
GrammarMode = Literal["off", "strict"]

# auto: CUDA graphs where the device is CUDA.
CudaGraphMode = Literal["auto", "off"]

DEFAULT_SLOTS = 16
# More slots than these help little: on one CPU core a step of 16 rows is near its floor. On CUDA
# by reasoning alone: up to there a step costs about what launching its kernels costs.
MOST_SLOTS = {"cpu": 16, "cuda": 256}


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """Options of generation. None leaves the choice to the checkpoint and the machine.

    Attributes:
        no_repeat_ngram_size: Ban n-grams of this many tokens from occurring twice; 0 bans none.
            None takes the value of the checkpoint (3 for Kosmos-2, as in microsoft/unilm).
        ngram_mode: "reference" bans n-grams as Hugging Face's `generate` does, tags and locations
            included. "text" bans n-grams of text tokens only. None: "reference", or "text" with
            the strict grammar.
        grammar: "strict" allows only well-formed phrases and boxes; "off" allows any token.
        slots: Number of sequences that are decoded at the same time, at least 1. None takes as
            many as fit into memory (`Annotator.from_pretrained`) or 16.
        verify_boxes: Ground each phrase of an answer once more on its own, which sets the
            `consistency` of its boxes.
        cuda_graph: "auto" replays decode steps and image batches as CUDA graphs on a CUDA device;
            "off" does not.

    Raises:
        ValueError: `slots` is below 1, or `ngram_mode` is "reference" with a strict grammar.

    Example:
        >>> strict = Generation(grammar="strict", slots=8)
        >>> strict.resolved(no_repeat_ngram_size=3).ngram_mode
        'text'
    """

    no_repeat_ngram_size: int | None = None
    ngram_mode: NgramMode | None = None
    grammar: GrammarMode = "off"
    slots: int | None = None
    verify_boxes: bool = False
    cuda_graph: CudaGraphMode = "auto"

    def __post_init__(self) -> None:
        if self.slots is not None and self.slots < 1:
            raise ValueError(f"slots must be at least 1, not {self.slots}")
        if self.grammar == "strict" and self.ngram_mode == "reference":
            raise ValueError(
                "grammar strict cannot be combined with ngram_mode reference, which bans tags "
                "that the grammar needs: use ngram mode text, or grammar off"
            )

    @property
    def resolved_ngram_mode(self) -> NgramMode:
        """The n-gram mode: as given, else "text" with the strict grammar, else "reference"."""
        return self.ngram_mode or ("text" if self.grammar == "strict" else "reference")

    def resolved(self, *, no_repeat_ngram_size: int, slots: int = DEFAULT_SLOTS) -> "Generation":
        """Replace each None by a value.

        Args:
            no_repeat_ngram_size: Value to take if the option is None.
            slots: Value to take if the option is None.

        Returns:
            Options without None.
        """
        size = self.no_repeat_ngram_size
        return replace(
            self,
            no_repeat_ngram_size=no_repeat_ngram_size if size is None else size,
            ngram_mode=self.resolved_ngram_mode,
            slots=self.slots or slots,
        )
