from dataclasses import dataclass, field
from functools import cached_property

import pytest
from transformers import AutoTokenizer

from kosmos2_core.checkpoint.files import SHAPES_DIRECTORY
from kosmos2_core.errors import CheckpointError
from kosmos2_core.grounding.vocabulary import REAL_VOCABULARY_SIZE, Tag, Vocabulary

LOCATIONS = [f"<patch_index_{cell:04d}>" for cell in range(1024)]
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]


@dataclass
class TokenList:
    """A tokenizer as far as `Vocabulary` looks at it: the layout is the subject here."""

    tokens: list[str]
    unk_token_id: int = 3
    all_special_ids: list[int] = field(default_factory=lambda: [0, 1, 2, 3])

    def __len__(self):
        return len(self.tokens)

    @cached_property
    def ids(self):
        return {token: token_id for token_id, token in enumerate(self.tokens)}

    def convert_tokens_to_ids(self, token):
        return self.ids.get(token, self.unk_token_id)

    def convert_ids_to_tokens(self, ids):
        return [self.tokens[i] for i in ids]


def real_layout(*, words_before_tags=63_998):
    words = [f"▁w{i}" for i in range(REAL_VOCABULARY_SIZE - len(SPECIAL) - len(Tag) - 1024)]
    words[words_before_tags:words_before_tags] = list(Tag)
    return TokenList([*SPECIAL, *words, *LOCATIONS])


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(SHAPES_DIRECTORY)


@pytest.fixture(scope="module")
def shapes(tokenizer):
    return Vocabulary.from_tokenizer(tokenizer)


def test_tags_are_those_of_the_processor_in_order(shapes, tokenizer):
    assert list(shapes.tags.values()) == list(Tag)
    assert tokenizer.convert_ids_to_tokens(list(shapes.tags)) == list(Tag)


def test_locations_are_the_1024_ids_behind_the_tags(shapes):
    assert shapes.first_location == max(shapes.tags) + 1
    ids = range(shapes.first_location - 2, shapes.first_location + 1026)
    assert [shapes.location(i) for i in ids] == [None, None, *range(1024), None, None]


def test_pieces_joined_are_the_decoded_text(shapes, tokenizer):
    ids = tokenizer.encode("An image of a red star, and 3 dogs!", add_special_tokens=False)
    assert "".join(shapes.pieces[i] for i in ids) == " An image of a red star, and 3 dogs!"
    assert "".join(shapes.pieces[i] for i in tokenizer.all_special_ids) == ""


def test_the_real_layout_is_accepted():
    vocabulary = Vocabulary.from_tokenizer(real_layout())
    assert list(vocabulary.tags) == list(range(64_002, 64_013))
    assert vocabulary.first_location == 64_013


def without(token):
    layout = real_layout()
    layout.tokens.remove(token)
    return layout


def with_swapped_locations():
    layout = real_layout()
    layout.tokens[-1], layout.tokens[-2] = layout.tokens[-2], layout.tokens[-1]
    return layout


@pytest.mark.parametrize(
    ("tokenizer_like", "said"),
    [
        pytest.param(lambda: TokenList([*SPECIAL, "▁a"]), "not a Kosmos-2 tokenizer", id="other"),
        pytest.param(lambda: without("</object>"), "has no token </object>", id="no tag"),
        pytest.param(lambda: without("<patch_index_0500>"), "<patch_index_0500>", id="no location"),
        pytest.param(with_swapped_locations, "not consecutive", id="locations moved"),
        pytest.param(
            lambda: real_layout(words_before_tags=0), "was converted wrongly", id="tags moved"
        ),
    ],
)
def test_another_tokenizer_is_refused(tokenizer_like, said):
    with pytest.raises(CheckpointError, match=said):
        Vocabulary.from_tokenizer(tokenizer_like())
