"""`kosmos2 bench host` on a few images; its times are no matter."""

import json

import numpy as np
import pytest

from jobs.bench.host import measuring
from jobs.bench.host.answers import scripted_answers
from jobs.bench.host.device import FreeEngine
from jobs.cli import run_command
from kosmos2_core.comparison.workload import Lengths
from kosmos2_core.engine.requests import Request
from kosmos2_core.grounding.parser import parse_tokens
from kosmos2_core.grounding.scores import TokenScores
from kosmos2_core.prompts.encoder import PromptEncoder
from kosmos2_core.prompts.tasks import BRIEF
from tests.support.engine_models import pixels, shapes

LENGTHS = Lengths(mean=30, deviation=15, most=64)


def scripts(count: int) -> np.ndarray:
    checkpoint = shapes()
    eos = checkpoint.tokenizer.eos_token_id
    return scripted_answers(checkpoint.vocabulary, eos, lengths=LENGTHS, count=count)


def test_the_benchmark_prints_its_figures(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(measuring, "_LOOP", 100_000)
    assert run_command(["bench", "host", "--images", "20", "--repeats", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    for task in ("brief", "detailed"):
        for part in ("engine", "actor"):
            assert found[task][part]["images_per_cpu_s"] > 0
            assert found[task][part]["loop_iterations_per_image"] > 0
    assert found["processor"]
    assert found["slots"] == 256


def test_answers_have_the_drawn_lengths_and_are_well_formed() -> None:
    answers, eos = scripts(50), shapes().tokenizer.eos_token_id
    ids = answers[:, :, 0].astype(int)
    assert tuple((ids == eos).argmax(axis=1) + 1) == LENGTHS.draw(50)
    entities = 0
    for row in ids:
        ids_of_row = row[: list(row).index(eos)].tolist()
        scores = TokenScores.uniform(len(ids_of_row))
        found = parse_tokens(shapes().vocabulary, (), ids_of_row, scores)
        assert not found.issues
        entities += len(found.entities)
    assert entities > 50


def test_each_image_gets_the_next_answer_whatever_its_slot() -> None:
    """With fewer slots than images, so that sequences move."""
    images, answers = 20, scripts(20)
    prompt = PromptEncoder(shapes()).encode(BRIEF, {}).prompt
    requests = [Request(id=n, pixels=p, prompts=(prompt,)) for n, p in enumerate(pixels(images))]
    found = {c.request_id: c for c in FreeEngine(shapes(), answers, 6).generate(requests)}
    assert len(found) == images
    for number, length in enumerate(LENGTHS.draw(images)):
        assert found[number].finish_reason == "eos"
        assert found[number].token_ids == tuple(answers[number, :length, 0].astype(int).tolist())
