"""On CUDA the next step starts before the host has read the tokens of the one before. Forced
here on the CPU: the answers stay what they are, at the price of one row of a step each."""

from dataclasses import replace
from functools import partial

import pytest
import torch

from kosmos2_core.engine.model.decoder import TextDecoder
from kosmos2_core.engine.model.vision import VisionEncoder
from kosmos2_core.engine.requests import Request
from kosmos2_core.engine.sampling.sampler import Choices
from kosmos2_core.errors import NonFiniteLogits
from kosmos2_core.prompts.tasks import DETAILED
from tests.support.engine_models import (
    answers,
    count_steps,
    engine_of,
    pixels,
    prompt_of,
    random_model,
    requests_of,
    shapes,
)

IMAGES = 7

brief = partial(prompt_of, shapes)
detailed = partial(prompt_of, shapes, DETAILED)


def alike(requests, checkpoint=None, **options):
    """The answers, which must be the same either way, scores and reasons included."""
    now, late = (
        answers(engine_of(checkpoint or shapes(), reads_late=reads_late, **options), requests)
        for reads_late in (False, True)
    )
    assert {key: repr(c) for key, c in late.items()} == {key: repr(c) for key, c in now.items()}
    return late


@pytest.mark.parametrize(("slots", "images"), [(1, 3), (5, IMAGES), (16, IMAGES)])
def test_answers_are_the_same(slots, images):
    found = alike(requests_of(pixels(images), brief()), slots=slots)
    assert {c.finish_reason for c in found.values()} == {"eos"}


@pytest.mark.parametrize("ngram_size", [0, 3])
def test_answers_that_end_at_their_limits_are_the_same(ngram_size):
    prompts = [prompt_of(random_model, max_new_tokens=n) for n in (1, 40, 17)]
    requests = [
        Request(id=n, pixels=image, prompts=(prompts[n % 3],))
        for n, image in enumerate(pixels(IMAGES))
    ]
    found = alike(requests, random_model(0, ngram_size))
    assert "length" in {c.finish_reason for c in found.values()}


def test_answers_under_the_grammar_are_the_same():
    alike(requests_of(pixels(IMAGES), brief(), detailed()), grammar="strict")


def test_answers_that_stop_and_follow_ups_are_the_same():
    (first,) = answers(engine_of(shapes()), requests_of(pixels(1), brief())).values()
    prompt = brief(stop_ids=first.token_ids[4:5])

    def follow_up(completions):
        return (replace(brief(), ids=brief().ids + completions[-1].token_ids),)

    found = alike(requests_of(pixels(IMAGES), prompt, detailed(), follow_up=follow_up))
    assert found[0, 0].finish_reason == "stop"


def test_numbers_that_are_not_finite_cost_the_neighbours_nothing(monkeypatch):
    look = VisionEncoder.__call__

    def broken(self, images):
        features = look(self, images)
        features[1].fill_(torch.nan)
        return features

    monkeypatch.setattr(VisionEncoder, "__call__", broken)
    found = alike(requests_of(pixels(IMAGES), brief()), slots=4, vision_batch=4)
    is_broken = [isinstance(found[n, 0].error, NonFiniteLogits) for n in range(IMAGES)]
    assert is_broken == [n % 4 == 1 for n in range(IMAGES)]


@pytest.mark.parametrize(("slots", "images"), [(1, 2), (5, IMAGES), (16, IMAGES)])
def test_at_most_one_row_of_a_step_is_wasted_per_answer(monkeypatch, slots, images):
    rows = count_steps(monkeypatch)
    requests = requests_of(pixels(images), brief(), detailed())
    found = answers(engine_of(shapes(), slots=slots, reads_late=True), requests)
    needed = sum(len(c.token_ids) - 1 for c in found.values())  # the first is the prefill's
    assert needed < sum(rows) <= needed + len(found)


def test_a_step_starts_before_the_tokens_of_the_one_before_are_read(monkeypatch):
    step, read, events = TextDecoder.step, Choices.read, []

    def noted_step(self, *args, **options):
        events.append("step")
        return step(self, *args, **options)

    def noted_read(self):
        events.append("read")
        return read(self)

    monkeypatch.setattr(TextDecoder, "step", noted_step)
    monkeypatch.setattr(Choices, "read", noted_read)
    answers(engine_of(shapes(), reads_late=True), requests_of(pixels(1), brief()))
    assert events[:5] == ["step", "read", "step", "read", "step"]
    events.clear()
    answers(engine_of(shapes(), reads_late=False), requests_of(pixels(1), brief()))
    assert events[:5] == ["read", "step", "read", "step", "read"]
