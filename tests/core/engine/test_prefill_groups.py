"""Prompts are prefilled in groups where a prefill of few rows costs what one of many costs."""

import numpy as np
import pytest

from jobs.bench.host.answers import scripted_answers
from jobs.bench.host.device import FreeEngine
from kosmos2_core.comparison.workload import BRIEF_LENGTHS, DETAILED_LENGTHS, Lengths
from kosmos2_core.engine.engine import prefill_group_for
from kosmos2_core.engine.live_answers import LiveAnswers
from kosmos2_core.engine.shared_engine import SharedEngine
from kosmos2_core.prompts.tasks import DETAILED
from tests.support.engine_models import answers, engine_of, pixels, prompt_of, requests_of, shapes

SLOTS, IMAGES = 256, 1024


@pytest.fixture
def groups(monkeypatch):
    """The sequences of every prefill."""
    found, begin = [], LiveAnswers.begin

    def noted(self, first_slot, prompts):
        found.append(len(prompts))
        begin(self, first_slot, prompts)

    monkeypatch.setattr(LiveAnswers, "begin", noted)
    return found


def free_engine(lengths: Lengths):
    checkpoint = shapes()
    eos = checkpoint.tokenizer.eos_token_id
    scripts = scripted_answers(checkpoint.vocabulary, eos, lengths=lengths, count=IMAGES)
    return FreeEngine(checkpoint, scripts, SLOTS)


@pytest.mark.parametrize(
    ("lengths", "least", "is_shared"),
    [
        (BRIEF_LENGTHS, 12, False),
        (DETAILED_LENGTHS, 8, True),
        pytest.param(BRIEF_LENGTHS, 12, True, marks=pytest.mark.slow),
        pytest.param(DETAILED_LENGTHS, 8, False, marks=pytest.mark.slow),
    ],
    ids=["brief", "detailed, shared", "brief, shared", "detailed"],
)
def test_the_mean_group_on_cuda_is_large(groups, lengths, least, is_shared):
    engine = free_engine(lengths)
    requests = requests_of(pixels(1).repeat(IMAGES, axis=0), prompt_of(shapes, DETAILED))
    found = list((SharedEngine(engine) if is_shared else engine).generate(requests))
    assert len(found) == sum(groups) == IMAGES
    assert np.mean(groups) >= least


def test_few_that_wait_do_not_wait_for_a_full_group(groups):
    """The only request that is there gets its slot before more of them come."""
    engine = engine_of(shapes(), slots=8, prefill_group=4)
    request, *_ = requests_of(pixels(1), prompt_of(shapes))

    def stream():
        yield request
        while not groups:
            yield None

    assert len(list(engine.generate(stream()))) == 1


@pytest.mark.parametrize("reads_late", [False, True])
def test_answers_do_not_depend_on_groups(reads_late):
    requests = requests_of(pixels(8), prompt_of(shapes), prompt_of(shapes, DETAILED))
    alone, grouped = (
        answers(engine_of(shapes(), slots=6, prefill_group=group, reads_late=reads_late), requests)
        for group in (1, 4)
    )
    assert {key: repr(c) for key, c in grouped.items()} == {
        key: repr(c) for key, c in alone.items()
    }


def test_on_the_cpu_a_free_slot_is_filled_at_once():
    assert prefill_group_for("cpu", SLOTS) == 1
    assert prefill_group_for("cuda", SLOTS) == 16
    assert prefill_group_for("cuda", 8) == 1
