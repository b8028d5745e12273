"""Parse token ids or markup into caption, entities and issues, with one state machine for both.

On well-formed input the result equals that of `Kosmos2Processor.post_process_generation`. On
malformed input that function loses text or invents entities; this one keeps the text and flags
the issue.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

from kosmos2_core.annotation import Box, BoxSource, Entity, Grounding, Issue
from kosmos2_core.grounding.grid import box_of, is_location
from kosmos2_core.grounding.scores import TokenScores
from kosmos2_core.grounding.vocabulary import Tag, Vocabulary


def parse_tokens(
    vocabulary: Vocabulary,
    prompt_ids: Sequence[int],
    token_ids: Sequence[int],
    scores: TokenScores,
) -> Grounding:
    """Parse the text part of a prompt (after `</image>`) and the tokens generated after it.

    Accepts any sequence of ids in the vocabulary. `scores` belongs to `token_ids`.
    """
    parser = _Parser(source="prompt")
    _feed(parser, vocabulary, prompt_ids, None)
    parser.end_of_prompt()
    _feed(parser, vocabulary, token_ids, scores)
    return parser.finish()


def _feed(
    parser: "_Parser",
    vocabulary: Vocabulary,
    token_ids: Sequence[int],
    scores: TokenScores | None,
) -> None:
    """Feed tokens; neighbouring text goes in as one, so that little is done per token."""
    markup, texts, start = vocabulary.markup, vocabulary.texts(token_ids), 0
    logprobs, masses = (scores.logprobs, scores.masses) if scores else ((), ())
    for at in [at for at, token_id in enumerate(token_ids) if token_id in markup]:
        if start < at:
            parser.text(texts[start:at], logprobs[start:at])
        found, start = markup[token_ids[at]], at + 1
        if isinstance(found, Tag):
            parser.tag(found)
        elif scores:
            parser.location(found, logprobs[at], masses[at])
        else:
            parser.location(found)
    parser.text(texts[start:], logprobs[start:])


_MARKUP = re.compile(
    "|".join([r"<patch_index_(?P<cell>[0-9]{1,9})>", *(re.escape(tag) for tag in Tag)])
    + r"|(?P<special><s>|</s>|<pad>|<unk>|<mask>)"
)


def has_markup(text: str) -> bool:
    """Return whether a tokenizer would find a tag, a location or a special token in it."""
    return _MARKUP.search(text) is not None


def markup_in(text: str) -> list[str]:
    """Return the tags, locations and special tokens in a text, in order."""
    return [match[0] for match in _MARKUP.finditer(text)]


def parse_text(markup: str) -> Grounding:
    """Parse the decoded text of a model output, with or without its `<image> ... </image>` head.

    The format is that of Kosmos-2 (arXiv:2306.14824, section 2.1): `<phrase> words</phrase>`
    followed by `<object>`, two location tokens `<patch_index_0000>` to `<patch_index_1023>` per
    box, and `</object>`. Several boxes are separated by `</delimiter_of_multi_objects/>`. Any other
    `<` is text. Malformed markup never raises; it is flagged in `issues`.

    Args:
        markup: Text with the model's tags, as `tokenizer.decode` gives it.

    Returns:
        Caption, entities and issues. Boxes are xyxy, normalised to [0, 1], origin top left, without
        scores. `prompt_chars` is 0, because the text does not say where the prompt ends.

    Example:
        >>> grounding = parse_text(
        ...     "An image of<phrase> a red circle</phrase>"
        ...     "<object><patch_index_0264><patch_index_0759></object>."
        ... )
        >>> grounding.caption
        'An image of a red circle.'
        >>> (entity,) = grounding.entities
        >>> entity.phrase, entity.start, entity.end
        ('a red circle', 12, 24)
        >>> entity.boxes[0].xyxy
        (0.265625, 0.265625, 0.734375, 0.734375)
    """
    head, end_of_image, text = markup.partition(Tag.END_OF_IMAGE)
    if end_of_image and head.lstrip().removeprefix("<s>").lstrip().startswith(Tag.IMAGE):
        markup = text
    parser = _Parser()
    position = 0
    for match in _MARKUP.finditer(markup):
        parser.text([markup[position : match.start()]])
        position = match.end()
        if match["cell"]:
            parser.location(int(match["cell"]))
        elif not match["special"]:
            parser.tag(Tag(match[0]))
    parser.text([markup[position:]])
    return parser.finish()


class _State(Enum):
    TEXT = auto()
    IN_PHRASE = auto()
    AFTER_PHRASE = auto()  # after </phrase>: only <object> as the next token gives it boxes
    IN_OBJECT = auto()


# Up to Python 3.11, looking up a member takes longer than most of what is done for a tag.
_TEXT, _IN_PHRASE, _AFTER_PHRASE, _IN_OBJECT = _State
_PHRASE, _END_OF_PHRASE, _OBJECT = Tag.PHRASE, Tag.END_OF_PHRASE, Tag.OBJECT
_END_OF_OBJECT, _DELIMITER, _GROUNDING = Tag.END_OF_OBJECT, Tag.DELIMITER, Tag.GROUNDING


@dataclass(slots=True, kw_only=True)
class _Phrase:
    """A phrase at offset `start` of the unstripped caption; `logprobs` of its generated tokens."""

    start: int
    text: str = ""
    logprobs: list[float] = field(default_factory=list)


# A location in an object: cell, log-probability, mass, source; without scores in prompts and texts.
_Corner = tuple[int, float | None, float | None, BoxSource]


class _Parser:
    def __init__(self, source: BoxSource = "model") -> None:
        self._source = source
        self._state = _TEXT
        self._pieces: list[str] = []
        self._length = 0
        self._prompt_length = 0
        self._phrase: _Phrase | None = None
        self._groups: list[list[_Corner]] = []
        self._entities: list[tuple[_Phrase, tuple[Box, ...]]] = []
        self._issues: dict[Issue, None] = {}  # an ordered set

    def text(self, pieces: Sequence[str], logprobs: Sequence[float] = ()) -> None:
        """Add the text of some tokens. Those without text have no part in scores."""
        text = "".join(pieces)
        if not text:
            return
        if self._state is _AFTER_PHRASE or self._state is _IN_OBJECT:
            self._leave()
        if (phrase := self._phrase) is not None:
            phrase.text += text
            phrase.logprobs += [p for p, piece in zip(logprobs, pieces, strict=False) if piece]
        self._pieces.append(text)
        self._length += len(text)

    def location(self, cell: int, logprob: float | None = None, mass: float | None = None) -> None:
        if self._state is _IN_OBJECT:
            self._groups[-1].append((cell, logprob, mass, self._source))
            return
        self._flag(Issue.STRAY_LOCATION)
        if self._state is _AFTER_PHRASE:
            self._leave()

    def tag(self, tag: Tag) -> None:
        state = self._state
        if tag is _PHRASE:
            self._open_phrase()
        elif tag is _END_OF_PHRASE and state is _IN_PHRASE:
            self._state = _AFTER_PHRASE
        elif tag is _OBJECT:
            self._open_object()
        elif tag is _END_OF_OBJECT and state is _IN_OBJECT:
            self._close_object()
        elif tag is _DELIMITER and state is _IN_OBJECT:
            self._groups.append([])
        elif tag is not _GROUNDING or self._length or state is not _TEXT:
            self._flag(Issue.STRAY_TAG)
            if state is not _IN_PHRASE:
                self._leave()

    def end_of_prompt(self) -> None:
        self._prompt_length = self._length
        self._source = "model"

    def finish(self) -> Grounding:
        self._leave()
        raw = "".join(self._pieces)
        caption = raw.strip()
        leading = len(raw) - len(raw.lstrip())
        return Grounding(
            caption=caption,
            entities=tuple([_entity(*found, leading) for found in self._entities]),
            issues=tuple(self._issues),
            prompt_chars=min(max(self._prompt_length - leading, 0), len(caption)),
        )

    def _open_phrase(self) -> None:
        if self._state is _IN_PHRASE:
            self._flag(Issue.NESTED_PHRASE)
        else:
            self._leave()
        self._phrase = _Phrase(start=self._length)
        self._state = _IN_PHRASE

    def _open_object(self) -> None:
        if self._state is not _AFTER_PHRASE:
            self._leave()
            self._flag(Issue.OBJECT_WITHOUT_PHRASE)
        self._groups = [[]]
        self._state = _IN_OBJECT

    def _close_object(self) -> None:
        phrase, self._phrase = self._phrase, None
        self._state = _TEXT
        boxes = tuple([box for group in self._groups if (box := self._box(group)) is not None])
        if phrase is None or not boxes:
            return
        if phrase.text.strip():
            self._entities.append((phrase, boxes))
        else:
            self._flag(Issue.EMPTY_PHRASE)

    def _leave(self) -> None:
        """Return to plain text from any state and flag the element that is not closed."""
        if self._state is _IN_PHRASE:
            self._flag(Issue.UNCLOSED_PHRASE)
        elif self._state is _AFTER_PHRASE:
            self._flag(Issue.PHRASE_WITHOUT_OBJECT)
        elif self._state is _IN_OBJECT:
            self._flag(Issue.UNCLOSED_OBJECT)
            self._close_object()
        self._phrase = None
        self._state = _TEXT

    def _box(self, corners: list[_Corner]) -> Box | None:
        if len(corners) != 2:
            self._flag(Issue.MALFORMED_OBJECT)
            return None
        (ul, ul_logprob, ul_mass, _), (lr, lr_logprob, lr_mass, source) = corners
        try:
            x1, y1, x2, y2 = box_of(ul, lr)
        except ValueError:
            is_inside = is_location(ul) and is_location(lr)
            self._flag(Issue.INVERTED_BOX if is_inside else Issue.LOCATION_OUT_OF_RANGE)
            return None
        score = logp = None
        if ul_mass is not None and lr_mass is not None:
            score = math.sqrt(ul_mass * lr_mass)
        if ul_logprob is not None and lr_logprob is not None:
            logp = (ul_logprob + lr_logprob) / 2
        return Box(x1=x1, y1=y1, x2=x2, y2=y2, ul=ul, lr=lr, score=score, logp=logp, source=source)

    def _flag(self, issue: Issue) -> None:
        self._issues[issue] = None


def _entity(phrase: _Phrase, boxes: tuple[Box, ...], leading: int) -> Entity:
    text, logprobs = phrase.text, phrase.logprobs
    name = text.strip()
    start = phrase.start + len(text) - len(text.lstrip()) - leading
    return Entity(
        phrase=name,
        start=start,
        end=start + len(name),
        boxes=boxes,
        phrase_logprob=math.fsum(logprobs) / len(logprobs) if logprobs else None,
    )
