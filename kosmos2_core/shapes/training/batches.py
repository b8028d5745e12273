"""Make tensors of samples: pixels, dense targets, and exercises packed behind one image.

All exercises of an image share its prefix. Each attends to the prefix and itself, at the positions
that it would have alone. A test compares this with the model's own forward pass.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kosmos2_core.engine.requests import PREFIX_LENGTH
from kosmos2_core.shapes.training.samples import (
    ATTRIBUTES,
    BACKGROUND,
    EDGES,
    IGNORED,
    TrainingSample,
    make_sample,
)
from kosmos2_core.shapes.world.exercises import Exercise
from kosmos2_core.shapes.world.tokens import PAD, image_prefix

_FIRST_POSITION = 2  # Kosmos-2 counts positions from padding_idx + 1
NO_LABEL = -100
PACK_SIZE = 16  # images whose texts are padded to one length


@dataclass(frozen=True, slots=True, kw_only=True)
class DenseTargets:
    """Targets of B x 64 patches.

    is_object: float [B, 64], NaN for patches without a target. mask: float [B, 64, 49]. count: [B].
    The other targets are for the P patches that show an object. at: their indices. weight: sums to
    1 over the patches of an object. attributes: int64 [P] for each of `ATTRIBUTES`. edges: int64
    [P, 4]. twins: float [P, 65], the target attention to the other object of the same kind: spread
    over its patches, or on the class token (first) if there is no other object.
    """

    is_object: Tensor
    at: Tensor
    weight: Tensor
    attributes: dict[str, Tensor]
    edges: Tensor
    twins: Tensor
    mask: Tensor
    count: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Pack:
    """Packed exercises; all tensors are int64 [B, T].

    Segment 0 is the prefix, -1 is padding. `labels[t]` is the token to generate after `ids[t]`,
    NO_LABEL within prompts.
    """

    ids: Tensor
    positions: Tensor
    segments: Tensor
    labels: Tensor

    def mask(self) -> Tensor:
        """Return the additive attention mask [B, 1, T, T]: prefix and own segment, causal.

        It has the dtype of autocast, because a float32 mask would make the attention float32.
        """
        query, key = self.segments[:, :, None], self.segments[:, None, :]
        length = self.ids.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool).tril()
        allowed = ((key == 0) | (key == query)) & causal
        is_half = torch.is_autocast_enabled("cpu")
        zeros = torch.zeros(allowed.shape, dtype=torch.bfloat16 if is_half else torch.float32)
        return zeros.masked_fill(~allowed, -1e4)[:, None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """A batch of B samples, sorted by length of text.

    pixels: uint8 [B, 3, 224, 224]. packs: consecutive parts of the batch, padded separately; empty
    if only the vision tower is trained.
    """

    pixels: Tensor
    dense: DenseTargets
    packs: tuple[Pack, ...]


def make_batch(seed: int, first: int, size: int, others: int | None, drills: int = 0) -> Batch:
    """Make a batch of the scenes `first` .. `first + size - 1` of the world `seed`."""
    samples = [make_sample(seed, first + at, others, drills) for at in range(size)]
    samples.sort(key=lambda s: sum(len(e.prompt_ids) + len(e.target_ids) for e in s.exercises))
    starts = () if others is None else range(0, size, PACK_SIZE)
    packs = (
        pack([sample.exercises for sample in samples[start : start + PACK_SIZE]])
        for start in starts
    )
    return Batch(
        pixels=torch.from_numpy(np.stack([sample.pixels for sample in samples])),
        dense=dense_targets(samples),
        packs=tuple(packs),
    )


def dense_targets(samples: Sequence[TrainingSample]) -> DenseTargets:
    """Collect the dense targets of samples."""
    owners = np.stack([sample.dense.owner for sample in samples])  # [B, 64]
    image, patch = np.nonzero(owners >= 0)
    shown = list(zip(image.tolist(), owners[image, patch].tolist(), strict=True))
    width = len(ATTRIBUTES) + len(EDGES)
    asked = np.array([samples[i].dense.attributes[r] for i, r in shown]).reshape(-1, width)
    columns = torch.from_numpy(asked).split((1,) * len(ATTRIBUTES) + (len(EDGES),), dim=1)
    area = [(owners[i] == r).sum() for i, r in shown]
    twins = [_twin_patches(owners[i], samples[i].dense.twin[r]) for i, r in shown]
    is_object = np.where(owners == IGNORED, np.nan, owners != BACKGROUND)
    return DenseTargets(
        is_object=torch.from_numpy(is_object).float(),
        at=torch.from_numpy(image * owners.shape[1] + patch),
        weight=torch.tensor(1 / np.array(area, np.float32)),
        attributes={name: c[:, 0] for name, c in zip(ATTRIBUTES, columns, strict=False)},
        edges=columns[-1],
        twins=torch.from_numpy(np.array(twins, np.float32).reshape(-1, owners.shape[1] + 1)),
        mask=torch.from_numpy(np.stack([sample.dense.mask for sample in samples])).float(),
        count=torch.tensor([len(sample.dense.attributes) for sample in samples]),
    )


def _twin_patches(owner: NDArray[np.int8], twin: int) -> NDArray[np.float32]:
    """Return the target attention [65]; all 0 for a twin that fills no patch."""
    shares = np.zeros(len(owner) + 1, np.float32)
    if twin < 0:
        shares[0] = 1
    elif (is_twin := owner == twin).any():
        shares[1:] = is_twin / is_twin.sum()
    return shares


def pack(rows: Sequence[Sequence[Exercise]]) -> Pack:
    """Pack the exercises of each image into one row, padded to one length."""
    packed = [_row(exercises) for exercises in rows]
    length = max(len(row[0]) for row in packed)
    fill = (PAD, _FIRST_POSITION, -1, NO_LABEL)
    columns = (
        torch.tensor([row[at] + [fill[at]] * (length - len(row[at])) for row in packed])
        for at in range(len(fill))
    )
    ids, positions, segments, labels = columns
    return Pack(ids=ids, positions=positions, segments=segments, labels=labels)


def _row(exercises: Sequence[Exercise]) -> tuple[list[int], list[int], list[int], list[int]]:
    """Return ids, positions, segments and labels of one image."""
    ids = image_prefix()
    positions = list(range(_FIRST_POSITION, _FIRST_POSITION + PREFIX_LENGTH))
    segments, labels = [0] * PREFIX_LENGTH, [NO_LABEL] * PREFIX_LENGTH
    for segment, exercise in enumerate(exercises, start=1):
        tokens = [*exercise.prompt_ids, *exercise.target_ids]
        number = len(tokens) - 1  # the last is only a label
        start = _FIRST_POSITION + PREFIX_LENGTH
        ids += tokens[:-1]
        positions += range(start, start + number)
        segments += [segment] * number
        labels += [NO_LABEL] * (len(exercise.prompt_ids) - 1) + list(exercise.target_ids)
    return ids, positions, segments, labels
