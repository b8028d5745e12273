"""The oracle is Hugging Face: its processor, and `generate` for one image at a time."""

import io
import math
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import product

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from torch.nn.functional import pad
from transformers import AutoProcessor, Kosmos2ForConditionalGeneration

from kosmos2_core.annotation import MARKUP_ISSUES, Issue
from kosmos2_core.annotator import Annotator
from kosmos2_core.checkpoint.files import SHAPES_DIRECTORY
from kosmos2_core.comparison.oracle import Oracle, refuse_causal_resampler
from kosmos2_core.comparison.reference import with_reference_model
from kosmos2_core.errors import (
    ImageError,
    InvalidRequest,
    NonFiniteLogits,
    UnknownTask,
)
from kosmos2_core.generation import Generation
from kosmos2_core.grounding.parser import parse_text
from kosmos2_core.images.decode import square_pixels
from kosmos2_core.prompts.tasks import BRIEF, DETAILED, Task
from kosmos2_core.shapes.world.shards import make_scene
from kosmos2_core.shared_annotator import SharedAnnotator
from tests.support.checkpoints import random_checkpoint
from tests.support.engine_models import generate

IMAGES = 8


@cache
def images():
    """Scenes of the model's own size, so that no resize differs by a rounding."""
    scenes = (make_scene(7, index, width=224, height=224) for index in range(IMAGES))
    return [Image.fromarray(scene.pixels) for scene in scenes]


@cache
def pixels():
    return np.stack([square_pixels(image) for image in images()])


@cache
def annotator(slots=16, no_repeat_ngram_size=None):
    return Annotator.from_pretrained(
        "shapes",
        device="cpu",
        generation=Generation(no_repeat_ngram_size=no_repeat_ngram_size, slots=slots),
    )


@cache
def annotations(task="brief"):
    return list(annotator().annotate(images(), task))


@pytest.fixture(scope="module")
def real_layout(tmp_path_factory):
    directory = random_checkpoint(tmp_path_factory.mktemp("real"))
    return Annotator.from_pretrained(str(directory), device="cpu", keep_model=True)


# Hugging Face's own path


@cache
def processor():
    return AutoProcessor.from_pretrained(SHAPES_DIRECTORY)


@cache
def model():
    found = Kosmos2ForConditionalGeneration.from_pretrained(SHAPES_DIRECTORY, dtype=torch.float32)
    refuse_causal_resampler(found)
    return found.eval()


def inputs(image, task):
    return processor()(text=task.prompt, images=image, return_tensors="pt")


def reference(image, task, **options):
    """(generated ids, caption, entities) as the model's documentation gets them."""
    batch = inputs(image, task)
    ids = model().generate(**batch, max_new_tokens=task.max_new_tokens, **options)
    (text,) = processor().batch_decode(ids, skip_special_tokens=True)
    new_ids = ids[0, batch["input_ids"].shape[1] :].tolist()
    return tuple(new_ids), *processor().post_process_generation(text)


@torch.no_grad()
def forward_logprobs(model, batch, token_ids):
    """float32 [T, V] of an answer by one plain forward pass over prompt and answer."""
    answer = torch.tensor([token_ids])
    input_ids = torch.cat([batch["input_ids"], answer], dim=1)
    logits = model(
        pixel_values=batch["pixel_values"],
        input_ids=input_ids,
        attention_mask=torch.ones_like(input_ids),
        image_embeds_position_mask=pad(batch["image_embeds_position_mask"], (0, len(token_ids))),
    ).logits
    return logits[0, -len(token_ids) - 1 : -1].log_softmax(-1)


def mass_around(probabilities, cell):
    """Over the 3x3 cells around `cell`, those outside the grid left out."""
    row, column = divmod(cell, 32)
    rows, columns = range(row - 1, row + 2), range(column - 1, column + 2)
    near = [r * 32 + c for r, c in product(rows, columns) if 0 <= r < 32 and 0 <= c < 32]
    return sum(probabilities[cell].item() for cell in near)


def on_edge(cell):
    return not (0 < cell // 32 < 31 and 0 < cell % 32 < 31)


@pytest.mark.parametrize("task", [BRIEF, DETAILED], ids=lambda task: task.name)
@pytest.mark.parametrize("index", range(IMAGES))
def test_annotations_equal_hugging_face_generate(task, index):
    annotation = annotations(task.name)[index]
    token_ids, caption, entities = reference(images()[index], task)
    assert annotation.token_ids == token_ids
    assert (annotation.caption, annotation.to_huggingface()) == (caption, entities)


@pytest.mark.parametrize("task", [BRIEF, DETAILED], ids=lambda task: task.name)
@pytest.mark.parametrize("index", range(0, IMAGES, 3))
def test_scores_equal_a_plain_forward_pass(task, index):
    annotation = annotations(task.name)[index]
    token_ids = annotation.token_ids
    logprobs = forward_logprobs(model(), inputs(images()[index], task), token_ids)
    chosen = [row[i].item() for row, i in zip(logprobs, token_ids, strict=True)]
    assert annotation.token_logprobs == pytest.approx(chosen, abs=1e-4)

    first = annotator().checkpoint.vocabulary.first_location
    corners = [at for at, i in enumerate(token_ids) if i >= first]
    masses = [mass_around(logprobs[at, first:].exp(), token_ids[at] - first) for at in corners]
    boxes = [box for entity in annotation.entities for box in entity.boxes]
    assert [cell for box in boxes for cell in (box.ul, box.lr)] == [
        token_ids[at] - first for at in corners
    ]
    scores = [math.sqrt(a * b) for a, b in zip(masses[::2], masses[1::2], strict=True)]
    logps = [(chosen[a] + chosen[b]) / 2 for a, b in zip(corners[::2], corners[1::2], strict=True)]
    assert [box.score for box in boxes] == pytest.approx(scores, abs=1e-4)
    assert [box.logp for box in boxes] == pytest.approx(logps, abs=1e-4)


def test_scores_are_probabilities():
    entities = [e for annotation in annotations() for e in annotation.entities]
    boxes = [box for entity in entities for box in entity.boxes]
    assert len(boxes) >= IMAGES
    assert all(0 <= box.score <= 1 and box.logp <= 0 for box in boxes)
    assert all(entity.phrase_logprob <= 0 for entity in entities)
    assert all(p <= 0 for annotation in annotations() for p in annotation.token_logprobs)


@pytest.mark.parametrize("slots", [1, 3])
def test_annotations_do_not_depend_on_the_number_of_slots(slots):
    for one, other in zip(annotator(slots).annotate(images()), annotations(), strict=True):
        assert one.token_ids == other.token_ids
        assert one.token_logprobs == pytest.approx(other.token_logprobs, abs=1e-4)


def test_all_tasks_of_an_image_come_together_in_order():
    together = annotator(slots=5).annotate_pixels(pixels(), [DETAILED, BRIEF])
    assert [[a.task for a in of_image] for of_image in together] == [["detailed", "brief"]] * IMAGES
    expected = list(zip(annotations("detailed"), annotations("brief"), strict=True))
    assert [[a.token_ids for a in of_image] for of_image in together] == [
        [a.token_ids for a in of_image] for of_image in expected
    ]


def test_an_annotation_says_what_was_asked():
    annotation = annotations("detailed")[0]
    assert (annotation.task, annotation.prompt) == ("detailed", DETAILED.prompt)
    assert annotation.caption[: annotation.prompt_chars] == "Describe this image in detail:"
    assert (annotation.finish_reason, annotation.token_ids[-1]) == ("eos", 2)
    assert annotation.issues == ()
    assert len(annotation.token_ids) == len(annotation.token_logprobs)


# Reading


def test_images_are_read_lazily():
    read = []
    source = (read.append(index) or image for index, image in enumerate(images()))
    found = annotator(slots=3).annotate(source)
    assert read == []
    next(found)
    assert read in ([0, 1, 2], [0, 1, 2, 3, 4, 5])  # the slots, and as many ahead
    assert len(list(found)) == IMAGES - 1


def test_no_images_give_no_annotations():
    assert list(annotator().annotate([])) == []


def test_an_image_may_be_a_pil_image_bytes_or_a_path(tmp_path):
    file = io.BytesIO()
    images()[0].save(file, "PNG")
    path = tmp_path / "scene.png"
    path.write_bytes(file.getvalue())
    forms = [images()[0], file.getvalue(), path, str(path)]
    found = list(annotator().annotate(forms))
    assert [annotation.token_ids for annotation in found] == [annotations()[0].token_ids] * 4


@pytest.mark.parametrize("data", [b"", b"no image", b"\xff\xd8\xff\xe0 broken"])
def test_an_image_that_cannot_be_decoded_is_an_image_error(data):
    with pytest.raises(ImageError):
        list(annotator().annotate([images()[0], data]))


def test_an_unknown_task_is_refused():
    with pytest.raises(UnknownTask):
        list(annotator().annotate(images(), "terse"))


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(np.zeros((1, 3, 224, 224), np.float32), id="float"),
        pytest.param(np.zeros((1, 224, 224, 3), np.uint8), id="channels last"),
        pytest.param(np.zeros((1, 3, 256, 256), np.uint8), id="another size"),
        pytest.param(np.zeros((3, 224, 224), np.uint8), id="no batch"),
    ],
)
def test_pixels_of_another_kind_are_refused(wrong):
    with pytest.raises(ValueError, match="expected uint8"):
        annotator().annotate_pixels(wrong, [BRIEF])


# Limits


@pytest.mark.parametrize("limit", [1, 5, 8])
def test_the_token_limit_is_kept_and_named(limit):
    task = Task(name="short", prompt=BRIEF.prompt, max_new_tokens=limit)
    for annotation, whole in zip(annotator().annotate(images(), task), annotations(), strict=True):
        assert annotation.token_ids == whole.token_ids[:limit]
        assert annotation.finish_reason == "length"
        assert annotation.issues[0] is Issue.TRUNCATED


def test_an_answer_that_ends_at_the_limit_is_not_truncated():
    whole = annotations()[0]
    task = Task(name="exact", prompt=BRIEF.prompt, max_new_tokens=len(whole.token_ids))
    (annotation,) = annotator().annotate(images()[:1], task)
    assert (annotation.finish_reason, annotation.issues) == ("eos", ())
    assert annotation.token_ids == whole.token_ids


def trigrams(token_ids):
    return list(zip(token_ids, token_ids[1:], token_ids[2:], strict=False))


def all_different(items):
    return len(items) == len(set(items))


def test_no_repeat_ngram_size_equals_hugging_face_and_matters():
    crowded = [
        Image.fromarray(make_scene(8, i, width=224, height=224, objects=(4, 4)).pixels)
        for i in range(4)
    ]
    banned = list(annotator(no_repeat_ngram_size=3).annotate(crowded))
    free = list(annotator().annotate(crowded))
    for image, annotation in zip(crowded, banned, strict=True):
        token_ids, *_ = reference(image, BRIEF, no_repeat_ngram_size=3)
        assert annotation.token_ids == token_ids
        assert all_different(trigrams(token_ids))
    assert [a.token_ids for a in banned] != [a.token_ids for a in free]
    assert any(Issue.NGRAM_SUPPRESSED in a.issues for a in banned)
    assert not any(Issue.NGRAM_SUPPRESSED in a.issues for a in free)


def test_probabilities_that_are_not_finite_are_an_error():
    broken = Annotator.from_pretrained("shapes", device="cpu")
    with torch.no_grad():
        broken.checkpoint.model.text_model.model.embed_tokens.weight.fill_(torch.inf)
    with pytest.raises(NonFiniteLogits):
        list(broken.annotate(images()[:1]))


def test_an_answer_that_fails_is_an_error_in_its_place():
    task = Task(name="endless", prompt=BRIEF.prompt, max_new_tokens=10_000)
    for of_image, whole in zip(
        annotator().answer_pixels(pixels(), [task, BRIEF]), annotations(), strict=True
    ):
        error, annotation = of_image
        assert isinstance(error, InvalidRequest)
        assert annotation.token_ids == whole.token_ids
    with pytest.raises(InvalidRequest, match="positions"):
        annotator().annotate_pixels(pixels()[:1], [task])


def test_weights_that_an_engine_took_are_not_there_for_a_second_one():
    annotations()  # makes the engine of `annotator()`
    with pytest.raises(ValueError, match="keep_model=True"):
        _ = Annotator(annotator().checkpoint).engine


def test_a_shared_annotator_answers_several_threads_at_once():
    shared = SharedAnnotator(annotator(slots=5))
    halves = [pixels()[: IMAGES // 2], pixels()[IMAGES // 2 :]]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda half: shared.answer_pixels(half, [DETAILED, BRIEF]), halves))
    assert [*found[0], *found[1]] == annotator().annotate_pixels(pixels(), [DETAILED, BRIEF])


# The layout of the real model, with random weights: whatever it says is parsed


def test_photographs_get_valid_entities_from_any_model(real_layout):
    photographs = [Image.fromarray(image) for image in load_sample_images().images]
    found = list(real_layout.annotate(photographs))
    assert {Issue.STRAY_LOCATION, Issue.STRAY_TAG} <= {i for a in found for i in a.issues}
    for annotation in found:
        assert annotation.caption.startswith("An image of")
        assert all_different(trigrams(annotation.token_ids))  # its n-gram ban, by default
        for entity in annotation.entities:
            assert annotation.caption[entity.start : entity.end] == entity.phrase.strip() != ""


def test_the_mass_around_a_location_is_clipped_at_the_edge_of_the_grid(real_layout):
    checkpoint = with_reference_model(real_layout.checkpoint)
    first, location = checkpoint.vocabulary.first_location, checkpoint.vocabulary.location
    theirs = AutoProcessor.from_pretrained(checkpoint.provenance.id)
    batch = theirs(text=BRIEF.prompt, images=images()[0], return_tensors="pt")
    embeds = Oracle(checkpoint).embed_images(pixels()[:1])
    (generation,) = generate(
        checkpoint, embeds, batch["input_ids"][0].tolist(), BRIEF.max_new_tokens
    )
    logprobs = forward_logprobs(checkpoint.model, batch, generation.token_ids)
    cells = [location(token_id) for token_id in generation.token_ids]
    assert any(cell is not None and on_edge(cell) for cell in cells)
    for cell, mass, of_token in zip(cells, generation.scores.masses, logprobs, strict=True):
        expected = math.nan if cell is None else mass_around(of_token[first:].exp(), cell)
        assert mass == pytest.approx(expected, abs=1e-4, nan_ok=True)


def test_a_prompt_with_a_box_keeps_its_box(real_layout):
    prompt = (
        "<grounding><phrase> a snowman</phrase>"
        "<object><patch_index_0044><patch_index_0863></object>"
    )
    task = Task(name="about", prompt=prompt, max_new_tokens=4)
    (annotation,) = real_layout.annotate([images()[0]], task)
    assert annotation.caption[: annotation.prompt_chars] == "a snowman"
    assert annotation.to_huggingface()[:1] == parse_text(prompt).to_huggingface()
    (box,) = annotation.entities[0].boxes
    assert (box.ul, box.lr, box.source, box.score) == (44, 863, "prompt", None)


def test_the_strict_grammar_leaves_no_malformed_markup(real_layout):
    task = Task(name="short", prompt=BRIEF.prompt, max_new_tokens=40)
    free = list(real_layout.annotate(images()[:4], task))
    strict = Annotator(real_layout.checkpoint, Generation(grammar="strict"))
    found = list(strict.annotate(images()[:4], task))
    assert MARKUP_ISSUES & {i for a in free for i in a.issues}
    assert not MARKUP_ISSUES & {i for a in found for i in a.issues}
    assert not any(Issue.NGRAM_SUPPRESSED in a.issues for a in found)
    assert any(Issue.GRAMMAR_ENFORCED in a.issues for a in found)
    assert any(a.entities for a in found)
