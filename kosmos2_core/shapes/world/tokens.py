"""The vocabulary of the shapes checkpoint: its processor, and fast encoding of text.

A few hundred whole words replace the 64,000 pieces of the real tokenizer. Single characters encode
all other text. `Kosmos2Processor` itself adds the 11 tags and 1,024 locations.
"""

import re
from dataclasses import dataclass
from functools import cache

from transformers import CLIPImageProcessorPil, Kosmos2Processor, XLMRobertaTokenizer

from kosmos2_core.grounding.grid import CELLS, IMAGE_SIZE, XYXY, cells_of
from kosmos2_core.grounding.vocabulary import Tag
from kosmos2_core.shapes.world.painting import INSIDE
from kosmos2_core.shapes.world.scenes import COLOURS
from kosmos2_core.shapes.world.wording import NUMBERS, plural

BOS, PAD, EOS, UNK = range(4)  # the order in XLMRobertaTokenizer and Kosmos2Config
IMAGE_TOKENS = 64
FIRST_PLACEHOLDER = UNK + 1  # ordinary pieces are the image placeholders, as in the real model
PUNCTUATION = (",", ".", ":", "?")
SENTENCES = """An image of and a an the The this This that it It is are in on at to with there
    Describe detail features picture photo shows left right top bottom middle centre center near
    Is next above below between small large big which Which What what where Where who Who How how
    many empty background leftmost rightmost object objects colour color shape Question
    Answer yes no special about near by person man woman people dog cat car tree house table
    chair snowman fire campfire hat himself warming sitting standing him her his"""
SUFFIXES = ("s", "es", "ed", "ing", "er", "ly", "ion", "al")
LETTERS = tuple(map(chr, range(33, 127)))

WORD_SCORE, SUFFIX_SCORE, LETTER_SCORE, PUNCTUATION_SCORE = -5.0, -9.0, -12.0, -3.0


def pieces() -> list[tuple[str, float]]:
    """Return SentencePiece pieces and unigram scores, in the order of their ids."""
    shapes = [word for shape in INSIDE for word in (shape, plural(shape))]
    words = dict.fromkeys([*COLOURS, *shapes, *NUMBERS, *SENTENCES.split()])
    scored = dict.fromkeys(("<s>", "<pad>", "</s>", "<unk>"), 0.0)
    scored |= dict.fromkeys((*PUNCTUATION, "▁"), PUNCTUATION_SCORE)
    scored |= {f"▁{word}": WORD_SCORE for word in words}
    scored |= dict.fromkeys(SUFFIXES, SUFFIX_SCORE)
    scored |= {letter: LETTER_SCORE for letter in LETTERS if letter not in scored}
    return [*scored.items(), ("<mask>", 0.0)]


def make_processor() -> Kosmos2Processor:
    """Make the processor. It resizes images to a square, as the real checkpoint's does."""
    image_processor = CLIPImageProcessorPil(
        size={"shortest_edge": IMAGE_SIZE},
        crop_size={"height": IMAGE_SIZE, "width": IMAGE_SIZE},
        resample=3,  # bicubic
        use_square_size=True,
    )
    return Kosmos2Processor(
        image_processor, XLMRobertaTokenizer(vocab=pieces(), model_max_length=2048)
    )


@dataclass(frozen=True, slots=True)
class Ids:
    """Encode pieces and tags without a tokenizer: training encodes thousands of texts a second."""

    of: dict[str, int]
    first_location: int

    def prompt(self, text: str) -> list[int]:
        """Encode a prompt's text as `Kosmos2Processor` does. Raises ValueError for other words."""
        return [token for part in _PARTS.findall(text) for token in self._part(part)]

    def said(self, text: str) -> list[int]:
        """Encode an answer of the model: " a red circle." as words and bare punctuation.

        Unlike in a prompt, punctuation after a tag has no "▁": the caption must read "... star."
        """
        return [
            self._id(part if part in PUNCTUATION else f"▁{part}")
            for part in re.findall(r"[^\s.,:?]+|[.,:?]", text)
        ]

    def tag(self, tag: Tag) -> int:
        return self.of[tag]

    def location(self, cell: int) -> int:
        return self.first_location + cell

    def objects(self, boxes: tuple[XYXY, ...]) -> list[int]:
        """Encode boxes as `<object> UL LR [delimiter UL LR ...] </object>`."""
        inner: list[int] = []
        for box in boxes:
            inner += [self.tag(Tag.DELIMITER)] * bool(inner)
            inner += [self.location(cell) for cell in cells_of(box)]
        return [self.tag(Tag.OBJECT), *inner, self.tag(Tag.END_OF_OBJECT)]

    def phrase(self, text: str) -> list[int]:
        return [self.tag(Tag.PHRASE), *self.said(text), self.tag(Tag.END_OF_PHRASE)]

    def _part(self, part: str) -> list[int]:
        if part in self.of:
            return [self.of[part]]
        words = []
        for word in part.split():
            stem = word.rstrip("".join(PUNCTUATION))
            words += [self._id(f"▁{stem}"), *map(self._id, word[len(stem) :])]
        return words

    def _id(self, piece: str) -> int:
        try:
            return self.of[piece]
        except KeyError:
            raise ValueError(
                f"no piece {piece!r} in the shapes vocabulary: use its words"
            ) from None


_PARTS = re.compile(r"<[^>]+>|[^<]+")


@cache
def shapes_ids() -> Ids:
    """Compute the ids of `make_processor`; a test compares the two."""
    names = [piece for piece, _ in pieces()] + [str(tag) for tag in Tag]
    locations = [f"<patch_index_{cell:04d}>" for cell in range(CELLS)]
    return Ids({name: at for at, name in enumerate([*names, *locations])}, len(names))


def image_prefix() -> list[int]:
    """Return the ids before every text: `<s> <image> 64 placeholders </image>`."""
    ids = shapes_ids()
    placeholders = range(FIRST_PLACEHOLDER, FIRST_PLACEHOLDER + IMAGE_TOKENS)
    return [BOS, ids.tag(Tag.IMAGE), *placeholders, ids.tag(Tag.END_OF_IMAGE)]
