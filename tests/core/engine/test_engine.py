"""In float32 the engine says what Hugging Face says, whatever happens around a sequence."""

import random
from dataclasses import replace
from functools import cache, partial
from itertools import count, islice

import numpy as np
import pytest
import torch

from kosmos2_core.engine.model.decoder import TextDecoder
from kosmos2_core.engine.model.vision import VisionEncoder
from kosmos2_core.engine.requests import Request
from kosmos2_core.errors import InvalidRequest, NonFiniteLogits
from kosmos2_core.prompts.tasks import BRIEF, DETAILED
from tests.support.checkpoints import LARGER, SMALL
from tests.support.engine_models import (
    HEAD,
    answers,
    babbling_model,
    engine_of,
    ids_of,
    pixels,
    prompt_of,
    random_model,
    reference,
    reference_of,
    requests_of,
    shapes,
    tokens,
)

IMAGES = 8
FEW = 7  # more than there are slots
LIMIT = 32

brief = partial(prompt_of, shapes)
detailed = partial(prompt_of, shapes, DETAILED)


def expected(task=BRIEF, images=IMAGES):
    generations = reference_of(shapes, task, IMAGES, task.max_new_tokens)
    return {(number, 0): g.token_ids for number, g in enumerate(generations[:images])}


# Token for token


@pytest.mark.parametrize("backend", ["plain", "onednn"])
@pytest.mark.parametrize("task", [BRIEF, DETAILED], ids=lambda task: task.name)
def test_tokens_equal_hugging_face(task, backend):
    engine = engine_of(shapes(), slots=IMAGES, backend=backend)
    requests = requests_of(pixels(IMAGES), prompt_of(shapes, task))
    assert tokens(engine, requests) == expected(task)


@pytest.mark.parametrize(
    ("seed", "size", "ngram_size"),
    [
        (0, SMALL, 0),
        (1, LARGER, 3),
        pytest.param(0, SMALL, 3, marks=pytest.mark.slow),
        pytest.param(1, LARGER, 0, marks=pytest.mark.slow),
    ],
    ids=["small-0", "larger-3", "small-3", "larger-0"],
)
@pytest.mark.parametrize("backend", ["plain", "onednn"])
def test_tokens_equal_hugging_face_for_random_models(seed, size, ngram_size, backend):
    checkpoint = random_model(seed, ngram_size, size)
    prompt = prompt_of(random_model, max_new_tokens=LIMIT)
    found = tokens(engine_of(checkpoint, backend=backend), requests_of(pixels(FEW), prompt))
    generations = random_reference(seed, ngram_size, size)
    assert list(map(found.get, [(n, 0) for n in range(FEW)])) == [g.token_ids for g in generations]


@cache
def random_reference(seed, ngram_size, size):
    prompt = prompt_of(random_model, max_new_tokens=LIMIT)
    return reference(random_model(seed, ngram_size, size), pixels(FEW), prompt)


def test_an_n_gram_ban_changes_what_random_models_say():
    prompt = prompt_of(random_model, max_new_tokens=LIMIT)
    requests = requests_of(pixels(FEW), prompt)
    one, other = (tokens(engine_of(random_model(0, size)), requests) for size in (0, 3))
    assert one != other


@pytest.mark.parametrize("ngram_size", [pytest.param(0, marks=pytest.mark.slow), 3])
def test_prompts_of_any_lengths_equal_unbatched_hugging_face(ngram_size):
    checkpoint = random_model(0, ngram_size)
    words = ids_of(random_model, "<grounding> to and of the a in by this")[HEAD:]
    base = prompt_of(random_model, max_new_tokens=LIMIT)
    texts = [words[: 1 + n % 8] * (1 + n // 4) for n in range(FEW)]
    prompts = [replace(base, ids=base.ids[:HEAD] + text) for text in texts]
    assert len({len(prompt.ids) for prompt in prompts}) > 5
    requests = [
        Request(id=number, pixels=image, prompts=(prompt,))
        for number, (image, prompt) in enumerate(zip(pixels(FEW), prompts, strict=True))
    ]
    found = tokens(engine_of(checkpoint), requests)
    for number, prompt in enumerate(prompts):
        (alone,) = reference(checkpoint, pixels(FEW)[number : number + 1], prompt)
        assert found[number, 0] == alone.token_ids


def test_a_generated_padding_token_has_no_position_as_with_hugging_face():
    prompt = prompt_of(random_model, max_new_tokens=LIMIT)
    found = tokens(engine_of(babbling_model()), requests_of(pixels(FEW), prompt))
    generations = reference(babbling_model(), pixels(FEW), prompt)
    assert [found[n, 0] for n in range(FEW)] == [g.token_ids for g in generations]
    assert any(1 in g.token_ids[:-1] for g in generations)


@pytest.mark.parametrize(
    ("checkpoint_of", "limit"), [(shapes, 128), (random_model, LIMIT)], ids=["shapes", "random"]
)
def test_scores_equal_hugging_face(checkpoint_of, limit):
    prompt = prompt_of(checkpoint_of, max_new_tokens=limit)
    found = answers(engine_of(checkpoint_of()), requests_of(pixels(FEW), prompt))
    for number, generation in enumerate(reference(checkpoint_of(), pixels(FEW), prompt)):
        scores = found[number, 0].scores
        for of in ("logprobs", "masses"):
            ours, theirs = (getattr(x, of) for x in (scores, generation.scores))
            assert ours == pytest.approx(theirs, abs=1e-4, nan_ok=True)


# Nothing depends on the neighbours


@pytest.mark.parametrize(
    "options",
    [{"slots": 1}, {"slots": 3, "vision_batch": 2}, {"slots": 64, "vision_batch": 1}],
    ids=str,
)
def test_tokens_do_not_depend_on_slots_or_order(options):
    requests = requests_of(pixels(IMAGES)[:FEW], brief())
    random.Random(5).shuffle(requests)
    assert tokens(engine_of(shapes(), **options), requests) == expected(images=FEW)


@pytest.mark.parametrize("ngram_size", [0, 3])
def test_a_freed_slot_never_leaks(monkeypatch, ngram_size):
    """All that belongs to no live sequence is overwritten before every forward pass."""
    prompts = [prompt_of(random_model, max_new_tokens=n) for n in (5, 40, 17)]
    requests = [
        Request(id=n, pixels=image, prompts=(prompts[n % 3],))
        for n, image in enumerate(pixels(FEW))
    ]
    clean = tokens(engine_of(random_model(0, ngram_size)), requests)
    forward, step, poisoned = TextDecoder.__call__, TextDecoder.step, {"forward": 0, "step": 0}

    def poisoned_forward(self, cache, new, images=None):
        poison_free(cache, new.first_slot, [new.start] * len(new.ids))
        poisoned["forward"] += 1
        return forward(self, cache, new, images)

    def poisoned_step(self, cache, ids, starts, **options):
        poison_free(cache, 0, starts.tolist())
        poisoned["step"] += 1
        return step(self, cache, ids, starts, **options)

    monkeypatch.setattr(TextDecoder, "__call__", poisoned_forward)
    monkeypatch.setattr(TextDecoder, "step", poisoned_step)
    assert tokens(engine_of(random_model(0, ngram_size)), requests) == clean
    assert poisoned["forward"] > 1
    assert poisoned["step"] > LIMIT


def poison_free(cache, first_slot, starts):
    poison(cache.data[:, :, first_slot + len(starts) :])
    for slot, start in enumerate(starts, first_slot):
        poison(cache.data[:, :, slot, :, start:])


def poison(data):
    data.fill_(1e4)
    data[..., ::2] = -1e4


def test_an_engine_can_be_used_again_and_by_two_at_once():
    engine = engine_of(shapes())
    requests = requests_of(pixels(IMAGES)[:FEW], brief())
    next(engine.generate(requests))  # given up half way
    pairs = list(zip(engine.generate(requests), engine.generate(requests), strict=True))
    for completions in zip(*pairs, strict=True):
        assert {(c.request_id, 0): c.token_ids for c in completions} == expected(images=FEW)


# Several prompts about one image


@pytest.mark.parametrize("slots", [1, 3, 16])
def test_prompts_of_one_request_equal_separate_requests(slots):
    images = 4
    requests = requests_of(pixels(IMAGES)[:images], detailed(), brief())
    found = tokens(engine_of(shapes(), slots=slots), requests)
    for index, task in enumerate([DETAILED, BRIEF]):
        assert {n: found[n, index] for n in range(images)} == {
            n: ids for (n, _), ids in expected(task, images).items()
        }


def test_prompts_of_one_request_share_the_work_on_the_image(monkeypatch):
    seen = count_images(monkeypatch)
    prompts = [prompt(max_new_tokens=3) for prompt in (detailed, brief, brief)]
    requests = requests_of(pixels(IMAGES)[:FEW], *prompts)
    assert len(answers(engine_of(shapes()), requests)) == 3 * FEW
    assert sum(seen) == FEW


def count_images(monkeypatch):
    seen, look = [], VisionEncoder.__call__

    def counting(self, images):
        seen.append(len(images))
        return look(self, images)

    monkeypatch.setattr(VisionEncoder, "__call__", counting)
    return seen


@pytest.mark.parametrize("first", [(brief(),), (detailed(), brief())], ids=["one", "two"])
def test_a_follow_up_is_made_from_the_answers_and_shares_the_image(monkeypatch, first):
    seen, told = count_images(monkeypatch), {}

    def follow_up(completions):
        told[completions[0].request_id] = [c.task for c in completions]
        answer = completions[-1].token_ids[:4]
        return (replace(brief(), task="more", ids=brief().ids + answer),)

    requests = requests_of(pixels(IMAGES)[:FEW], *first, follow_up=follow_up)
    found = answers(engine_of(shapes()), requests)
    assert told == {number: [prompt.task for prompt in first] for number in range(FEW)}
    assert sum(seen) == FEW
    for number in range(FEW):
        more, answer = found[number, len(first)], found[number, len(first) - 1]
        assert more.task == "more"
        assert answer.token_ids[:4] + more.token_ids == answer.token_ids  # it went on as before


def test_a_follow_up_goes_before_other_images():
    one = brief(max_new_tokens=1)
    requests = requests_of(pixels(IMAGES)[:2], one, one, one, follow_up=lambda completions: (one,))
    order = [(c.request_id, c.index) for c in engine_of(shapes(), slots=2).generate(requests)]
    assert order.index((0, 3)) < order.index((1, 1))


def test_a_follow_up_may_ask_nothing():
    requests = requests_of(pixels(IMAGES)[:FEW], brief(), follow_up=lambda completions: ())
    assert tokens(engine_of(shapes()), requests) == expected(images=FEW)


# Reading


@pytest.mark.parametrize(("slots", "vision_batch"), [(1, 1), (4, 2), (4, 8)])
def test_requests_are_read_lazily(slots, vision_batch):
    read, short = 0, brief(max_new_tokens=3)

    def endless():
        nonlocal read
        for number in count():
            read += 1
            yield Request(id=number, pixels=pixels(IMAGES)[number % 8], prompts=(short,))

    completions = engine_of(shapes(), slots=slots, vision_batch=vision_batch).generate(endless())
    assert read == 0
    for done, completion in enumerate(islice(completions, 20), 1):
        assert completion.request_id < read <= done + slots + min(vision_batch, slots)


def test_while_none_come_the_engine_goes_on_with_those_it_has():
    requests, answered = requests_of(pixels(IMAGES)[:FEW], brief()), 0

    def trickle():
        for number, request in enumerate(requests):
            yield request
            yield None
            while number % 3 == 2 and answered <= number:
                yield None

    found = {}
    for completion in engine_of(shapes()).generate(trickle()):
        answered += 1
        found[completion.request_id, 0] = completion.token_ids
    assert found == expected(images=FEW)


def test_no_requests_give_no_completions():
    assert list(engine_of(shapes()).generate([])) == []


@pytest.mark.parametrize("options", [{"slots": 0}, {"vision_batch": 0}], ids=str)
def test_slots_and_vision_batch_are_at_least_one(options):
    with pytest.raises(ValueError, match="must be at least 1"):
        engine_of(shapes(), **options)


# Where an answer ends


def first_answer():
    return expected(images=1)[0, 0]


@pytest.mark.parametrize(
    ("options_of", "length_of", "reason"),
    [
        pytest.param(lambda a: {}, len, "eos", id="end of sequence"),
        pytest.param(lambda a: {"max_new_tokens": 5}, lambda a: 5, "length", id="limit"),
        pytest.param(lambda a: {"max_new_tokens": 1}, lambda a: 1, "length", id="limit of one"),
        pytest.param(lambda a: {"max_new_tokens": len(a)}, len, "eos", id="end at the limit"),
        pytest.param(
            lambda a: {"stop_ids": (a[9], a[6])}, lambda a: a.index(a[6]) + 1, "stop", id="stop"
        ),
    ],
)
def test_an_answer_ends_where_its_prompt_says(options_of, length_of, reason):
    answer = first_answer()
    prompt = brief(**options_of(answer))
    (completion,) = engine_of(shapes()).generate(requests_of(pixels(IMAGES)[:1], prompt))
    assert completion.token_ids == answer[: length_of(answer)]
    assert completion.finish_reason == reason
    assert len(completion.scores.logprobs) == len(completion.token_ids)


def test_the_end_of_sequence_can_be_ignored():
    answer = first_answer()
    limit = len(answer) + 6
    prompt = brief(max_new_tokens=limit, ignore_eos=True)
    (completion,) = engine_of(shapes()).generate(requests_of(pixels(IMAGES)[:1], prompt))
    assert completion.token_ids[: len(answer)] == answer
    assert (len(completion.token_ids), completion.finish_reason) == (limit, "length")


# What cannot be answered

BAD_PROMPTS = {
    "empty": {"ids": ()},
    "head only": {"ids": brief().ids[:HEAD]},
    "no head": {"ids": brief().ids[HEAD:] * 20},
    "padding": {"ids": (*brief().ids, 1)},
    "outside the vocabulary": {"ids": (*brief().ids, 70_000)},
    "negative": {"ids": (*brief().ids, -1)},
    "longer than the positions": {"ids": brief().ids + (5,) * 2000},
    "no room to answer": {"max_new_tokens": 2000},
    "no tokens": {"max_new_tokens": 0},
}


@pytest.mark.parametrize("wrong", BAD_PROMPTS.values(), ids=BAD_PROMPTS)
def test_a_bad_prompt_is_an_error_of_its_own(wrong):
    requests = requests_of(pixels(4), brief(max_new_tokens=3))
    good = tokens(engine_of(shapes()), requests)
    bad = replace(brief(), **wrong)
    requests[1] = replace(requests[1], prompts=(bad,))
    requests[2] = replace(requests[2], prompts=(bad, *requests[2].prompts))
    found = answers(engine_of(shapes(), length=None), requests)
    for key in [(1, 0), (2, 0)]:
        completion = found.pop(key)
        assert isinstance(completion.error, InvalidRequest)
        assert (completion.finish_reason, completion.token_ids) == ("error", ())
    found[2, 0] = found.pop((2, 1))
    del good[1, 0]
    assert {key: c.token_ids for key, c in found.items()} == good


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param({"pixels": np.zeros((3, 224, 224), np.float32)}, id="float"),
        pytest.param({"pixels": np.zeros((224, 224, 3), np.uint8)}, id="channels last"),
        pytest.param({"prompts": ()}, id="no prompts"),
    ],
)
def test_a_bad_request_is_an_error_of_its_own(wrong):
    requests = requests_of(pixels(3), brief(max_new_tokens=3))
    good = tokens(engine_of(shapes()), requests)
    requests[1] = replace(requests[1], **wrong)
    found = answers(engine_of(shapes()), requests)
    assert isinstance(found.pop((1, 0)).error, InvalidRequest)
    del good[1, 0]
    assert {key: c.token_ids for key, c in found.items()} == good


def test_bad_requests_without_end_are_handed_out_as_they_come():
    bad = (Request(id=n, pixels=np.zeros(3), prompts=(brief(),)) for n in count())
    assert len(list(islice(engine_of(shapes()).generate(bad), 100))) == 100


@pytest.mark.parametrize(
    ("more", "slots"), [((), 1), ((detailed(),), 4)], ids=["one prompt", "two prompts"]
)
def test_numbers_that_are_not_finite_cost_the_neighbours_nothing(monkeypatch, more, slots):
    look, seen = VisionEncoder.__call__, count()

    def broken(self, images):
        features = look(self, images)
        for row in features:
            if next(seen) == 1:
                row.fill_(torch.nan)
        return features

    monkeypatch.setattr(VisionEncoder, "__call__", broken)
    requests = requests_of(pixels(IMAGES)[:FEW], brief(), *more)
    longer = replace(brief(), ids=brief().ids + (5,) * 7)  # who follows in its slot is shorter
    requests[1] = replace(requests[1], prompts=(longer, *more))
    found = answers(engine_of(shapes(), slots=slots), requests)
    for key, completion in found.items():
        assert isinstance(completion.error, NonFiniteLogits) == (key[0] == 1)
    one = {key: c.token_ids for key, c in found.items() if key[1] == 0 and key[0] != 1}
    assert one == {key: ids for key, ids in expected(images=FEW).items() if key != (1, 0)}
