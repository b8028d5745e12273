"""How many slots fit into the memory there is: known from a checkpoint's headers, before loading.

>>> needs = memory_needs(locate_checkpoint("shapes"), dtype=torch.float32, length=331)
>>> needs.most_slots(available_bytes(device))
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from safetensors import SafetensorError, safe_open
from transformers.models.kosmos2.configuration_kosmos2 import Kosmos2TextConfig, Kosmos2VisionConfig

from kosmos2_core.checkpoint.files import CheckpointFiles
from kosmos2_core.checkpoint.modules import model_config
from kosmos2_core.engine.model.kv_cache import bucketed
from kosmos2_core.engine.requests import PREFIX_LENGTH
from kosmos2_core.errors import NotEnoughMemory
from kosmos2_core.generation import MOST_SLOTS

RUNTIME_BYTES = 512 << 20  # what torch takes and keeps while it works
_PREFILLED = 48 * 75  # tokens of one prefill: rows, and a prompt with its image
# Images encoded at a time. Of 8 images the features of a layer leave the cache of a CPU core: each
# costs a third more. A GPU is not full before some tens, by reasoning alone.
_VISION_BATCH = {"cpu": 4, "cuda": 32}
_SHARE = 0.9  # of what is available; the rest is for other processes
_GIB = 1 << 30

_PROC = Path("/proc/self/cgroup")
_CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryNeeds:
    """Bytes that the checkpoint `id` takes. `fixed`: weights, and images and prompts in flight.

    `per_slot`: keys and values of the longest prompt and answer; those of an image that prompts
    share; a step in flight, and its logits.
    """

    id: str
    weights: int
    fixed: int
    per_slot: int

    def total(self, slots: int) -> int:
        return self.fixed + slots * self.per_slot

    def most_slots(self, available: int) -> int:
        return max((int(available * _SHARE) - self.fixed) // self.per_slot, 0)

    def describe(self, slots: int) -> str:
        return (
            f"{slots} slots need about {_gib(self.total(slots))} of memory (weights "
            f"{_gib(self.weights)}, each slot {self.per_slot / (1 << 20):.0f} MiB)"
        )


def vision_batch_for(device_type: str) -> int:
    """Return how many images are encoded at a time."""
    return _VISION_BATCH.get(device_type, 8)


def choose_slots(
    needs: MemoryNeeds, *, asked: int | None, available: int, device: torch.device
) -> int:
    """Return `asked`, or as many slots as fit and help. Raises NotEnoughMemory."""
    fitting = needs.most_slots(available)
    wanted = 1 if asked is None else asked
    if wanted > fitting:
        remedy = f"use at most {fitting} slots" if fitting else "use a machine with more memory"
        raise NotEnoughMemory(
            f"checkpoint {needs.id}: {needs.describe(wanted)}, but only {_gib(available)} are "
            f"available: {remedy}, or half precision"
        )
    return min(fitting, MOST_SLOTS.get(device.type, 16)) if asked is None else asked


def memory_needs(
    files: CheckpointFiles,
    *,
    dtype: torch.dtype,
    length: int,
    vision_batch: int = 8,
    copies: int = 1,
    are_images_shared: bool = True,
) -> MemoryNeeds:
    """`length` of the longest prompt and answer together; `copies` of the weights: an engine that
    keeps the model needs two; `are_images_shared` by several prompts. Raises CheckpointError for
    damaged files.
    """
    config = model_config(files)
    return needs_of(
        files.id,
        config.text_config,
        config.vision_config,
        parameters=_parameters(files),
        dtype=dtype,
        length=length,
        vision_batch=vision_batch,
        copies=copies,
        are_images_shared=are_images_shared,
    )


def needs_of(
    name: str,
    text: Kosmos2TextConfig,
    vision: Kosmos2VisionConfig,
    *,
    parameters: int,
    dtype: torch.dtype,
    length: int,
    vision_batch: int,
    copies: int,
    are_images_shared: bool,
) -> MemoryNeeds:
    """Return the needs of a model that may have no files, as `memory_needs` does."""
    # The head is packed beside the embedding that it shares its weight with.
    parameters = copies * parameters + text.vocab_size * text.embed_dim
    images = vision_batch * ((vision.image_size // vision.patch_size) ** 2 + 1)
    seen = images * (2 * vision.intermediate_size + 8 * vision.hidden_size)
    cached = 2 * text.layers * text.embed_dim  # of one token
    kept = bucketed(length + 1) + (PREFIX_LENGTH if are_images_shared else 0)
    scratch = vision_batch * bucketed(PREFIX_LENGTH) * cached
    read = 2 * text.ffn_dim + 8 * text.embed_dim  # of one token
    weights = parameters * dtype.itemsize
    return MemoryNeeds(
        id=name,
        weights=weights,
        fixed=weights + RUNTIME_BYTES + (seen + scratch + _PREFILLED * read) * dtype.itemsize,
        # Of logits some float32 copies and masks at once, and again in the pool of CUDA graphs.
        per_slot=(kept * cached + read) * dtype.itemsize + text.vocab_size * 32,
    )


def _parameters(files: CheckpointFiles) -> int:
    count = 0
    for path in files.weights:
        try:
            with safe_open(path, "pt") as file:
                shapes = (file.get_slice(name).get_shape() for name in file.keys())  # noqa: SIM118
                count += sum(map(math.prod, shapes))
        except (SafetensorError, OSError) as error:
            raise files.error(f"{path.name} is damaged ({error}); fetch it again") from error
    return count


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / _GIB:.1f} GiB"


def available_bytes(device: torch.device, *, gpu_share: float = 1) -> int:
    """Return the free bytes of the GPU, or of the machine within our control groups' limits.

    With others on the same GPU, at most `gpu_share` of its memory: all may start at once.
    """
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        return min(free, int(total * gpu_share))
    machine: int = psutil.virtual_memory().available
    return min([machine, *cgroup_rooms()])


def cgroup_rooms(listing: Path = _PROC, root: Path = _CGROUPS) -> Iterator[int]:
    """Yield the bytes left under each of our groups' limits, up to the root: containers have one.

    Both layouts of Linux, versions 2 and 1; nothing on other systems.
    """
    if not listing.exists():
        return
    for line in listing.read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "memory"):
            top = root / controllers
            group = top / path.lstrip("/")
            for directory in [group, *group.parents][: len(group.parts) - len(top.parts) + 1]:
                yield from _room(directory)


def _room(group: Path) -> Iterator[int]:
    for limit, usage, cache in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        if (group / limit).exists() and (said := (group / limit).read_text().strip()) != "max":
            used = int((group / usage).read_text())
            yield max(int(said) - used + _stat(group, cache), 0)


def _stat(group: Path, name: str) -> int:
    """Cached files count as used, but give way."""
    lines = (group / "memory.stat").read_text().splitlines()
    return next((int(line.split()[1]) for line in lines if line.split()[0] == name), 0)
