"""Flag doubtful annotations from their stored fields, without model and pixels.

The thresholds mark annotations for review. They do not filter anything.
"""

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import combinations

from kosmos2_core.annotation import Box, Entity, Grounding, Issue
from kosmos2_core.grounding.grid import GRID, XYXY, area, iou
from kosmos2_core.grounding.vocabulary import Tag

WHOLE_AREA = 0.9  # share of the image; the largest box of several rows and columns has 0.938
SAME_IOU = 0.9
_SAME_EDGE = 2 * (1 - SAME_IOU)  # of such boxes, with ample room
REPEATED_WORDS = 4
LOW_SCORE = 0.3
TINY_SIDE = 32  # pixels; the model's input has 224 x 224
EXTREME_ASPECT = 4.0  # long side / short side; the model's input is a square
ECHOED_WORDS = 3

PRONOUNS = """he her hers herself him himself his it its itself one she some somebody someone
    something that their them themselves these they this those who you"""
# Last words of phrases for things that have no outline.
ABSTRACT = """air atmosphere beauty day freedom fun idea joy life love moment mood nature night
    peace scene season time view way weather"""
_PRONOUNS, _ABSTRACT = frozenset(PRONOUNS.split()), frozenset(ABSTRACT.split())
_LISTED = _PRONOUNS | _ABSTRACT
_WORD = re.compile(r"\w+(?:'\w+)?")
_ORDER = {issue: number for number, issue in enumerate(Issue)}


# All issues that `quality_issues` can return.
QUALITY_ISSUES = frozenset(
    {
        Issue.EMPTY_GROUNDING,
        Issue.DEGENERATE_BOX,
        Issue.WHOLE_IMAGE_BOX,
        Issue.DUPLICATE_BOX,
        Issue.SHARED_BOX,
        Issue.LOW_SCORE,
        Issue.PRONOUN_PHRASE,
        Issue.ABSTRACT_PHRASE,
        Issue.REPEATED_WORDS,
        Issue.PROMPT_ECHO,
    }
)


def quality_issues(prompt: str, grounding: Grounding) -> tuple[Issue, ...]:
    """Return the issues of the answer to `prompt`, in the order of `Issue`."""
    answer = grounding.caption[grounding.prompt_chars :]
    found = {*_of_words(prompt, answer), *_of_entities(prompt, grounding.entities)}
    return tuple(sorted(found, key=_ORDER.__getitem__))


def size_issues(width: int, height: int) -> tuple[Issue, ...]:
    """Return the issues of an image with these sides, in pixels."""
    found = {
        Issue.TINY_IMAGE: min(width, height) < TINY_SIDE,
        Issue.EXTREME_ASPECT: max(width, height) >= EXTREME_ASPECT * min(width, height),
    }
    return tuple(issue for issue, holds in found.items() if holds)


def _of_words(prompt: str, answer: str) -> Iterator[Issue]:
    words = _words(answer)
    said = words.split("\n")
    runs = zip(*(said[at:] for at in range(REPEATED_WORDS)), strict=False)
    if len(set(runs)) < len(said) + 1 - REPEATED_WORDS:
        yield Issue.REPEATED_WORDS
    asked = _words_of_prompt(prompt)
    if asked.count("\n") + 1 >= ECHOED_WORDS and f"\n{asked}\n" in f"\n{words}\n":
        yield Issue.PROMPT_ECHO


@lru_cache(maxsize=256)
def _words_of_prompt(prompt: str) -> str:
    return _words(re.sub("<.*?>", " ", prompt))


def _words(text: str) -> str:
    """Return the words in lower case, one a line. All are made lower case at once."""
    return "\n".join(_WORD.findall(text)).lower()


def _of_entities(prompt: str, entities: Sequence[Entity]) -> Iterator[Issue]:
    answered = [
        (entity, box, box.xyxy)
        for entity in entities
        for box in entity.boxes
        if box.source == "model"
    ]
    if prompt.startswith(Tag.GROUNDING) and not entities:
        yield Issue.EMPTY_GROUNDING
    for entity, box, xyxy in answered:
        yield from _of_box(box, xyxy)
        if not _ends_plainly(entity.phrase):
            yield from _of_phrase(entity.phrase)
    for (one, _, a), (other, _, b) in combinations(answered, 2):
        # Most pairs differ in one of two edges by more than boxes of this IoU can.
        is_near = abs(a[0] - b[0]) < _SAME_EDGE and abs(a[3] - b[3]) < _SAME_EDGE
        if is_near and iou(a, b) >= SAME_IOU:
            yield Issue.DUPLICATE_BOX if one is other else Issue.SHARED_BOX


def _of_box(box: Box, xyxy: XYXY) -> Iterator[Issue]:
    if box.ul % GRID == box.lr % GRID or box.ul // GRID == box.lr // GRID:
        yield Issue.DEGENERATE_BOX
    if area(xyxy) >= WHOLE_AREA:
        yield Issue.WHOLE_IMAGE_BOX
    if box.score is not None and box.score < LOW_SCORE:
        yield Issue.LOW_SCORE


def _ends_plainly(phrase: str) -> bool:
    """Return whether a phrase ends with a word of letters that no list has, as most do."""
    last = phrase.rpartition(" ")[2]
    return last.isalpha() and last.lower() not in _LISTED


def _of_phrase(phrase: str) -> Iterator[Issue]:
    words = _words(phrase).split("\n")
    if _PRONOUNS.issuperset(words):
        yield Issue.PRONOUN_PHRASE
    if words[-1] in _ABSTRACT:
        yield Issue.ABSTRACT_PHRASE
