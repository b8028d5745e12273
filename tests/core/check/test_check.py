"""`kosmos2 check` in small: its blocks, its budget, and what is left of a run that is cut off."""

import json
from dataclasses import dataclass, replace

import pytest
import torch

from kosmos2_core.check.blocks import tokens
from kosmos2_core.check.budget import TimeBudget
from kosmos2_core.check.context import CheckContext
from kosmos2_core.check.report import BlockSkipped
from kosmos2_core.check.run import BLOCKS, CheckBlock, CheckOptions, run_check
from kosmos2_core.errors import CheckpointError
from tests.support.checks import TINY

OPTIONS = CheckOptions(device="cpu")


@dataclass
class Clock:
    now_s: float = 0.0

    def __call__(self):
        return self.now_s


@dataclass(frozen=True)
class Nothing:
    problems: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    def lines(self):
        yield "nothing was measured"


def block(name, measure, **options):
    return CheckBlock(**{"name": name, "measure": measure, "share": 1, "needs_s": 0} | options)


def says(figures):
    return lambda context, deadline: figures


def raises(error):
    def measure(context, deadline):
        raise error

    return measure


def checked(*blocks, options=OPTIONS, extent=TINY):
    lines = []
    return run_check(options, lines.append, extent=extent, blocks=blocks or BLOCKS), lines


@pytest.fixture(scope="module")
def whole():
    return checked()


def test_the_engine_passes_here(whole):
    report, lines = whole
    assert report.is_right
    assert report.is_complete
    assert {result.name: result.status for result in report.results} == {
        block.name: "passed" for block in BLOCKS
    }
    assert report.versions["torch"] == torch.__version__
    assert lines == [line for result in report.results for line in result.lines()]


def test_a_report_is_json(whole):
    body = json.loads(json.dumps(whole[0].body()))
    assert [each["name"] for each in body["blocks"]] == [block.name for block in BLOCKS]
    assert all(each["figures"] for each in body["blocks"])


def test_all_answers_are_compared(whole):
    figures = whole[0].figures_of("tokens")
    assert [(c.model, c.ngram_size, c.answers) for c in figures.comparisons] == [
        (model, size, 2 * TINY.images) for model in ("shapes", "a random model") for size in (0, 3)
    ]
    assert all(each.tokens > each.answers for each in figures.comparisons)
    assert figures.shifts_padded_rows


def test_other_tokens_are_a_failure(monkeypatch):
    answers = tokens.engine_answers

    def wrong(engine, work):
        return {key: (*ids[:-1], 7) for key, ids in answers(engine, work).items()}

    monkeypatch.setattr(tokens, "engine_answers", wrong)
    report, lines = checked(block("tokens", tokens.check_tokens))
    assert not report.is_right
    [result] = report.results
    assert result.status == "failed"
    assert result.figures.comparisons[0].wrong == 2 * TINY.images
    assert any("WRONG: 6 of 6 answers of shapes differ" in line for line in lines)


def test_a_causal_resampler_is_mended_and_said(monkeypatch):
    make = CheckContext.on

    def with_causal(*args, **options):
        context = make(*args, **options)
        for checkpoint in (context.shapes, context.small):
            checkpoint.model.image_to_text_projection.x_attn.is_causal = True
        return context

    monkeypatch.setattr(CheckContext, "on", with_causal)
    report, lines = checked(block("tokens", tokens.check_tokens))
    assert report.is_right
    assert report.figures_of("tokens").is_oracle_mended
    assert any("resampler is causal in this version" in line for line in lines)


def test_the_machine_is_described(whole):
    report, lines = whole
    figures = report.figures_of("machine")
    assert figures.gpu is None
    assert figures.threads == 1
    assert figures.free_bytes > 0
    assert any(f"transformers {report.versions['transformers']}" in line for line in lines)


def test_attention_of_every_phase_is_named(whole):
    phases = whole[0].figures_of("attention kernels").phases
    assert [each.phase for each in phases] == ["vision tower", "prompt", "decode step"]
    assert all("attention" in phases[0].kernels[0] for each in phases[:2])


def test_a_block_that_breaks_names_the_error_and_the_others_run():
    report, lines = checked(
        block("first", raises(RuntimeError("the device is gone\nand more"))),
        block("second", says(Nothing())),
    )
    assert [result.status for result in report.results] == ["failed", "passed"]
    assert "RuntimeError: the device is gone (" in report.results[0].reason
    assert report.is_complete
    assert not report.is_right
    assert "  nothing was measured" in lines


def test_out_of_memory_has_a_remedy():
    report, _ = checked(block("first", raises(torch.cuda.OutOfMemoryError("2 GiB"))))
    assert "end what else uses the GPU" in report.results[0].reason


def test_what_a_machine_cannot_measure_is_skipped_with_the_reason():
    report, lines = checked(block("waits", raises(BlockSkipped("only CUDA has them"))))
    assert report.is_right
    assert lines == ["waits: skipped in 0.0 s", "  only CUDA has them"]


def test_a_block_that_does_not_fit_into_the_time_is_skipped():
    report, lines = checked(
        block("long", raises(AssertionError("it ran")), needs_s=400),
        block("short", says(Nothing())),
        options=replace(OPTIONS, minutes=5),
    )
    assert [result.status for result in report.results] == ["skipped", "passed"]
    assert "it needs about 400 s and" in lines[1]
    assert "use --minutes for more" in lines[1]


def test_comparisons_beyond_the_time_are_left_out():
    report, lines = checked(
        block("tokens", tokens.check_tokens), options=replace(OPTIONS, minutes=0)
    )
    assert len(report.figures_of("tokens").comparisons) == 1
    assert sum("the time is up" in line for line in lines) == 3


def test_time_that_a_block_leaves_goes_to_those_after_it():
    clock = Clock()
    budget = TimeBudget(100, clock)
    first = budget.deadline(share=0.5, needs_s=0)
    assert first.left_s == 50
    clock.now_s = 20
    assert first.left_s == 30
    second = budget.deadline(share=0.5, needs_s=0)
    assert second.left_s == 40
    assert budget.deadline(share=0.1, needs_s=60).left_s == 60
    assert budget.deadline(share=0.1, needs_s=600).left_s == 80
    clock.now_s = 101
    assert second.is_over
    assert budget.left_s == 0


def test_a_run_that_is_cut_off_left_what_it_had(tmp_path):
    path = tmp_path / "check.json"
    seen = []

    def cut_off(context, deadline):
        seen.append(json.loads(path.read_text()))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        checked(
            block("first", says(Nothing())),
            block("second", cut_off),
            options=replace(OPTIONS, output=path),
        )
    left = json.loads(path.read_text())
    assert [seen[0]] == [left]
    assert [each["name"] for each in left["blocks"]] == ["first"]
    assert left["blocks"][0]["lines"][1] == "  nothing was measured"
    assert left["is_complete"] is False
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(OSError, match=r"check\.json"):
        checked(options=replace(OPTIONS, output=tmp_path / "nowhere" / "check.json"))


@pytest.mark.parametrize(
    ("options", "said"),
    [({"device": "tpu"}, "no device 'tpu'"), ({"model": "no/where/at/all"}, "no checkpoint at")],
)
def test_a_wrong_model_or_device_is_an_error_at_once(options, said):
    with pytest.raises(CheckpointError, match=said):
        checked(options=replace(OPTIONS, **options))
