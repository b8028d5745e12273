"""The blocks that do more on CUDA, on an emulated device."""

import time
from dataclasses import replace

import pytest
import torch

from kosmos2_core.check.blocks import variants, waits
from kosmos2_core.check.blocks.memory import check_memory
from kosmos2_core.check.blocks.throughput import _our_pace
from kosmos2_core.check.budget import Deadline
from kosmos2_core.check.context import CheckContext
from kosmos2_core.comparison.random_model import random_checkpoint
from kosmos2_core.comparison.workload import workloads
from kosmos2_core.engine.model.transfer import AsyncCopy
from tests.support.checks import TINY
from tests.support.emulated_cuda import EmulatedCuda
from tests.support.engine_models import shapes

DEADLINE = Deadline(at_s=time.monotonic() + 3600)
OTHERS = 1000  # bytes that someone else allocated


@pytest.fixture(autouse=True)
def no_numerics(monkeypatch):
    """Leave alone the settings of an engine on CUDA, which are of the whole process."""
    monkeypatch.setattr("kosmos2_core.engine.engine.set_cuda_numerics", lambda device: None)


@pytest.fixture
def cuda(monkeypatch):
    """A device that refuses synchronous operations in the debug mode, as torch does."""
    with EmulatedCuda() as cuda:
        mode = ["default"]
        note = cuda._synchronous

        def synchronous(name):
            if mode[0] == "error":
                raise RuntimeError("called a synchronizing CUDA operation\nand more")
            note(name)

        monkeypatch.setattr(cuda, "_synchronous", synchronous)
        monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: mode[0])
        monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", lambda to: mode.__setitem__(0, to))
        monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
        yield cuda
        assert mode == ["default"]


@pytest.fixture(scope="module")
def main():
    return random_checkpoint(TINY.main_model, ngram_size=0)


@pytest.fixture
def context(main, cuda):
    context = CheckContext("random", cuda.device, TINY, lambda line: None)
    context.__dict__["main"] = cuda.hold(main, torch.float16)
    return context


def test_variants_include_cuda_graphs(context, cuda, monkeypatch):
    """In one setting and one size: the emulation is slow."""
    monkeypatch.setattr(variants, "_SETTINGS", ((3, "off"),))
    context = replace(context, extent=replace(TINY, variant_images=1, variant_slots=(2,)))
    context.__dict__["shapes"] = cuda.hold(shapes())
    with cuda.watched() as activity:
        figures = variants.check_variants(context, DEADLINE)
    assert activity.replays > 0
    assert figures.problems == ()
    assert [each.variants for each in figures.groups] == [4]


def test_no_operation_waits(context, monkeypatch):
    monkeypatch.setattr(waits, "_STEPS", 6)
    figures = waits.check_waits(context, DEADLINE)
    assert figures.problems == ()
    assert figures.steps >= 2 * 6


def test_an_operation_that_waits_is_a_failure(context, monkeypatch):
    values = AsyncCopy.__init__

    def waiting(self, tensor, **options):
        tensor.flatten()[0].item()
        values(self, tensor, **options)

    monkeypatch.setattr(AsyncCopy, "__init__", waiting)
    figures = waits.check_waits(context, DEADLINE)
    assert figures.problems == (
        "the host waits for the device: called a synchronizing CUDA operation (n-gram ban 0)",
        "the host waits for the device: called a synchronizing CUDA operation (n-gram ban 3)",
    )


def test_the_pace_ends_with_the_time(context):
    work = workloads(context.main, images=4, brief=TINY.brief, detailed=TINY.detailed).brief
    over = Deadline(at_s=0)
    assert _our_pace(context, "brief", work, 2, False, 1e9, over).images_per_s > 0


def test_memory_is_what_the_allocator_counts(context, monkeypatch):
    weights = sum(each.numel() * each.itemsize for each in context.main.model.parameters())
    peak, reset = OTHERS + weights + 5000, []
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: OTHERS + weights)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", reset.append)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: peak)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda device: peak + 7)
    figures = check_memory(context, DEADLINE)
    assert reset == [context.device]
    assert (figures.taken, figures.reserved) == (weights + 5000, peak + 7)
    assert figures.is_judged
    assert figures.left == 64 << 30


@pytest.mark.parametrize("graph", [False, True])
def test_the_pace_counts_completions(context, graph):
    work = workloads(context.main, images=4, brief=TINY.brief, detailed=TINY.detailed).brief
    pace = _our_pace(context, "brief", work, 2, graph, 0.1, DEADLINE)
    assert pace.images_per_s > 0
    assert pace.tokens_per_s > pace.images_per_s
