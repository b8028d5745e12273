"""`kosmos2 bench engine` on a model and a workload that take seconds; its times are no matter."""

import json
from dataclasses import replace
from functools import cache

import pytest
import torch

from jobs.bench.engine import comparison
from jobs.bench.engine.comparison import Setup
from jobs.bench.engine.floor import Product, image_products, prompt_products, step_products
from jobs.bench.engine.kernels import NARROW, kernels_per_step
from jobs.cli import run_command
from kosmos2_core.checkpoint.load import Checkpoint
from kosmos2_core.comparison.oracle import Oracle
from kosmos2_core.comparison.random_model import random_checkpoint
from kosmos2_core.comparison.sides import engine_answers, generate_answers
from kosmos2_core.comparison.ties import is_tie, partings
from kosmos2_core.comparison.workload import Lengths, workloads
from kosmos2_core.engine.engine import Engine
from kosmos2_core.generation import Generation
from tests.support.checks import TINY_MODEL

SETUP = Setup(
    proportions=TINY_MODEL,
    slots=3,
    images=7,
    brief=Lengths(mean=5, deviation=3, most=9),
    detailed=Lengths(mean=9, deviation=4, most=15),
    batches=(2, 4),
    trial_images=4,
    pairs=2,
)
CONTESTS = ["brief", "detailed", "two_tasks", "constant_length"]


@cache
def tiny_model(ngram_size: int) -> Checkpoint:
    return random_checkpoint(TINY_MODEL, ngram_size=ngram_size)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """What `kosmos2 bench engine` runs."""
    monkeypatch.setattr(comparison, "Setup", lambda **options: SETUP)


@pytest.mark.usefixtures("tiny")
def test_the_benchmark_prints_its_figures(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["bench", "engine", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    for name in CONTESTS:
        assert found[name]["tokens_equal"] is True
        assert found[name]["ratio"] > 0
        assert len(found[name]["ratios"]) == 2
        assert found[name]["floor_share"] > 0
    assert found["batch"] in SETUP.batches
    assert found["kernels_per_step"] > 0
    assert 0 < found["scheduler_share"] < 1
    assert {"torch", "transformers"} <= found["versions"].keys()


def test_other_tokens_are_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = comparison.engine_answers

    def wrong(engine: Engine, work: object) -> object:
        found = answers(engine, work)
        return {key: (*ids[:-1], 0) for key, ids in found.items()}

    few = replace(SETUP, images=3, batches=(2,), pairs=1)
    monkeypatch.setattr(comparison, "Setup", lambda **options: few)
    monkeypatch.setattr(comparison, "engine_answers", wrong)
    assert run_command(["bench", "engine"]) == 1
    assert "NOT EQUAL" in capsys.readouterr().out


@pytest.mark.usefixtures("tiny")
def test_a_defective_oracle_judges_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def causal(*args: object, **options: object) -> object:
        checkpoint = random_checkpoint(*args, **options)  # type: ignore[arg-type]
        checkpoint.model.image_to_text_projection.x_attn.is_causal = True
        return checkpoint

    monkeypatch.setattr(comparison, "random_checkpoint", causal)
    assert run_command(["bench", "engine"]) == 2
    assert "Use transformers 5.23" in capsys.readouterr().err


@pytest.mark.parametrize("ngram_size", [0, 3])
@pytest.mark.parametrize("name", CONTESTS)
def test_both_sides_give_answers_of_the_drawn_lengths(name: str, ngram_size: int) -> None:
    checkpoint = tiny_model(ngram_size)
    work = getattr(
        workloads(checkpoint, images=7, brief=SETUP.brief, detailed=SETUP.detailed), name
    )
    theirs = generate_answers(Oracle(checkpoint), work, 4)
    assert engine_answers(Engine(checkpoint, Generation(slots=3)), work) == theirs
    lengths = {
        (number, index): length
        for index, question in enumerate(work.questions)
        for number, length in enumerate(question.lengths)
    }
    assert {key: len(ids) for key, ids in theirs.items()} == lengths


def test_where_two_tokens_are_equally_likely_either_answer_is_right() -> None:
    checkpoint = random_checkpoint(TINY_MODEL, ngram_size=0)
    work = workloads(checkpoint, images=2, brief=SETUP.brief, detailed=SETUP.detailed).detailed
    theirs = generate_answers(Oracle(checkpoint), work, 2)
    ids = theirs[1, 0]
    twin, stranger = 1290, 1291
    embedding = checkpoint.model.text_model.model.embed_tokens.weight
    with torch.no_grad():
        embedding[twin] = embedding[ids[4]]
    assert twin not in ids
    for other, expected in ((twin, True), (stranger, False)):
        ours = theirs | {(1, 0): (*ids[:4], other, *ids[5:])}
        assert list(partings(theirs, ours)) == [(1, 0)]
        assert is_tie(Oracle(checkpoint), work, theirs, ours, (1, 0)) is expected


def test_lengths_have_the_mean_and_spread_they_were_drawn_with() -> None:
    drawn = torch.tensor(Lengths(mean=110, deviation=45, most=10_000).draw(20_000)).float()
    assert drawn.mean().item() == pytest.approx(110, rel=0.02)
    assert drawn.std().item() == pytest.approx(45, rel=0.05)
    assert max(Lengths(mean=110, deviation=45, most=120).draw(1000)) == 120


def test_the_floor_counts_every_product_of_the_model() -> None:
    """Its weights are those of the model, each once."""

    def weights(products: list[Product]) -> int:
        return sum(product.layers * product.inputs * product.outputs for product in products)

    model = random_checkpoint(TINY_MODEL, ngram_size=0).model
    sizes = {name: p.numel() for name, p in model.named_parameters() if name.endswith("j.weight")}
    sizes |= {n: p.numel() for n, p in model.named_parameters() if ".fc" in n and p.ndim > 1}
    text = sum(size for name, size in sizes.items() if name.startswith("text_model"))
    head = model.text_model.lm_head.weight.numel()
    assert weights(list(step_products(TINY_MODEL, slots=3))) == text + head
    assert weights(list(prompt_products(TINY_MODEL, rows=71))) == text + head
    vision = sum(size for name, size in sizes.items() if "vision_model" in name)
    projection = model.image_to_text_projection
    resampler = projection.dense.weight.numel() + 3 * TINY_MODEL.text_width**2
    assert weights(list(image_products(TINY_MODEL))) == vision + resampler


def test_kernels_do_not_depend_on_slots_and_grow_with_layers() -> None:
    narrow = random_checkpoint(NARROW, ngram_size=0)
    shallow = random_checkpoint(replace(NARROW, text_layers=1), ngram_size=0)
    kernels = kernels_per_step(narrow)
    assert kernels == kernels_per_step(narrow, slots=9)
    assert sum(kernels.values()) <= 335
    layers = NARROW.text_layers
    per_layer = (sum(kernels.values()) - sum(kernels_per_step(shallow).values())) / (layers - 1)
    assert per_layer == 13  # 4 norms, 4 products, 1 activation, 1 attention, 1 write, 2 sums
