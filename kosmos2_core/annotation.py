"""The data model of the whole project: boxes, entities, annotations.

Boxes are xyxy, normalised to [0, 1], origin top left, relative to the upright image.
Offsets are Python string offsets into `caption`: `caption[start:end] == phrase`, always.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Literal

from kosmos2_core.quick_init import quick_init

BoxSource = Literal["model", "prompt"]
FinishReason = Literal["eos", "length", "stop"]
HuggingFaceEntity = tuple[str, tuple[int, int], list[tuple[float, float, float, float]]]


class Issue(StrEnum):
    """Name a quality flag of an annotation. An annotation without flags is clean.

    The values are those of the column `issues`; `docs/quality.md` explains them. The thresholds
    are in `kosmos2_core/grounding/quality.py`.
    """

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
    NGRAM_SUPPRESSED = (
        "ngram_suppressed"  # the n-gram ban removed a tag or location: a box may be missing
    )
    GRAMMAR_ENFORCED = "grammar_enforced"  # the strict grammar removed the best token at least once
    EMPTY_GROUNDING = "empty_grounding"  # boxes were asked for, and there are none
    DEGENERATE_BOX = "degenerate_box"  # one cell of the grid wide or high
    WHOLE_IMAGE_BOX = "whole_image_box"  # nine tenths of the image or more
    DUPLICATE_BOX = "duplicate_box"  # two boxes of a phrase are about the same (IoU >= 0.9)
    SHARED_BOX = "shared_box"  # two phrases have about the same box
    LOW_SCORE = "low_score"  # the score of a box is below 0.3
    PRONOUN_PHRASE = "pronoun_phrase"  # a box for "it", "himself", ...
    ABSTRACT_PHRASE = "abstract_phrase"  # a box for "the weather", "a good time", ...
    REPEATED_WORDS = "repeated_words"  # four words in a row occur twice in the answer
    PROMPT_ECHO = "prompt_echo"  # the answer repeats the prompt
    TINY_IMAGE = "tiny_image"  # a side below 32 pixels
    EXTREME_ASPECT = "extreme_aspect"  # four times as long as wide, or more
    MISSING_END = "missing_end"  # the file ends too soon, but no pixel is missing
    MORE_IMAGES = "more_images"  # the sample has other images, which are not annotated
    METADATA_INVALID = "metadata_invalid"  # the sample's .json is not a JSON object
    METADATA_TOO_LARGE = "metadata_too_large"  # the sample's .json or .txt is too large: left out
    CARRIED_INVALID = "carried_invalid"  # a carried field does not have the type of its column


# Issues of a sample, and not of its image: a copy of the image need not have them.
SAMPLE_ISSUES = frozenset(
    {
        Issue.MORE_IMAGES,
        Issue.METADATA_INVALID,
        Issue.METADATA_TOO_LARGE,
        Issue.CARRIED_INVALID,
    }
)

# Issues of the markup of an answer: phrases and boxes that do not fit together.
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


@quick_init
@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """One box of an entity: xyxy, normalised to [0, 1], origin top left, upright image.

    The model names a box by two of the 1,024 location tokens of a 32x32 grid (Kosmos-2,
    arXiv:2306.14824, section 2.1). The corners are converted as in `patch_index_to_coordinate` of
    transformers' `processing_kosmos2.py`.

    Attributes:
        x1: Left edge, as a share of the width.
        y1: Top edge, as a share of the height.
        x2: Right edge, greater than `x1`.
        y2: Bottom edge, greater than `y1`.
        ul: Patch index (0..1023, row-major on the 32x32 grid) of the upper left corner.
        lr: Patch index of the lower right corner.
        score: sqrt(m(ul) m(lr)), where m is the probability mass of the 3x3 cells around a corner.
            In [0, 1], not calibrated. None for a box from the prompt or from `parse_text`.
        logp: Mean log-probability of the two location tokens. None where `score` is None.
        consistency: IoU with the best box that the model gives for the phrase alone, 0 if it
            gives none. None unless the annotation was made with `verify_boxes`.
        source: "model" for a generated box, "prompt" for a box that the prompt contained.

    Example:
        >>> box = Box(x1=0.25, y1=0.5, x2=0.75, y2=1.0, ul=520, lr=1015)
        >>> width, height = 640, 480  # pixels
        >>> box.x1 * width, box.y1 * height, box.x2 * width, box.y2 * height
        (160.0, 240.0, 480.0, 480.0)
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
        """The corners (x1, y1, x2, y2), normalised to [0, 1], origin top left."""
        return self.x1, self.y1, self.x2, self.y2


@quick_init
@dataclass(frozen=True, slots=True, kw_only=True)
class Entity:
    """A noun phrase of the caption and its boxes.

    Attributes:
        phrase: Text of the phrase, equal to `caption[start:end]`.
        start: Offset of the first character in the caption, in characters.
        end: Offset after the last character.
        boxes: At least one box, in the order in which the model generated them.
        phrase_logprob: Mean log-probability of the phrase's text tokens. None for a phrase from
            the prompt or from `parse_text`.

    Example:
        >>> box = Box(x1=0.0, y1=0.0, x2=0.5, y2=0.5, ul=0, lr=495)
        >>> dog = Entity(phrase="a dog", start=12, end=17, boxes=(box,))
        >>> "An image of a dog."[dog.start : dog.end]
        'a dog'
    """

    phrase: str
    start: int
    end: int
    boxes: tuple[Box, ...]
    phrase_logprob: float | None = None


@quick_init
@dataclass(frozen=True, slots=True, kw_only=True)
class Grounding:
    """A caption and its grounded phrases, as parsed from tokens or markup.

    Attributes:
        caption: Text without markup, stripped of whitespace at both ends.
        entities: Phrases with boxes, in the order of the caption.
        issues: Quality flags, each once.
        prompt_chars: Number of leading characters of `caption` that come from the prompt.

    Example:
        >>> from kosmos2_core import parse_text
        >>> grounding = parse_text(
        ...     "<grounding> An image of<phrase> a dog</phrase>"
        ...     "<object><patch_index_0000><patch_index_0495></object>."
        ... )
        >>> grounding.caption
        'An image of a dog.'
        >>> grounding.entities[0].boxes[0].xyxy
        (0.015625, 0.015625, 0.484375, 0.484375)
    """

    caption: str
    entities: tuple[Entity, ...]
    issues: tuple[Issue, ...]
    prompt_chars: int = 0

    def to_huggingface(self) -> list[HuggingFaceEntity]:
        """Return the entities as `Kosmos2Processor.post_process_generation` does.

        Returns:
            For each entity (phrase, (start, end), boxes), boxes as (x1, y1, x2, y2) in [0, 1].
        """
        return huggingface_entities(self.entities)

    def without_prompt(self) -> "Grounding":
        """Remove the words of the prompt from the caption and move the spans accordingly.

        Entities of the prompt are removed, too. A phrase that the prompt asks to ground is part
        of the prompt, but its boxes come from the model: the caption is then cut before it.

        Returns:
            A grounding whose caption begins with the model's answer.
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


@quick_init
@dataclass(frozen=True, slots=True, kw_only=True)
class Annotation:
    """The model's answer about one image for one task.

    Attributes:
        task: Name of the task.
        prompt: Text of the prompt, with its markup.
        caption: Prompt and answer as text without markup, stripped of whitespace at both ends.
        prompt_chars: Number of leading characters of `caption` that come from the prompt.
        entities: Phrases with boxes, in the order of the caption.
        issues: Quality flags, each once.
        finish_reason: "eos" if the model ended the answer, "stop" if the boxes of the task's
            phrase were complete, "length" if `max_new_tokens` was reached.
        token_ids: Generated tokens, end of sequence included. With them the other fields can be
            recomputed.
        token_logprobs: Log-probability of each token, before the n-gram ban and the grammar.

    Example:
        >>> from PIL import Image
        >>> from kosmos2_core import Annotator
        >>> annotator = Annotator.from_pretrained("shapes")
        >>> (annotation,) = annotator.annotate([Image.new("RGB", (64, 64), "white")])
        >>> annotation.caption
        'An image of an empty background.'
        >>> annotation.finish_reason, annotation.entities
        ('eos', ())
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
        """Return the entities as `Kosmos2Processor.post_process_generation` does.

        Returns:
            For each entity (phrase, (start, end), boxes), boxes as (x1, y1, x2, y2) in [0, 1].
        """
        return huggingface_entities(self.entities)


def huggingface_entities(entities: Iterable[Entity]) -> list[HuggingFaceEntity]:
    return [(e.phrase, (e.start, e.end), [box.xyxy for box in e.boxes]) for e in entities]
