"""The columns of answers, without a model: what is chosen, read and moved."""

import numpy as np
import pytest
import torch

from kosmos2_core.engine.live_answers import LiveAnswers
from kosmos2_core.engine.model.transfer import AsyncCopy
from kosmos2_core.engine.requests import Prompt
from kosmos2_core.engine.sampling.sampler import Choices
from kosmos2_core.engine.scheduler import Move

EOS, STOP = 2, 9


def prompt(max_new_tokens=10, **options):
    return Prompt(task="", ids=(0,) * 70, max_new_tokens=max_new_tokens, **options)


def chosen(*token_ids, logprob=-0.5):
    """Tokens that arrive with scores by which they can be told apart."""
    ids = torch.tensor(token_ids)
    report = torch.stack([ids.float(), torch.full((len(ids),), logprob), ids / 8])
    return Choices(tokens=ids, report=AsyncCopy(report))


def step(answers, *token_ids, **options):
    answers.expect(0, len(token_ids), chosen(*token_ids, **options))
    return answers.read()


def test_tokens_and_scores_of_each_slot_are_columns():
    answers = LiveAnswers(3, EOS)
    answers.begin(0, [prompt()] * 3)
    assert step(answers, 5, 6, 7) == []
    assert answers.lengths(0, 3).tolist() == [71, 71, 71]
    assert step(answers, 3, EOS, 4) == [1]
    (found,) = answers.pop([1], [prompt()])
    assert (found.token_ids, found.finish_reason) == ((6, EOS), "eos")
    assert found.scores.logprobs == (-0.5, -0.5)
    assert found.scores.masses == (0.75, 0.25)


def test_a_sequence_keeps_its_tokens_when_it_moves():
    answers = LiveAnswers(2, EOS)
    answers.begin(0, [prompt(), prompt(max_new_tokens=3)])
    step(answers, 5, 6)
    assert step(answers, EOS, 7) == [0]
    answers.expect(0, 2, chosen(4, 8))  # a late step: the first row is wasted
    answers.pop([0], [prompt()])
    assert answers.move([Move(slot=1, to=0)]) == [73]
    answers.begin(1, [prompt()])
    assert answers.read() == [0]
    (found,) = answers.pop([0], [prompt(max_new_tokens=3)])
    assert found.token_ids == (6, 7, 8)
    assert answers.lengths(1, 1).tolist() == [70]
    answers.expect(1, 1, chosen(EOS))
    assert answers.read() == [1]
    (found,) = answers.pop([1], [prompt()])
    assert found.token_ids == (EOS,)  # of its own alone


@pytest.mark.parametrize(
    ("options", "token_ids", "reason"),
    [
        ({"stop_ids": (STOP,)}, (5, STOP), "stop"),
        ({"stop_ids": (STOP, 8)}, (5, 8), "stop"),
        ({"max_new_tokens": 2}, (5, 6), "length"),
        ({"max_new_tokens": 2, "ignore_eos": True}, (EOS, EOS), "length"),
        ({}, (5, EOS), "eos"),
    ],
)
def test_an_answer_ends_as_its_prompt_says(options, token_ids, reason):
    answers, asked = LiveAnswers(1, EOS), prompt(**options)
    answers.begin(0, [asked])
    for number, token_id in enumerate(token_ids, 1):
        assert step(answers, token_id) == ([0] if number == len(token_ids) else [])
    (found,) = answers.pop([0], [asked])
    assert (found.token_ids, found.finish_reason) == (token_ids, reason)


def test_prompts_of_one_prefill_end_each_in_their_own_way():
    prompts = [prompt(stop_ids=(STOP, 8)), prompt(), prompt(ignore_eos=True, max_new_tokens=2)]
    answers = LiveAnswers(3, EOS)
    answers.begin(0, prompts)
    assert step(answers, 8, STOP, EOS) == [0]
    assert step(answers, 4, EOS, 5) == [1, 2]
    found = answers.pop([1, 2], prompts[1:])
    assert [(each.token_ids, each.finish_reason) for each in found] == [
        ((STOP, EOS), "eos"),
        ((EOS, 5), "length"),
    ]


def test_a_token_whose_score_is_not_finite_ends_the_answer_without_it():
    answers = LiveAnswers(2, EOS)
    answers.begin(0, [prompt()] * 2)
    step(answers, 5, 6)
    assert step(answers, 7, EOS, logprob=np.nan) == [0, 1]
    found = answers.pop([0, 1], [prompt()] * 2)
    assert [(each.token_ids, each.finish_reason) for each in found] == [
        ((5,), "error"),
        ((6,), "error"),
    ]
