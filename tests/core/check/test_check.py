"""`kosmos2 check` in small: its blocks, its budget, and what is left of a run that is cut off."""

import json
from dataclasses import dataclass, replace
from functools import cache

import pytest
import torch

from kosmos2_core.check import context
from kosmos2_core.check.blocks import memory, precision, profile, throughput, tokens, variants
from kosmos2_core.check.blocks.memory import MemoryFigures
from kosmos2_core.check.blocks.profile import ProfileFigures
from kosmos2_core.check.blocks.throughput import Pace, ThroughputFigures
from kosmos2_core.check.budget import Deadline
from kosmos2_core.check.context import CheckContext
from kosmos2_core.check.report import BlockResult, BlockSkipped, CheckReport
from kosmos2_core.check.run import BLOCKS, CheckBlock, CheckOptions, run_check
from kosmos2_core.check.verdict import conclude
from kosmos2_core.checkpoint.load import load_checkpoint
from kosmos2_core.comparison.random_model import random_checkpoint
from kosmos2_core.errors import CheckpointError, EngineOutOfMemory, NotEnoughMemory
from tests.support.checks import TINY

OPTIONS = CheckOptions(device="cpu")
BRIEFLY = replace(OPTIONS, minutes=0)  # a block measures its first part alone


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


@pytest.fixture(scope="module", autouse=True)
def loaded_once():
    """Load each model once for all tests."""
    with pytest.MonkeyPatch.context() as patch:
        for load in (load_checkpoint, random_checkpoint):
            patch.setattr(context, load.__name__, cache(load))
        yield


@pytest.fixture(scope="module")
def whole():
    return checked()


def test_the_engine_passes_here(whole):
    report, lines = whole
    assert report.is_right
    assert report.is_complete
    assert {result.name: result.status for result in report.results} == {
        block.name: "skipped" if block.name == "waits" else "passed" for block in BLOCKS
    }
    assert report.versions["torch"] == torch.__version__
    assert lines[: -len(report.verdict)] == [
        line for result in report.results for line in result.lines()
    ]


def test_a_report_is_json(whole):
    body = json.loads(json.dumps(whole[0].body()))
    assert [each["name"] for each in body["blocks"]] == [block.name for block in BLOCKS]
    assert all(each["figures"] for each in body["blocks"] if each["status"] == "passed")


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
    report, lines = checked(block("tokens", tokens.check_tokens), options=BRIEFLY)
    assert not report.is_right
    [result] = report.results
    assert result.status == "failed"
    assert result.figures.comparisons[0].wrong == 2 * TINY.images
    assert any("WRONG: 4 of 4 answers of shapes differ" in line for line in lines)


def test_a_causal_resampler_is_mended_and_said(monkeypatch):
    make = CheckContext.on

    def with_causal(*args, **options):
        made = make(*args, **options)
        for checkpoint in (made.shapes, made.small):
            checkpoint.model.image_to_text_projection.x_attn.is_causal = True
        return made

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
    assert lines[:2] == ["waits: skipped in 0.0 s", "  only CUDA has them"]


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
    report, lines = checked(block("tokens", tokens.check_tokens), options=BRIEFLY)
    assert len(report.figures_of("tokens").comparisons) == 1
    assert sum("the time is up" in line for line in lines) == 3


def test_time_that_a_block_leaves_goes_to_those_after_it():
    clock = Clock()
    budget = Deadline(at_s=100, clock=clock)
    first = budget.part(share=0.5, needs_s=0)
    assert first.left_s == 50
    clock.now_s = 20
    assert first.left_s == 30
    second = budget.part(share=0.5, needs_s=0)
    assert second.left_s == 40
    assert budget.part(share=0.1, needs_s=60).left_s == 60
    assert budget.part(share=0.1, needs_s=600).left_s == 80
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
    [
        ({"device": "tpu"}, "no device 'tpu'"),
        ({"device": "mps"}, "device 'mps' cannot be checked; use cpu"),
        ({"model": "no/where/at/all"}, "no checkpoint at"),
    ],
)
def test_a_wrong_model_or_device_is_an_error_at_once(options, said):
    with pytest.raises(CheckpointError, match=said):
        checked(options=replace(OPTIONS, **options))


# The blocks


def test_waits_are_for_gpus(whole):
    result = next(each for each in whole[0].results if each.name == "waits")
    assert result.reason == "only with a GPU can the host wait for the device"


def test_all_variants_are_compared(whole):
    groups = whole[0].figures_of("variants").groups
    assert [(each.ngram_size, each.grammar) for each in groups] == [
        *((0, "off"), (3, "off"), (0, "strict"))
    ]
    for each in groups:
        assert each.variants == 2 * len(TINY.variant_slots)
        assert each.answers == 2 * TINY.variant_images
        assert each.differing == ()


def test_a_variant_with_other_answers_is_named(monkeypatch):
    answers = variants.engine_answers

    def wrong(engine, work):
        found = answers(engine, work)
        return {key: ids[:-1] for key, ids in found.items()} if engine.slots == 3 else found

    monkeypatch.setattr(variants, "engine_answers", wrong)
    report, lines = checked(block("variants", variants.check_variants), options=BRIEFLY)
    assert not report.is_right
    assert any("other answers with 3 slots, late reads" in line for line in lines)


def test_half_precision_is_judged_by_that_of_hugging_face(whole):
    figures = whole[0].figures_of("half precision")
    assert [(each.model, each.dtype) for each in figures.comparisons] == [
        ("shapes", "float16"),
        ("shapes", "bfloat16"),
    ]
    for each in figures.comparisons:
        assert 0 < each.mean <= each.largest
        assert each.huggingface_mean > 0
        assert each.same_best > 0.9


def test_half_precision_that_is_further_off_is_a_failure(monkeypatch):
    forced = precision.forced_logprobs

    def coarse(*args):
        found = forced(*args)
        return found + 0.05 * torch.randn(found.shape, generator=torch.Generator().manual_seed(1))

    monkeypatch.setattr(precision, "forced_logprobs", coarse)
    report, lines = checked(block("half precision", precision.check_precision), options=BRIEFLY)
    assert not report.is_right
    assert any("WRONG: shapes in float16: log-probabilities are" in line for line in lines)


def test_memory_counts_weights_and_what_is_computed(whole):
    figures = whole[0].figures_of("memory")
    assert figures.slots == TINY.memory_slots
    assert figures.weights < figures.taken
    assert figures.problems == ()
    assert replace(figures, is_judged=True, taken=2 * figures.estimated).problems


def test_the_tracker_counts_what_lives():
    tracker = memory._TensorTracker()
    with tracker:
        kept = torch.ones(1000)
        view = kept[:10]
        gone = torch.ones(2000)
        del gone
        after = torch.ones(500)
    assert (tracker.live, tracker.peak) == (4 * 1500, 4 * 3000)
    assert view.sum() + after.sum() == 510


def test_both_sides_are_timed(whole):
    figures = whole[0].figures_of("throughput")
    assert {(each.task, each.size, each.is_ours) for each in figures.paces} == {
        (task, size, is_ours)
        for task in ("brief", "detailed")
        for size, is_ours in ((1, True), (2, True), (2, False))
    }
    assert all(each.images_per_s > 0 and each.tokens_per_s > 0 for each in figures.paces)
    assert sum("times as fast as Hugging Face's best" in line for line in figures.lines()) == 2


@pytest.mark.parametrize("error", [NotEnoughMemory, EngineOutOfMemory])
def test_slots_that_do_not_fit_are_left_out(error, monkeypatch):
    make = CheckContext.engine

    def full(self, checkpoint, generation, **options):
        if generation.slots == 2:
            raise error("2 slots need more")
        return make(self, checkpoint, generation, **options)

    monkeypatch.setattr(CheckContext, "engine", full)
    report, _ = checked(block("throughput", throughput.check_throughput))
    assert report.is_right
    assert report.figures_of("throughput").left_out == (
        "brief, 2 slots: 2 slots need more",
        "detailed, 2 slots: 2 slots need more",
    )


def pace(slots, brief, detailed=1.0, is_ours=True):
    for task, images_per_s in (("brief", brief), ("detailed", detailed)):
        yield Pace(
            task=task,
            size=slots,
            is_ours=is_ours,
            cuda_graph=False,
            images_per_s=images_per_s,
            tokens_per_s=1.0,
        )


@pytest.mark.parametrize(
    ("paces", "expected"),
    [
        ([*pace(16, 1), *pace(64, 2), *pace(256, 3)], 256),
        ([*pace(16, 1), *pace(64, 3), *pace(256, 3.05)], 64),
        ([*pace(16, 3), *pace(64, 2), *pace(32, 9, is_ours=False)], 16),
        ([*pace(16, 1), *list(pace(64, 9))[:1]], 16),
        ([*pace(16, 1, is_ours=False)], None),
    ],
)
def test_the_fewest_slots_that_are_as_fast_are_best(paces, expected):
    assert ThroughputFigures(paces=tuple(paces)).best_slots == expected


def test_the_profile_adds_up(whole):
    figures = whole[0].figures_of("profile")
    assert figures.steps >= TINY.cycles
    assert figures.kernels_per_step > 10
    assert {"products", "attention", "layer norms"} <= figures.shares.keys()
    assert sum(figures.shares.values()) + figures.idle_share == pytest.approx(1, abs=0.02)


def test_kernels_that_overlap_count_once():
    spans = [("a", 0, 10), ("b", 5, 20), ("c", 30, 40), ("d", 31, 32)]
    assert profile._union_s(spans) == pytest.approx(30e-6)


@pytest.mark.parametrize(
    ("name", "category"),
    [
        ("aten::addmm", "products"),
        ("sm90_xmma_gemm_f16f16", "products"),
        ("fmha_cutlassF_f16_aligned_64x64", "attention"),
        ("vectorized_layer_norm_kernel", "layer norms"),
        ("Memcpy HtoD (Pinned -> Device)", "copies"),
        ("vectorized_elementwise_kernel", "elementwise"),
        ("void at::native::reduce_kernel<ArgMax>", "sampling"),
        ("spin_kernel", "other"),
    ],
)
def test_kernels_have_a_category(name, category):
    assert profile._category(name) == category


# The verdict


def test_the_verdict_says_what_to_set(whole):
    report, lines = whole
    assert report.options.keys() == {"--slots"}
    assert report.options["--slots"] in TINY.throughput_slots
    assert report.verdict[0] == (
        "The engine generates the tokens that Hugging Face generates on this machine"
    )
    assert lines[-1] == f"verdict: Set --slots {report.options['--slots']}"


def test_a_failure_is_the_first_thing_that_the_verdict_says():
    _, lines = checked(block("tokens", raises(RuntimeError("no"))))
    assert lines[-1].startswith("verdict: Do not annotate on this machine yet: tokens failed.")


def gpu_report(*, idle_share, left):
    figures = {
        "profile": ProfileFigures(
            slots=1,
            steps=1,
            seconds=1,
            shares={},
            idle_share=idle_share,
            kernels_per_step=1,
            is_cuda=True,
        ),
        "memory": MemoryFigures(
            slots=1, weights=1, taken=10, estimated=10, reserved=12, left=left, is_judged=True
        ),
    }
    results = [
        BlockResult(name=name, status="passed", seconds=1, figures=each)
        for name, each in figures.items()
    ]
    return CheckReport(model="m", device="cuda:0", minutes=1, versions={}, results=results)


@pytest.mark.parametrize(
    ("idle_share", "left", "expected"), [(0.1, 90, 1), (0.5, 90, 0.5), (0.5, 9, 1)]
)
def test_a_gpu_that_idles_and_has_room_gets_two_actors(idle_share, left, expected):
    report = gpu_report(idle_share=idle_share, left=left)
    conclude(report)
    assert report.options == {"--gpus-per-actor": expected}
    assert report.verdict[-1] == f"Set --gpus-per-actor {expected}"
