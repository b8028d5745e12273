"""The engine on an emulated CUDA device: right tokens, no hidden waits, and so many launches."""

from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch

from kosmos2_core.engine.cuda_graphs import GraphCapture, graph_spans
from kosmos2_core.engine.model.placement import TokenBatch
from kosmos2_core.engine.model.transfer import AsyncCopy, to_device
from kosmos2_core.prompts.tasks import DETAILED
from tests.support.emulated_cuda import GARBAGE, EmulatedCuda
from tests.support.engine_models import engine_of, pixels, prompt_of, requests_of, shapes, tokens

MODES = {
    "free": {},
    "n-grams": {"no_repeat_ngram_size": 3},
    "text n-grams": {"no_repeat_ngram_size": 3, "ngram_mode": "text"},
    "strict": {"grammar": "strict"},
    "both": {"no_repeat_ngram_size": 3, "grammar": "strict"},
}
# The operators of the others are among these: both kinds of n-grams have the same.
COVERING = ("free", "text n-grams", "both")
ALL = [
    pytest.param(mode, id=mode, marks=[pytest.mark.slow] * (mode not in COVERING)) for mode in MODES
]
OTHER = 1  # a device that is not the current one: what uses the wrong one shows; most tests use 0
brief = partial(prompt_of, shapes, max_new_tokens=12)
detailed = partial(prompt_of, shapes, DETAILED, max_new_tokens=12)


@pytest.fixture
def numerics():
    """Sets back what an engine sets for the process."""
    products = torch.backends.cuda.matmul
    before = (torch.backends.cuda.cudnn_sdp_enabled(), torch.backends.cudnn.allow_tf32)
    names = [
        "allow_tf32",
        "allow_fp16_reduced_precision_reduction",
        "allow_bf16_reduced_precision_reduction",
    ]
    flags = {name: getattr(products, name) for name in names}
    yield
    torch.backends.cuda.enable_cudnn_sdp(before[0])
    torch.backends.cudnn.allow_tf32 = before[1]
    for name, flag in flags.items():
        setattr(products, name, flag)


pytestmark = pytest.mark.usefixtures("numerics")


@pytest.mark.parametrize("mode", ALL)
def test_tokens_are_right_and_nothing_waits(mode):
    assert_tokens_are_right_and_nothing_waits(mode, brief(), detailed())


def test_tokens_of_one_prompt_are_right_and_nothing_waits():
    assert_tokens_are_right_and_nothing_waits("both", brief())


def assert_tokens_are_right_and_nothing_waits(mode, *prompts):
    requests = requests_of(pixels(12)[:4], *prompts)
    options = {"slots": 3, "vision_batch": 2, "length": 96, **MODES[mode]}
    expected = tokens(engine_of(shapes(), backend="plain", **options), requests)
    with EmulatedCuda(OTHER, current=0) as cuda:
        engine = engine_of(cuda.hold(shapes()), cuda_graph="off", **options)
        with cuda.watched() as activity:
            found = tokens(engine, requests)
    assert found == expected
    assert activity.replays == 0
    assert activity.synchronous == []
    assert activity.waits <= activity.downloads  # the last read of ended sequences is left out


def test_float16_has_a_head_in_float32():
    with EmulatedCuda() as cuda:
        engine = engine_of(cuda.hold(shapes(), torch.float16), slots=2, length=96)
        memory, decoder = engine._idle[0], engine.components.decoder
        assert memory.cache.data.dtype == torch.float16
        starts = to_device([80, 81], cuda.device)
        with torch.inference_mode():
            logits = decoder.step(memory.cache, memory.tokens, starts, span=96)
        assert logits.dtype == torch.float32
        with cuda.watched() as activity:
            found = tokens(engine, requests_of(pixels(12)[:3], brief()))
    assert {len(answer) for answer in found.values()} <= set(range(1, 13))
    assert activity.synchronous == []


def test_an_engine_on_cuda_is_exact_and_without_plans_for_shapes():
    torch.backends.cuda.enable_cudnn_sdp(True)
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    with EmulatedCuda() as cuda:
        engine_of(cuda.hold(shapes()), length=96)
    assert not torch.backends.cuda.cudnn_sdp_enabled()
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32


# Graphs


def with_graphs(cuda, **options):
    return engine_of(cuda.hold(shapes()), slots=3, vision_batch=2, length=96, **options)


@pytest.mark.parametrize("mode", ALL)
def test_graphs_say_the_same_and_each_step_is_one_launch(mode):
    requests = requests_of(pixels(12)[:3], brief(), detailed())
    expected = tokens(engine_of(shapes(), backend="plain", slots=3, **MODES[mode]), requests)
    with EmulatedCuda(OTHER, current=0) as cuda:
        with cuda.watched() as construction:
            engine = with_graphs(cuda, **MODES[mode])
        # spans of 80, 96, and 112 for the token that is read late; a vision batch
        assert construction.captures == 4
        for some, full_batches in ((3, 1), (1, 0)):  # the second run captures nothing either
            before = engine.vitals.decode_steps
            with cuda.watched() as activity:
                found = tokens(engine, requests[:some])
            assert found == {key: ids for key, ids in expected.items() if key[0] < some}
            assert activity.synchronous == []
            assert activity.captures == 0
            steps = engine.vitals.decode_steps - before
            assert activity.replays == steps + full_batches


def test_a_step_in_a_graph_uploads_its_positions_and_downloads_its_report():
    with EmulatedCuda() as cuda, torch.inference_mode():
        memory = with_graphs(cuda, no_repeat_ngram_size=3)._idle[0]
        memory.begin(0, [brief()] * 2)
        with cuda.watched() as activity:
            memory.graphs(np.full(2, len(brief().ids)))
    assert activity.counts() == {
        "launches": 0, "uploads": 1, "downloads": 1, "waits": 0, "replays": 1
    }  # fmt: skip


def test_graphs_share_one_pool_and_one_stream_and_the_largest_is_first(caplog):
    with caplog.at_level("INFO", "kosmos2_core"), EmulatedCuda() as cuda:
        engine = with_graphs(cuda)
    decode = engine._idle[0].graphs._graphs
    assert list(decode) == [112, 96, 80]
    graphs = [captured.graph for captured in decode.values()]
    graphs.append(engine.components.image_encoder.vision._graph.graph)
    assert len({id(graph.pool) for graph in graphs}) == 1
    assert len({id(graph.stream) for graph in graphs}) == 1
    assert "capturing 4 CUDA graphs, for spans up to 112" in caplog.text


def test_a_capture_that_fails_is_logged_and_does_without(caplog):
    requests = requests_of(pixels(12)[:3], brief())
    expected = tokens(engine_of(shapes(), backend="plain", slots=3), requests)
    with EmulatedCuda() as cuda:
        cuda.is_capture_broken = True
        engine = with_graphs(cuda)
        with cuda.watched() as activity:
            assert tokens(engine, requests) == expected
    assert (activity.replays, activity.synchronous) == (0, [])
    for what in ("steps", "images"):
        assert f"no CUDA graphs of {what}, which will be slower: CUDA error" in caplog.text


@pytest.mark.parametrize("length", [80, 368, 2048])
def test_every_position_of_a_cache_has_a_span(length):
    spans = graph_spans(length)
    assert list(spans) == sorted(set(spans))
    assert (spans[0], spans[-1]) == (80, length)
    assert all(b - a <= 64 for a, b in pairwise(spans))


def test_a_copy_in_a_capture_is_refused_by_the_emulation():
    with EmulatedCuda() as cuda:
        held = torch.zeros(3, device=cuda.device)
        with pytest.raises(RuntimeError, match="when stream is capturing"):
            GraphCapture(cuda.device).capture(lambda: held + to_device([1, 2, 3], cuda.device))


# Launches and transfers per phase, of a model with 6 vision and 4 text layers


PHASES = {
    "vision batch": (89, 1, 0),
    "vision batch of two prompts": (164, 2, 0),
    "prefill": (70, 1, 0),
    "step": (62, 0, 0),
}
# begin, sampler, move
CONSTRAINED = {
    "free": ((0, 0, 0), (12, 0, 1), (2, 0, 0)),
    "n-grams": ((6, 1, 0), (37, 1, 1), (3, 0, 0)),
    "text n-grams": ((6, 1, 0), (37, 1, 1), (3, 0, 0)),
    "strict": ((1, 1, 0), (50, 1, 1), (3, 0, 0)),
    "both": ((7, 2, 0), (72, 1, 1), (4, 0, 0)),
}


def phases(mode):
    """{phase: (launches, uploads, downloads)}; each must wait for nothing."""
    found = {}
    with EmulatedCuda() as cuda, torch.inference_mode():
        engine = engine_of(
            cuda.hold(shapes()), slots=4, vision_batch=4, cuda_graph="off", **MODES[mode]
        )
        parts, memory = engine.components, engine._idle[0]

        def watch(name, call):
            with cuda.watched() as activity:
                result = call()
            assert activity.synchronous == []
            assert activity.waits == 0
            found[name] = (activity.launches, activity.uploads, activity.downloads)
            return result

        requests = requests_of(pixels(12)[:4], brief())
        images = watch("vision batch", lambda: parts.image_encoder.encode(requests))
        both = requests_of(pixels(12)[:4], brief(), detailed())
        watch("vision batch of two prompts", lambda: parts.image_encoder.encode(both))
        watch("begin", lambda: memory.begin(0, [brief()] * 4))
        features = torch.stack([image.features for image in images])
        batch = TokenBatch(first_slot=0, ids=[brief().ids] * 4, start=0)
        logits = watch("prefill", lambda: parts.decoder(memory.cache, batch, features))
        lengths = [len(brief().ids)] * 4
        choose = partial(parts.sampler, logits, memory.constraints, 0, lengths)
        watch("sampler", choose)
        starts = to_device(lengths, cuda.device)
        step = partial(parts.step, memory.cache, memory.tokens, starts, span=96)
        watch("step", step)
        watch("move", lambda: memory.move(3, 0, 80))
    return found


@pytest.mark.parametrize("mode", MODES)
def test_each_phase_launches_and_copies_what_it_must(mode):
    begin, sampler, move = CONSTRAINED[mode]
    assert phases(mode) == {**PHASES, "begin": begin, "sampler": sampler, "move": move}


# What the emulation finds


def test_synchronous_copies_are_seen():
    with EmulatedCuda() as cuda:
        held = torch.zeros(4, 3, device=cuda.device)
        host = torch.ones(4, 3)
        calls = [
            lambda: torch.tensor([1, 2], device="cuda"),
            lambda: host.to(cuda.device),
            lambda: host.pin_memory().to(cuda.device),
            lambda: held[[0, 2]],
            lambda: held[torch.tensor([0, 2])],
            lambda: held[held > 0],
            lambda: held.copy_(host),
            lambda: held.__setitem__(0, 1.0),
            held.cpu,
            held.tolist,
            lambda: bool(held.any()),
            held.nonzero,
            torch.cuda.synchronize,
        ]
        for call in calls:
            with cuda.watched() as activity:
                call()
            assert len(activity.synchronous) == 1
        with cuda.watched() as activity:
            held[torch.arange(2, device=cuda.device)] += host.pin_memory().to(
                cuda.device, non_blocking=True
            )[:2]
            held[1:3].fill_(2)
        assert activity.synchronous == []
        with pytest.raises(RuntimeError, match="same device"):
            held + host


@pytest.mark.parametrize("index", [0, 1])
def test_values_are_there_only_after_an_event_on_their_own_device(index):
    with EmulatedCuda(index, current=0) as cuda:
        held = torch.full((3,), 5, device=cuda.device)
        host = torch.empty_like(held, device="cpu", pin_memory=True)
        host.copy_(held, non_blocking=True)
        event = torch.cuda.Event()
        event.record()  # on the current device
        assert host.tolist() == [GARBAGE] * 3
        event.synchronize()
        assert host.tolist() == ([5] * 3 if index == 0 else [GARBAGE] * 3)
        assert list(AsyncCopy(held).values()) == [5, 5, 5]
