import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import AutoProcessor

from kosmos2_core.checkpoint.files import SHAPES_DIRECTORY
from kosmos2_core.checkpoint.load import load_checkpoint
from kosmos2_core.errors import AnnotationError, InvalidField, MissingField, PromptMarkup
from kosmos2_core.grounding.grid import box_of
from kosmos2_core.grounding.vocabulary import Tag
from kosmos2_core.prompts.custom import own_task
from kosmos2_core.prompts.encoder import PromptEncoder
from kosmos2_core.prompts.tasks import (
    ASK,
    ASK_GROUNDED,
    BRIEF,
    DESCRIBE,
    DETAILED,
    GROUND,
    PLAIN,
    PLAIN_DETAILED,
    TASKS,
)
from kosmos2_core.prompts.text import MAX_CHARACTERS, prompt_text

SNOWMAN, FIRE = box_of(44, 863), box_of(5, 911)

# Those of the model's documentation, to the letter.
DOCUMENTED = [
    (BRIEF, {}, "<grounding> An image of"),
    (DETAILED, {}, "<grounding> Describe this image in detail:"),
    (PLAIN, {}, "An image of"),
    (PLAIN_DETAILED, {}, "Describe this image in detail:"),
    (GROUND, {"phrase": "a snowman"}, "<grounding><phrase> a snowman</phrase>"),
    (
        GROUND,
        {"phrase": "a snowman next to a fire"},
        "<grounding><phrase> a snowman next to a fire</phrase>",
    ),
    (
        DESCRIBE,
        {"box": SNOWMAN},
        "<grounding><phrase> It</phrase><object><patch_index_0044><patch_index_0863></object> is",
    ),
    (
        ASK_GROUNDED,
        {"question": "What is special about this image?"},
        "<grounding> Question: What is special about this image? Answer:",
    ),
    (
        ASK_GROUNDED,
        {"question": "Where is the fire next to?", "phrase": "the fire", "box": FIRE},
        "<grounding> Question: Where is<phrase> the fire</phrase><object><patch_index_0005>"
        "<patch_index_0911></object> next to? Answer:",
    ),
    (ASK, {"question": "What is it?"}, "Question: What is it? Answer:"),
]


@pytest.fixture(scope="module")
def checkpoint():
    return load_checkpoint("shapes", device="cpu")


@pytest.fixture(scope="module")
def encoder(checkpoint):
    return PromptEncoder(checkpoint)


@pytest.fixture(scope="module")
def processor():
    return AutoProcessor.from_pretrained(SHAPES_DIRECTORY)


@pytest.mark.parametrize(("task", "fields", "text"), DOCUMENTED)
def test_prompts_are_those_of_the_documentation(task, fields, text):
    assert prompt_text(task, fields) == text


@pytest.mark.parametrize(("task", "fields", "text"), DOCUMENTED)
def test_ids_are_those_of_the_processor(processor, encoder, task, fields, text):
    theirs = processor(text=text, images=Image.new("RGB", (224, 224)))["input_ids"]
    assert encoder.encode(task, fields).prompt.ids == tuple(theirs)


def test_several_boxes_are_delimited():
    text = prompt_text(DESCRIBE, {"box": [SNOWMAN, list(FIRE)]})
    assert text.count("<patch_index_") == 4
    assert "<patch_index_0863></delimiter_of_multi_objects/><patch_index_0005>" in text


def test_fields_that_a_task_does_not_know_are_ignored():
    assert prompt_text(BRIEF, {"phrase": "<object>"}) == BRIEF.prompt


@pytest.mark.parametrize(
    ("task", "fields", "error", "message"),
    [
        (GROUND, {}, MissingField, "task ground needs the field 'phrase'"),
        (GROUND, {"phrase": None}, MissingField, "task ground needs the field 'phrase'"),
        (DESCRIBE, {"phrase": "x"}, MissingField, "task describe needs the field 'box'"),
        (GROUND, {"phrase": 3}, InvalidField, "must be text, not 3"),
        (GROUND, {"phrase": "  "}, InvalidField, "must be text"),
        (GROUND, {"phrase": "x" * (MAX_CHARACTERS + 1)}, InvalidField, "2001 characters"),
        (DESCRIBE, {"box": "0 0 1 1"}, InvalidField, "x1, y1, x2, y2"),
        (DESCRIBE, {"box": []}, InvalidField, "x1, y1, x2, y2"),
        (DESCRIBE, {"box": [0, 0, 1]}, InvalidField, "x1, y1, x2, y2"),
        (DESCRIBE, {"box": [0.5, 0, 0.5, 1]}, InvalidField, "0 <= x1 < x2 <= 1"),
        (DESCRIBE, {"box": [0, 0, 1.2, 1]}, InvalidField, "0 <= x1 < x2 <= 1"),
        (DESCRIBE, {"box": [0, 0, float("nan"), 1]}, InvalidField, "0 <= x1 < x2 <= 1"),
        (DESCRIBE, {"box": [0, 0, 10**400, 1]}, InvalidField, "0 <= x1 < x2 <= 1"),
        (DESCRIBE, {"box": [False, 0, True, 1]}, InvalidField, "x1, y1, x2, y2"),
        (DESCRIBE, {"box": [[0, 0, 1, 1], [1, 1, 0, 0]]}, InvalidField, "x1, y1, x2, y2"),
        (DESCRIBE, {"box": [[0, 0, 1, 1]] * 65}, InvalidField, "65 boxes"),
        (ASK, {"question": "What?", "box": FIRE}, MissingField, "'box' but not 'phrase'"),
        (ASK, {"question": "A?", "phrase": "B", "box": FIRE}, InvalidField, "exactly once"),
        (ASK, {"question": "A A?", "phrase": "A", "box": FIRE}, InvalidField, "exactly once"),
    ],
)
def test_fields_that_make_no_prompt_are_named(task, fields, error, message):
    with pytest.raises(error, match=message) as caught:
        prompt_text(task, fields)
    assert isinstance(caught.value, AnnotationError)


@pytest.mark.parametrize(
    "markup", [*map(str, Tag), "<patch_index_0000>", "<patch_index_7>", "</s>", "<s>", "<pad>"]
)
@pytest.mark.parametrize("text", ["{}", "a {} dog", "a dog{}"])
def test_markup_in_a_text_is_refused(markup, text):
    with pytest.raises(PromptMarkup, match="the model's own markup"):
        prompt_text(GROUND, {"phrase": text.format(markup)})


@pytest.mark.parametrize(
    ("prompt", "fields"),
    [
        ("{a}{b} is", {"a": "<phra", "b": "se>"}),
        ("<{a}> is", {"a": "object"}),
        ("<patch_index_{a}> is", {"a": "0044"}),
        ("<patch_index_{a:number}> is", {"a": 1000}),
    ],
)
def test_texts_make_no_markup_together_either(prompt, fields):
    task = own_task(
        name="mine", prompt=prompt, grounded=True, max_new_tokens=8, ends_with_boxes=False
    )
    with pytest.raises(PromptMarkup, match="together"):
        prompt_text(task, fields)


@given(phrase=st.text(st.sampled_from("<>/phraseobjct_0123 {}!\u2581\uff1c\ud7ff🦊"), min_size=1))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_no_text_ever_becomes_a_tag(checkpoint, encoder, phrase):
    try:
        ids = encoder.encode(GROUND, {"phrase": phrase}).text_ids
    except AnnotationError:
        return
    vocabulary = checkpoint.vocabulary
    tags = [vocabulary.tags[i] for i in ids if i in vocabulary.tags]
    assert tags == [Tag.GROUNDING, Tag.PHRASE, Tag.END_OF_PHRASE]
    assert not any(vocabulary.location(i) is not None for i in ids)


def test_tasks_are_told_apart_by_their_names():
    assert list(TASKS) == [task.name for task in TASKS.values()]
