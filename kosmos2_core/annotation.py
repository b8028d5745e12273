"""What the whole project speaks: boxes, entities, annotations.

Boxes are normalised xyxy in [0, 1], origin top left, relative to the upright image.
Offsets are Python string offsets into `caption`: `caption[start:end] == phrase`, always.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Literal

BoxSource = Literal["model", "prompt"]
FinishReason = Literal["eos", "length", "stop"]
HuggingFaceEntity = tuple[str, tuple[int, int], list[tuple[float, float, float, float]]]


class Issue(StrEnum):
    """Quality flags of an annotation; an annotation without any is clean."""

    TRUNCATED = "truncated"  # stopped by the token limit, not by the model
    UNCLOSED_PHRASE = "unclosed_phrase"  # <phrase> without </phrase>: text kept, no entity
    EMPTY_PHRASE = "empty_phrase"  # boxes for a phrase without a word: dropped
    NESTED_PHRASE = "nested_phrase"  # <phrase> inside a phrase: the inner one counts
    PHRASE_WITHOUT_OBJECT = "phrase_without_object"  # no box follows: text kept, no entity
    OBJECT_WITHOUT_PHRASE = "object_without_phrase"  # boxes that belong to no phrase: dropped
    UNCLOSED_OBJECT = "unclosed_object"  # <object> without </object>: its complete boxes are kept
    MALFORMED_OBJECT = "malformed_object"  # not pairs of locations: complete pairs are kept
    INVERTED_BOX = "inverted_box"  # second corner above or left of the first: dropped
    LOCATION_OUT_OF_RANGE = "location_out_of_range"  # no such cell in the grid: box dropped
    STRAY_LOCATION = "stray_location"  # a location token outside <object>: dropped
    STRAY_TAG = "stray_tag"  # a tag where it means nothing: dropped
    NGRAM_SUPPRESSED = "ngram_suppressed"  # the n-gram ban took a tag or location: a box may lack
    GRAMMAR_ENFORCED = "grammar_enforced"  # once at least the strict grammar took the best token
    EMPTY_GROUNDING = "empty_grounding"  # boxes were asked for, and there are none
    DEGENERATE_BOX = "degenerate_box"  # one cell of the grid wide or high
    WHOLE_IMAGE_BOX = "whole_image_box"  # nine tenths of the image or more
    DUPLICATE_BOX = "duplicate_box"  # two boxes of a phrase are about the same (IoU >= 0.9)
    SHARED_BOX = "shared_box"  # two phrases have about the same box
    LOW_SCORE = "low_score"  # of a box: below 0.3
    PRONOUN_PHRASE = "pronoun_phrase"  # a box for "it", "himself", ...
    ABSTRACT_PHRASE = "abstract_phrase"  # a box for "the weather", "a good time", ...
    REPEATED_WORDS = "repeated_words"  # four words in a row occur twice in the answer
    PROMPT_ECHO = "prompt_echo"  # the answer says the prompt again
    TINY_IMAGE = "tiny_image"  # a side below 32 pixels
    EXTREME_ASPECT = "extreme_aspect"  # four times as long as wide, or more
    MISSING_END = "missing_end"  # the file ends too soon, but no pixel is missing
    MORE_IMAGES = "more_images"  # the sample has other images, which are not annotated
    METADATA_INVALID = "metadata_invalid"  # the sample's own .json is not a JSON object
    METADATA_TOO_LARGE = "metadata_too_large"  # the sample's own .json or .txt was left out
    CARRIED_INVALID = "carried_invalid"  # a field with a column of its own is of another type


# What is wrong with the markup of an answer: phrases and boxes that do not fit together.
MARKUP_ISSUES = frozenset(
    {
        Issue.UNCLOSED_PHRASE,
        Issue.EMPTY_PHRASE,
        Issue.NESTED_PHRASE,
        Issue.PHRASE_WITHOUT_OBJECT,
        Issue.OBJECT_WITHOUT_PHRASE,
        Issue.UNCLOSED_OBJECT,
        Issue.MALFORMED_OBJECT,
        Issue.INVERTED_BOX,
        Issue.LOCATION_OUT_OF_RANGE,
        Issue.STRAY_LOCATION,
        Issue.STRAY_TAG,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """One box of an entity.

    `ul`, `lr` are the patch indices (0..1023, row-major on the 32x32 grid) of its corners.
    `score` = sqrt(m(ul) m(lr)), m = the probability mass of the 3x3 cells around a corner:
    in [0, 1], uncalibrated. `logp` = mean of the two exact token log-probabilities.
    Both are None where the box was given in the prompt or parsed from text. `consistency` is the
    IoU with what the model says when asked for the phrase alone, None where it was not asked.
    """

    x1: float
    y1: float
    x2: float
    y2: float
    ul: int
    lr: int
    score: float | None = None
    logp: float | None = None
    consistency: float | None = None
    source: BoxSource = "model"

    @property
    def xyxy(self) -> tuple[float, float, float, float]:
        return self.x1, self.y1, self.x2, self.y2


@dataclass(frozen=True, slots=True, kw_only=True)
class Entity:
    """A noun phrase of the caption and its boxes, in the order they were generated.

    `phrase_logprob` is the mean log-probability of the phrase's text tokens, None where the
    phrase was given in the prompt or parsed from text.
    """

    phrase: str
    start: int
    end: int
    boxes: tuple[Box, ...]
    phrase_logprob: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Grounding:
    """A caption and what it is grounded in, as parsed from tokens or markup.

    `prompt_chars` counts the leading characters of `caption` that come from the prompt.
    """

    caption: str
    entities: tuple[Entity, ...]
    issues: tuple[Issue, ...]
    prompt_chars: int = 0

    def to_huggingface(self) -> list[HuggingFaceEntity]:
        return huggingface_entities(self.entities)

    def without_prompt(self) -> "Grounding":
        """The same without the prompt's words: the spans move with the caption.

        The prompt's entities go with it, but never one that the model put a box on: a phrase to
        be grounded is itself a part of the prompt, and the cut then stays in front of it.
        """
        answered = (e.start for e in self.entities if any(b.source == "model" for b in e.boxes))
        cut = min([self.prompt_chars, *answered])
        rest = self.caption[cut:]
        cut += len(rest) - len(rest.lstrip())
        return replace(
            self,
            caption=self.caption[cut:],
            entities=tuple(
                replace(e, start=e.start - cut, end=e.end - cut)
                for e in self.entities
                if e.start >= cut
            ),
            prompt_chars=max(self.prompt_chars - cut, 0),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotation:
    """What the model says of one image for one task.

    `token_ids` and `token_logprobs` are the generated tokens, end of sequence included, and
    their raw log-probabilities (before any n-gram ban): enough to derive the rest again.
    """

    task: str
    prompt: str
    caption: str
    prompt_chars: int
    entities: tuple[Entity, ...]
    issues: tuple[Issue, ...]
    finish_reason: FinishReason
    token_ids: tuple[int, ...]
    token_logprobs: tuple[float, ...]

    def to_huggingface(self) -> list[HuggingFaceEntity]:
        """The entities as `Kosmos2Processor.post_process_generation` gives them."""
        return huggingface_entities(self.entities)


def huggingface_entities(entities: Iterable[Entity]) -> list[HuggingFaceEntity]:
    return [(e.phrase, (e.start, e.end), [box.xyxy for box in e.boxes]) for e in entities]
