"""The oracle on well-formed input is `Kosmos2Processor.post_process_generation`."""

import math
import re
from functools import cache
from itertools import chain

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoProcessor

from kosmos2_core.annotation import Issue
from kosmos2_core.checkpoint.files import SHAPES_DIRECTORY
from kosmos2_core.grounding.parser import parse_text, parse_tokens
from kosmos2_core.grounding.scores import TokenScores
from kosmos2_core.grounding.vocabulary import REAL_FIRST_TAG, REAL_VOCABULARY_SIZE, Tag, Vocabulary
from tests.support.checkpoints import REAL_PIECES

PROPERTY = settings(derandomize=True, deadline=None, max_examples=200)

UL, LR = "<patch_index_0044>", "<patch_index_0863>"
BOX = (0.390625, 0.046875, 0.984375, 0.828125)
OBJECT = f"<object>{UL}{LR}</object>"
UL_2, LR_2 = "<patch_index_0005>", "<patch_index_0911>"
BOX_2 = (0.171875, 0.015625, 0.484375, 0.890625)
OBJECT_2 = f"<object>{UL_2}{LR_2}</object>"
AND = "</delimiter_of_multi_objects/>"


@cache
def processor():
    return AutoProcessor.from_pretrained(SHAPES_DIRECTORY)


@cache
def shapes():
    return Vocabulary.from_tokenizer(processor().tokenizer)


@cache
def real():
    """The real model's vocabulary, with the words whose ids are known."""
    return Vocabulary(
        pieces=tuple(REAL_PIECES.get(i, "").replace("▁", " ") for i in range(REAL_VOCABULARY_SIZE)),
        tags=dict(enumerate(Tag, start=REAL_FIRST_TAG)),
        first_location=REAL_FIRST_TAG + len(Tag),
    )


# Golden vectors


def test_the_example_of_the_model_documentation():
    grounding = parse_text(
        f"<grounding> An image of<phrase> a snowman</phrase>{OBJECT} warming himself by"
        f"<phrase> a fire</phrase>{OBJECT_2}."
    )
    assert grounding.caption == "An image of a snowman warming himself by a fire."
    assert grounding.to_huggingface() == [
        ("a snowman", (12, 21), [(0.390625, 0.046875, 0.984375, 0.828125)]),
        ("a fire", (41, 47), [(0.171875, 0.015625, 0.484375, 0.890625)]),
    ]
    assert grounding.issues == ()


# transformers, tests/models/kosmos2/test_modeling_kosmos2.py: snowman.jpg, "An image of".
PROMPT_IDS = [64012, 712, 1648, 9]
# fmt: off
GENERATED_IDS = [
    64007, 10, 43867, 64008, 64009, 64057, 64876, 64010, 5950, 597, 32,
    64007, 10, 646, 64008, 64009, 64018, 64924, 64010, 4, 2,
]
# fmt: on


def same_scores(token_ids):
    return TokenScores.uniform(len(token_ids), logprob=-1.0, mass=0.5)


def test_the_ids_that_the_real_model_generates():
    grounding = parse_tokens(real(), PROMPT_IDS, GENERATED_IDS, same_scores(GENERATED_IDS))
    assert grounding.caption == "An image of a snowman warming himself by a fire."
    assert grounding.to_huggingface() == [
        ("a snowman", (12, 21), [BOX]),
        ("a fire", (41, 47), [BOX_2]),
    ]
    assert (grounding.issues, grounding.prompt_chars) == ((), len("An image of"))


# Well-formed input: equal to Hugging Face

TEXT = st.text(
    st.one_of(
        st.sampled_from(" \t\u3000.,>aé象🐕👩‍👧𝔊"),
        st.characters(exclude_characters="<", exclude_categories=["Cs"]),
    ),
    max_size=12,
)
PHRASE = TEXT.filter(str.strip)
SPAN = st.tuples(st.integers(0, 31), st.integers(0, 31)).map(sorted)


def as_cells(columns, rows):
    return rows[0] * 32 + columns[0], rows[1] * 32 + columns[1]


CELLS = st.builds(as_cells, SPAN, SPAN)


def as_object(pairs):
    boxes = [f"<patch_index_{ul:04d}><patch_index_{lr:04d}>" for ul, lr in pairs]
    return f"<object>{AND.join(boxes)}</object>"


def as_entity(phrase, pairs):
    return f"<phrase>{phrase}</phrase>{as_object(pairs)}"


ENTITY = st.builds(as_entity, PHRASE, st.lists(CELLS, min_size=1, max_size=3))
HEADS = ["", "<grounding>", "<image>, junk .</image><grounding>", "<image></image>"]
MARKUP = st.builds(
    lambda head, parts: head + "".join(parts),
    st.sampled_from(HEADS),
    st.lists(st.one_of(TEXT, ENTITY), max_size=8),
)


@PROPERTY
@given(MARKUP)
def test_well_formed_markup_equals_hugging_face(markup):
    grounding = parse_text(markup)
    expected = processor().post_process_generation(markup)
    assert (grounding.caption, grounding.to_huggingface()) == expected
    assert grounding.issues == ()


SPECIAL_IDS = processor().tokenizer.all_special_ids  # not shown in a caption
TAG_IDS = {tag: token_id for token_id, tag in shapes().tags.items()}
LOCATION = shapes().first_location
TEXT_IDS = [i for i in range(LOCATION) if i not in (*SPECIAL_IDS, *shapes().tags)]
WORDS = st.sampled_from([i for i in TEXT_IDS if "<" not in shapes().pieces[i]])


def as_entity_ids(phrase, pairs):
    boxes = [[LOCATION + ul, LOCATION + lr] for ul, lr in pairs]
    ids = [TAG_IDS[Tag.PHRASE], *phrase, TAG_IDS[Tag.END_OF_PHRASE], TAG_IDS[Tag.OBJECT], *boxes[0]]
    for box in boxes[1:]:
        ids += [TAG_IDS[Tag.DELIMITER], *box]
    return [*ids, TAG_IDS[Tag.END_OF_OBJECT]]


WORD_IDS = st.lists(WORDS, max_size=4)
PHRASE_IDS = st.lists(WORDS, min_size=1, max_size=4).filter(
    lambda ids: "".join(shapes().pieces[i] for i in ids).strip()
)
ENTITY_IDS = st.builds(as_entity_ids, PHRASE_IDS, st.lists(CELLS, min_size=1, max_size=3))
TOKENS = st.lists(st.one_of(WORD_IDS, ENTITY_IDS), max_size=6).map(
    lambda parts: list(chain(*parts))
)


def parse(prompt_ids, token_ids):
    return parse_tokens(shapes(), prompt_ids, token_ids, same_scores(token_ids))


@PROPERTY
@given(prompt_ids=WORD_IDS, token_ids=TOKENS, end=st.sampled_from([[], [2], [2, 1, 1]]))
def test_well_formed_tokens_equal_hugging_face(prompt_ids, token_ids, end):
    head = [0, TAG_IDS[Tag.IMAGE], *range(4, 68), TAG_IDS[Tag.END_OF_IMAGE]]
    prompt_ids = [TAG_IDS[Tag.GROUNDING], *prompt_ids]
    text = processor().decode([*head, *prompt_ids, *token_ids, *end], skip_special_tokens=True)
    grounding = parse(prompt_ids, [*token_ids, *end])
    expected = processor().post_process_generation(text)
    assert (grounding.caption, grounding.to_huggingface()) == expected
    assert grounding.issues == ()


# Any input: nothing raised, no text lost, entities valid

MARKUP_PARTS = re.compile(
    "|".join(
        [
            "<patch_index_[0-9]{1,9}>",
            *map(re.escape, Tag),
            *processor().tokenizer.all_special_tokens,
        ]
    )
)
FRAGMENTS = [
    *(tag for tag in Tag if tag is not Tag.IMAGE),  # its head is cut: the next test but one
    *[UL, LR, UL_2, LR_2, "<patch_index_1024>", "<patch_index_99999999>", "<patch_index_44>"],
    *[
        "<patch_index_>",
        "<patch_index_١٢>",
        "<s>",
        "</s>",
        "<pad>",
        "<phrase",
        "</object",
        "<",
        ">",
    ],
    *["<foo\nbar>", " ", " a dog", "🐕", "\u3000"],
]
ANY_MARKUP = st.lists(st.one_of(st.sampled_from(FRAGMENTS), st.text(max_size=3)), max_size=25).map(
    "".join
)


def mutated(text, first, second):
    """Cuts text[first:second] out where first < second, repeats it otherwise."""
    return text[:first] + text[second:]


MUTATED_MARKUP = st.builds(
    mutated,
    st.lists(st.one_of(TEXT, ENTITY), max_size=5).map("".join),
    st.integers(0, 150),
    st.integers(0, 150),
)


def assert_valid(grounding):
    for entity in grounding.entities:
        assert grounding.caption[entity.start : entity.end] == entity.phrase
        assert entity.phrase.strip() == entity.phrase != ""
        assert entity.boxes
        for box in entity.boxes:
            assert 0 <= box.x1 < box.x2 <= 1
            assert 0 <= box.y1 < box.y2 <= 1
    assert 0 <= grounding.prompt_chars <= len(grounding.caption)


@PROPERTY
@given(st.one_of(ANY_MARKUP, MUTATED_MARKUP))
def test_any_markup_keeps_all_text_and_gives_valid_entities(markup):
    grounding = parse_text(markup)
    assert_valid(grounding)
    assert grounding.caption == MARKUP_PARTS.sub("", markup).strip()


ANY_TOKENS = st.lists(
    st.one_of(
        st.sampled_from(SPECIAL_IDS),
        st.sampled_from([*TAG_IDS.values()]),
        st.integers(LOCATION, LOCATION + 1023),
        st.sampled_from(TEXT_IDS),
    ),
    max_size=40,
)


@PROPERTY
@given(
    prompt_ids=ANY_TOKENS,
    token_ids=st.one_of(
        ANY_TOKENS,
        st.builds(mutated, TOKENS, st.integers(0, 30), st.integers(0, 30)),
    ),
)
def test_any_tokens_keep_all_text_and_give_valid_entities(prompt_ids, token_ids):
    grounding = parse(prompt_ids, token_ids)
    assert_valid(grounding)
    words = [i for i in [*prompt_ids, *token_ids] if i in TEXT_IDS]
    assert grounding.caption == "".join(shapes().pieces[i] for i in words).strip()


@PROPERTY
@given(ANY_TOKENS)
def test_tokens_and_their_decoded_text_give_the_same(token_ids):
    token_ids = [i for i in token_ids if i != TAG_IDS[Tag.IMAGE]]
    # A first word would lose its space in decoding.
    token_ids = [TAG_IDS[Tag.GROUNDING], *token_ids]
    of_tokens, of_text = parse(token_ids, []), parse_text(processor().decode(token_ids))
    assert of_text.caption == of_tokens.caption
    assert of_text.to_huggingface() == of_tokens.to_huggingface()


@pytest.mark.parametrize(
    "head", ["<image> junk</image>", "<s><image> junk</image>", " <s> <image></image>"]
)
def test_the_image_head_is_not_part_of_the_caption(head):
    assert parse_text(f"{head}<grounding> An image of").caption == "An image of"


def test_an_image_head_without_end_is_kept_as_text():
    grounding = parse_text("<image> a dog")
    assert (grounding.caption, grounding.issues) == ("a dog", (Issue.STRAY_TAG,))


def test_digits_without_end_are_text():
    markup = f"<patch_index_{'9' * 5000}>"
    assert parse_text(markup).caption == markup


# Where Hugging Face loses text, invents entities or gives impossible boxes

DOG = "a<phrase> dog</phrase>"
FOUND = [("dog", (2, 5), [BOX])]
# fmt: off
MALFORMED = [
    # name, markup, caption, entities, issues
    ("truncated in the phrase", "a<phrase> do", "a do", [], {Issue.UNCLOSED_PHRASE}),
    ("truncated after the phrase", DOG, "a dog", [], {Issue.PHRASE_WITHOUT_OBJECT}),
    ("truncated after the box", f"{DOG}<object>{UL}{LR}", "a dog", FOUND, {Issue.UNCLOSED_OBJECT}),
    ("truncated in the second box", f"{DOG}<object>{UL}{LR}{AND}{UL_2}", "a dog", FOUND,
        {Issue.UNCLOSED_OBJECT, Issue.MALFORMED_OBJECT}),
    ("one location", f"{DOG}<object>{UL}</object>.", "a dog.", [], {Issue.MALFORMED_OBJECT}),
    ("three locations", f"{DOG}<object>{UL}{LR}{LR}</object>.", "a dog.", [],
        {Issue.MALFORMED_OBJECT}),
    ("trailing delimiter", f"{DOG}<object>{UL}{LR}{AND}</object>.", "a dog.", FOUND,
        {Issue.MALFORMED_OBJECT}),
    ("leading delimiter", f"{DOG}<object>{AND}{UL}{LR}</object>.", "a dog.", FOUND,
        {Issue.MALFORMED_OBJECT}),
    ("empty object", f"{DOG}<object></object>.", "a dog.", [], {Issue.MALFORMED_OBJECT}),
    ("space in the object", f"{DOG}<object> {UL}{LR}</object>.", "a dog .", [],
        {Issue.UNCLOSED_OBJECT, Issue.MALFORMED_OBJECT, Issue.STRAY_LOCATION, Issue.STRAY_TAG}),
    ("object without phrase", f"a dog{OBJECT}.", "a dog.", [], {Issue.OBJECT_WITHOUT_PHRASE}),
    ("two objects after a phrase", f"{DOG}{OBJECT}{OBJECT_2}.", "a dog.", FOUND,
        {Issue.OBJECT_WITHOUT_PHRASE}),
    ("space before the object", f"{DOG} {OBJECT}.", "a dog .", [],
        {Issue.PHRASE_WITHOUT_OBJECT, Issue.OBJECT_WITHOUT_PHRASE}),
    ("phrase without object", f"{DOG} barks", "a dog barks", [], {Issue.PHRASE_WITHOUT_OBJECT}),
    ("nested phrase", f"<phrase> a man with<phrase> a hat</phrase>{OBJECT}{OBJECT_2}.",
        "a man with a hat.", [("a hat", (11, 16), [BOX])],
        {Issue.NESTED_PHRASE, Issue.OBJECT_WITHOUT_PHRASE}),
    ("nested phrase, both closed",
        f"<phrase> a man with<phrase> a hat</phrase>{OBJECT}</phrase>{OBJECT_2}.",
        "a man with a hat.", [("a hat", (11, 16), [BOX])],
        {Issue.NESTED_PHRASE, Issue.STRAY_TAG, Issue.OBJECT_WITHOUT_PHRASE}),
    ("object in an open phrase", f"a<phrase> dog{OBJECT}.", "a dog.", [],
        {Issue.UNCLOSED_PHRASE, Issue.OBJECT_WITHOUT_PHRASE}),
    ("empty phrase", f"a dog<phrase></phrase>{OBJECT}.", "a dog.", [], {Issue.EMPTY_PHRASE}),
    ("blank phrase", f"a dog<phrase> </phrase>{OBJECT}.", "a dog .", [], {Issue.EMPTY_PHRASE}),
    ("less-than sign", f"a < b;{DOG}{OBJECT}.", "a < b;a dog.", [("dog", (8, 11), [BOX])], set()),
    ("heart in the phrase", f"<phrase> a <3 dog</phrase>{OBJECT}.", "a <3 dog.",
        [("a <3 dog", (0, 8), [BOX])], set()),
    ("foreign tag over two lines", f"<foo\nbar>{DOG}{OBJECT}", "<foo\nbar>a dog",
        [("dog", (11, 14), [BOX])], set()),
    ("second corner to the left", f"{DOG}<object>{UL}<patch_index_0043></object>", "a dog", [],
        {Issue.INVERTED_BOX}),
    ("second corner above", f"{DOG}<object>{LR}{UL}</object>", "a dog", [], {Issue.INVERTED_BOX}),
    ("one box of two inverted", f"{DOG}<object>{LR}{UL}{AND}{UL}{LR}</object>", "a dog", FOUND,
        {Issue.INVERTED_BOX}),
    ("no such cell", f"{DOG}<object>{UL}<patch_index_1500></object>", "a dog", [],
        {Issue.LOCATION_OUT_OF_RANGE}),
    ("one box of two out of range", f"{DOG}<object>{UL}{LR}{AND}{UL}<patch_index_1024></object>",
        "a dog", FOUND, {Issue.LOCATION_OUT_OF_RANGE}),
    ("end of image in the caption", f"{DOG}{OBJECT}</image> and a cat", "a dog and a cat", FOUND,
        {Issue.STRAY_TAG}),
    ("tag in the phrase", f"a<phrase> big</line> dog</phrase>{OBJECT}", "a big dog",
        [("big dog", (2, 9), [BOX])], {Issue.STRAY_TAG}),
    ("location in the text", f"a{UL} dog{LR}", "a dog", [], {Issue.STRAY_LOCATION}),
    ("stray closing tags", "a</phrase> dog</object>", "a dog", [], {Issue.STRAY_TAG}),
]
# fmt: on


@pytest.mark.parametrize(
    ("markup", "caption", "entities", "issues"),
    [pytest.param(*row, id=name) for name, *row in MALFORMED],
)
def test_malformed_markup_keeps_its_text_and_names_the_issue(markup, caption, entities, issues):
    grounding = parse_text(markup)
    assert grounding.caption == caption
    assert grounding.to_huggingface() == entities
    assert set(grounding.issues) == issues
    assert len(grounding.issues) == len(issues)


def test_a_phrase_said_twice_is_two_entities():
    dog = f"<phrase> a dog</phrase>{OBJECT}"
    assert parse_text(f"{dog} and{dog}").to_huggingface() == [
        ("a dog", (0, 5), [BOX]),
        ("a dog", (10, 15), [BOX]),
    ]


def test_boxes_of_an_entity_keep_the_order_of_generation():
    markup = f"<phrase> dogs</phrase><object>{UL_2}{LR_2}{AND}{UL}{LR}</object>"
    (entity,) = parse_text(markup).entities
    assert [(box.ul, box.lr) for box in entity.boxes] == [(5, 911), (44, 863)]


# Scores and prompts: tokens as (id, log-probability, mass), values computed by hand

SNOWMAN = [(64007, -0.5), (10, -0.2), (43867, -0.4), (64008, -0.1)]
ONE_BOX = [(64009, -0.1), (64057, -1.0, 0.81), (64876, -3.0, 0.64), (64010, -0.1)]
TWO_BOXES = [*ONE_BOX[:3], (64011, -0.1), (64018, -2.0, 1.0), (64924, -2.5, 0.25), (64010, -0.1)]


def parse_scored(prompt_ids, tokens):
    scores = TokenScores(
        logprobs=tuple(t[1] for t in tokens),
        masses=tuple(t[2] if len(t) > 2 else math.nan for t in tokens),
    )
    return parse_tokens(real(), prompt_ids, [t[0] for t in tokens], scores)


def test_scores_come_from_the_tokens_of_each_box_and_phrase():
    (entity,) = parse_scored(PROMPT_IDS, [*SNOWMAN, *TWO_BOXES, (4, -9.0)]).entities
    assert entity.phrase_logprob == pytest.approx(-0.3)  # mean of a, snowman
    assert [box.score for box in entity.boxes] == pytest.approx([0.72, 0.5])
    assert [box.logp for box in entity.boxes] == pytest.approx([-2.0, -2.25])
    assert {box.source for box in entity.boxes} == {"model"}


def test_boxes_and_phrases_of_the_prompt_have_no_scores():
    it = [64012, 64007, 1264, 64008, 64009, 64057, 64876, 64010, 1357]
    grounding = parse_scored(it, [(12, -1.0), (5, -1.0), (4464, -1.0)])
    assert grounding.caption == "Two sit in the grass"
    assert grounding.caption[: grounding.prompt_chars] == "Two sit"
    (entity,) = grounding.entities
    (box,) = entity.boxes
    assert (entity.phrase_logprob, box.score, box.logp, box.source) == (None, None, None, "prompt")
    assert box.xyxy == BOX


def test_a_phrase_of_the_prompt_takes_boxes_of_the_model():
    (entity,) = parse_scored([64012, 64007, 10, 43867, 64008], ONE_BOX).entities
    (box,) = entity.boxes
    assert (entity.phrase, entity.phrase_logprob) == ("a snowman", None)
    assert (box.score, box.logp, box.source) == (pytest.approx(0.72), -2.0, "model")


def test_a_box_that_the_prompt_began_has_no_score():
    prompt = [64012, 64007, 10, 43867, 64008, 64009, 64057]
    (entity,) = parse_scored(prompt, ONE_BOX[2:]).entities
    assert [(box.xyxy, box.score, box.source) for box in entity.boxes] == [(BOX, None, "model")]


@pytest.mark.parametrize(
    ("prompt_ids", "generated", "chars"),
    [
        pytest.param([712, 1648, 9], [(10, -1.0), (646, -1.0)], 11, id="words"),
        pytest.param([], [(10, -1.0)], 0, id="no prompt"),
        pytest.param([64012], [(10, -1.0)], 0, id="only a tag"),
        pytest.param([712, 1648, 9], [], 11, id="nothing generated"),
    ],
)
def test_prompt_chars_count_the_prompt_in_the_stripped_caption(prompt_ids, generated, chars):
    assert parse_scored(prompt_ids, generated).prompt_chars == chars
