"""How the sampler may be asked to choose."""

from typing import Literal

# reference: exactly as Hugging Face's processor, over the whole row with the placeholders of
# the image. text: a run counts only if all its tokens are text. (The reference takes boxes from
# repeated nouns: after "dog </phrase> <object>" once, the second dog gets no <object>.)
NgramMode = Literal["reference", "text"]

# strict: only well-formed grounding.
GrammarMode = Literal["off", "strict"]


def ngram_mode_for(asked: NgramMode | None, grammar: GrammarMode) -> NgramMode:
    """The strict grammar implies `text`: what it calls for must not be banned.

    Raises ValueError where `reference` is asked for with it.
    """
    if grammar == "off":
        return asked or "reference"
    if asked == "reference":
        raise ValueError(
            "the strict grammar cannot keep the reference's n-gram ban, which takes tags that the "
            "grammar needs: use ngram mode text, or grammar off"
        )
    return "text"
