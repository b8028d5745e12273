"""Slots are chosen from the memory there is, before anything is loaded."""

import json
import shutil

import pytest
import torch
from safetensors.torch import save_file
from transformers import Kosmos2Config

from kosmos2_core import annotator as annotator_module
from kosmos2_core.annotator import Annotator
from kosmos2_core.checkpoint.files import SHAPES_DIRECTORY, CheckpointFiles, locate_checkpoint
from kosmos2_core.checkpoint.load import load_checkpoint
from kosmos2_core.engine import capacity
from kosmos2_core.engine.capacity import (
    MemoryNeeds,
    available_bytes,
    cgroup_rooms,
    choose_slots,
    memory_needs,
)
from kosmos2_core.errors import CheckpointError, NotEnoughMemory
from kosmos2_core.generation import Generation
from kosmos2_core.prompts.length import most_tokens
from kosmos2_core.prompts.tasks import BRIEF, DETAILED, Task
from tests.support.engine_models import engine_of, pixels, prompt_of, requests_of, shapes
from tests.support.peak_memory import peak_bytes

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
GIB = 1 << 30
NEEDS = MemoryNeeds(id="x", weights=6 * GIB, fixed=7 * GIB, per_slot=GIB // 4)


@pytest.fixture(scope="module")
def full_size(tmp_path_factory):
    """The config of the real model and a weight of as many parameters, all headers, no data."""
    directory = tmp_path_factory.mktemp("full")
    config = Kosmos2Config().to_dict()
    (directory / "config.json").write_text(json.dumps(config))
    # A sparse file: 1,664,485,376 parameters of one byte each take no room on the disk.
    header = {"w": {"dtype": "U8", "shape": [1_664_485_376], "data_offsets": [0, 1_664_485_376]}}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with (directory / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + 1_664_485_376)
    return CheckpointFiles(id="full", directory=directory)


@pytest.mark.parametrize(
    ("dtype", "weights"),
    [(torch.float32, 7.19e9), (torch.bfloat16, 3.6e9), (torch.float16, 3.6e9)],
    ids=str,
)
def test_the_full_model_needs_what_its_config_says(full_size, dtype, weights):
    needs = memory_needs(full_size, dtype=dtype, length=331)
    assert needs.weights == pytest.approx(weights, rel=0.01)
    cached = 24 * 2048 * 2 * (336 + 67) * dtype.itemsize  # the longest answer, an image's head
    assert cached < needs.per_slot < 1.2 * cached
    assert needs.fixed - needs.weights < 1.3 * GIB


def test_the_weights_of_a_loaded_model_are_those_of_its_headers():
    needs = memory_needs(locate_checkpoint("shapes"), dtype=torch.float32, length=200)
    model = shapes().model
    head = model.text_model.lm_head.weight
    held = sum(weight.numel() for weight in model.parameters()) + head.numel()
    assert needs.weights == 4 * held


def test_a_model_that_is_kept_counts_twice(full_size):
    one, two = (memory_needs(full_size, dtype=torch.float32, length=200, copies=n) for n in (1, 2))
    assert two.fixed - one.fixed == two.weights - one.weights == 4 * 1_664_485_376


@pytest.mark.parametrize(
    ("dtype", "slots", "tasks"),
    [
        (torch.float16, 256, (BRIEF,)),
        (torch.float16, 24, (BRIEF, DETAILED)),
        (torch.float32, 16, (DETAILED,)),
    ],
    ids=["brief", "both", "float32"],
)
def test_the_estimate_is_close_to_the_peak(full_size, dtype, slots, tasks):
    length = max(map(most_tokens, tasks))
    needs = memory_needs(full_size, dtype=dtype, length=length, are_images_shared=len(tasks) > 1)
    peak = peak_bytes(
        Generation(slots=slots, no_repeat_ngram_size=3),
        dtype=dtype,
        length=length,
        prompts=tuple(prompt_of(shapes, task) for task in tasks),
        vision_batch=8,
        prefilled=8,
    )
    assert 0.8 < needs.total(slots) / peak < 1.3


@pytest.mark.parametrize("vision_batch", [1, 8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_longer_answers_and_more_images_need_more(full_size, dtype, vision_batch):
    def needs(length, batch=vision_batch):
        return memory_needs(full_size, dtype=dtype, length=length, vision_batch=batch)

    assert needs(400).per_slot > needs(200).per_slot
    assert needs(200, vision_batch + 1).fixed > needs(200).fixed
    assert needs(200).total(3) == needs(200).fixed + 3 * needs(200).per_slot


@pytest.mark.parametrize(
    ("asked", "gib", "device", "slots"),
    [
        (None, 100, CPU, 16),
        (None, 10, CPU, 8),  # (0.9 * 10 - 7) * 4
        (None, 100, CUDA, 256),
        (None, 40, CUDA, 116),
        (3, 10, CPU, 3),
        (40, 100, CPU, 40),
        (300, 100, CUDA, 300),
    ],
)
def test_slots_are_as_asked_or_as_many_as_fit_and_help(asked, gib, device, slots):
    assert choose_slots(NEEDS, asked=asked, available=gib * GIB, device=device) == slots


@pytest.mark.parametrize(
    ("asked", "gib", "said"),
    [
        (20, 10, "20 slots need about 12.0 GiB .* 10.0 GiB are available: use at most 8 slots"),
        (None, 7, "1 slots? need about 7.2 GiB .*: use a machine with more memory, or half"),
        (1, 0, "use a machine with more memory"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_would(asked, gib, said):
    with pytest.raises(NotEnoughMemory, match=said):
        choose_slots(NEEDS, asked=asked, available=gib * GIB, device=CPU)


def test_too_many_slots_are_refused_before_anything_is_loaded(monkeypatch):
    monkeypatch.setattr(annotator_module, "load_checkpoint", None)
    with pytest.raises(NotEnoughMemory, match=r"checkpoint shapes: 10000000 slots need about"):
        Annotator.from_pretrained("shapes", device="cpu", generation=Generation(slots=10_000_000))


def test_longer_tasks_leave_fewer_slots(monkeypatch):
    monkeypatch.setattr(annotator_module, "available_bytes", lambda device, **_: int(0.7 * GIB))
    long = Task(name="long", prompt="<grounding>", max_new_tokens=1900)

    def slots(task):
        return Annotator.from_pretrained("shapes", device="cpu", tasks=[task]).generation.slots

    assert 1 <= slots(long) < slots(BRIEF) == 16


def test_damaged_headers_are_an_error_of_the_checkpoint(tmp_path):
    shutil.copytree(SHAPES_DIRECTORY, tmp_path, dirs_exist_ok=True)
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match=r"model.safetensors is damaged .*fetch it again"):
        Annotator.from_pretrained(str(tmp_path), device="cpu")


def test_sharded_weights_are_counted_together(tmp_path):
    shutil.copy(SHAPES_DIRECTORY / "config.json", tmp_path)
    one = memory_needs(parts(tmp_path, 1), dtype=torch.float32, length=200)
    two = memory_needs(parts(tmp_path, 2), dtype=torch.float32, length=200)
    assert two.weights - one.weights == 4 * 12


def parts(directory, count):
    for part in range(count):
        save_file({f"w{part}": torch.zeros(3, 4)}, directory / f"model-{part}.safetensors")
    return CheckpointFiles(id="parts", directory=directory)


# How much there is


def control_group(directory, limit, usage, cache, *, version):
    names = {
        2: ("memory.max", "memory.current", "inactive_file"),
        1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    }[version]
    directory.mkdir(parents=True, exist_ok=True)
    (directory / names[0]).write_text(f"{limit}\n")
    (directory / names[1]).write_text(f"{usage}\n")
    (directory / "memory.stat").write_text(f"anon 5\n{names[2]} {cache}\n")


@pytest.mark.parametrize(
    ("version", "line"), [(2, "0::/pods/ours"), (1, "4:memory:/pods/ours")], ids=["v2", "v1"]
)
def test_the_room_under_every_control_group_counts(tmp_path, version, line):
    listing, root = tmp_path / "cgroup", tmp_path / "sys"
    listing.write_text(f"3:cpuset:/\n{line}\n")
    top = root if version == 2 else root / "memory"
    assert list(cgroup_rooms(listing, root)) == []
    control_group(top / "pods" / "ours", 1000, 700, 50, version=version)
    assert list(cgroup_rooms(listing, root)) == [350]
    control_group(top / "pods", 800, 900, 0, version=version)
    assert list(cgroup_rooms(listing, root)) == [350, 0]
    control_group(top, "max" if version == 2 else 1 << 62, 10, 0, version=version)
    assert min(cgroup_rooms(listing, root)) == 0


def test_the_tightest_limit_is_what_is_available(monkeypatch):
    machine = available_bytes(CPU)
    assert 0 < machine < 1 << 50
    monkeypatch.setattr(capacity, "cgroup_rooms", lambda: [5000, 4000])
    assert available_bytes(CPU) == 4000


@pytest.mark.parametrize(("share", "available"), [(1, 700), (0.5, 500), (0.75, 700)])
def test_actors_that_share_a_gpu_share_its_memory(monkeypatch, share, available):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (700, 1000))
    assert available_bytes(CUDA, gpu_share=share) == available


def test_a_system_without_control_groups_has_no_limits(tmp_path):
    assert list(cgroup_rooms(tmp_path / "none", tmp_path)) == []


# One copy of the weights


@pytest.mark.parametrize("backend", ["plain", "onednn"])
def test_weights_that_moved_into_the_engine_say_the_same(backend):
    requests = requests_of(pixels(64)[:5], prompt_of(shapes))
    whole = [c.token_ids for c in engine_of(shapes(), backend=backend).generate(requests)]
    checkpoint = load_checkpoint("shapes", device="cpu")
    engine = engine_of(checkpoint, backend=backend, keep_model=False)
    assert [c.token_ids for c in engine.generate(requests)] == whole
    layers = (
        *checkpoint.model.text_model.model.layers,
        *checkpoint.model.vision_model.model.encoder.layers,
    )
    assert {w.device.type for layer in layers for w in layer.parameters()} == {"meta"}


def test_a_model_that_is_kept_stays_whole():
    engine_of(shapes())
    assert {weight.device.type for weight in shapes().model.parameters()} == {"cpu"}
