"""Memory is allocated once. What happens where it does not suffice."""

import pytest
import torch

from kosmos2_core.engine.cuda_graphs import captured_or_none
from kosmos2_core.engine.model.kv_cache import KVCache
from kosmos2_core.engine.model.vision import VisionEncoder
from kosmos2_core.engine.shared_engine import SharedEngine
from kosmos2_core.errors import EngineOutOfMemory, InvalidRequest, NotEnoughMemory
from kosmos2_core.prompts.tasks import DETAILED
from tests.support.engine_models import answers, engine_of, pixels, prompt_of, requests_of, shapes


def out_of_memory(*_, **__):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has ...")


def test_the_cache_never_grows_after_construction(monkeypatch):
    engine = engine_of(shapes(), length=400, slots=3)
    (memory,) = engine._idle
    place, shape = memory.cache.data.data_ptr(), memory.cache.data.shape
    assert shape[4] == 400
    monkeypatch.setattr(KVCache, "__init__", None)  # no other one is made either
    prompts = prompt_of(shapes), prompt_of(shapes, DETAILED)
    assert len(answers(engine, requests_of(pixels(12), *prompts))) == 24
    assert (memory.cache.data.data_ptr(), memory.cache.data.shape) == (place, shape)


def test_a_prompt_beyond_the_room_of_a_slot_is_an_error_of_its_own():
    fits = prompt_of(shapes)
    longer = prompt_of(shapes, max_new_tokens=fits.max_new_tokens + 1)
    length = len(fits.ids) + fits.max_new_tokens
    found = answers(engine_of(shapes(), length=length), requests_of(pixels(1), fits, longer))
    assert found[0, 0].error is None
    assert isinstance(found[0, 1].error, InvalidRequest)
    assert f"more than the {length} tokens that a slot has room for" in str(found[0, 1].error)


def test_lack_of_memory_at_construction_names_slots_and_remedy(monkeypatch):
    monkeypatch.setattr(torch, "zeros", out_of_memory)
    said = (
        r"checkpoint shapes on cpu, 7 slots of 300 tokens: memory ran out \(CUDA out of memory. "
        r"Tried to allocate 2.00 GiB.\); use fewer --slots than 7"
    )
    with pytest.raises(NotEnoughMemory, match=said):
        engine_of(shapes(), slots=7, length=300)


def test_lack_of_memory_on_the_cpu_is_known_too():
    with pytest.raises(
        NotEnoughMemory, match=r"268435456 slots .* memory ran out .*use fewer --slots"
    ):
        engine_of(shapes(), length=1000, slots=1 << 28)


@pytest.mark.parametrize("broken", ["step", "prefill", "vision"])
def test_lack_of_memory_while_it_computes_rejects_nothing(monkeypatch, broken):
    engine = engine_of(shapes(), slots=7)
    places = {"step": "step", "prefill": "__call__", "vision": "__call__"}
    owner = VisionEncoder if broken == "vision" else type(engine.components.decoder)
    monkeypatch.setattr(owner, places[broken], out_of_memory)
    if broken == "step":
        object.__setattr__(engine.components, "step", out_of_memory)
    requests = requests_of(pixels(12), prompt_of(shapes))
    found = []
    with pytest.raises(
        EngineOutOfMemory, match=r"7 slots .* memory ran out .*fewer --slots than 7"
    ):
        found += engine.generate(requests)
    assert found == []
    shared = SharedEngine(engine)
    for _ in range(2):  # and again for each later call
        with pytest.raises(EngineOutOfMemory, match="fewer --slots than 7"):
            list(shared.generate(requests))


def test_lack_of_memory_in_a_capture_is_no_failed_capture(caplog):
    """The engine says what to do; it does not go on with even less memory."""
    with pytest.raises(torch.OutOfMemoryError):
        captured_or_none(out_of_memory, "steps")
    assert not caplog.records


def test_other_errors_stay_as_they_are(monkeypatch):
    engine = engine_of(shapes())
    monkeypatch.setattr(VisionEncoder, "__call__", lambda *_: torch.zeros(2) @ torch.zeros(3))
    with pytest.raises(RuntimeError, match="inconsistent tensor size"):
        list(engine.generate(requests_of(pixels(1), prompt_of(shapes))))
