"""Training samples: the model's input, the object in each patch, and exercises."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from kosmos2_core.grounding.grid import GRID, IMAGE_SIZE, cells_of
from kosmos2_core.images.decode import decode_image
from kosmos2_core.shapes.world.exercises import Exercise, Skill, choose_exercises
from kosmos2_core.shapes.world.painting import INSIDE
from kosmos2_core.shapes.world.placing import RASTER, instances
from kosmos2_core.shapes.world.ranges import MAX_OBJECTS, WIDE_WORLD
from kosmos2_core.shapes.world.scenes import COLOURS, Scene, SceneObject, make_scene

PATCHES = 8  # per side; a patch has 28 x 28 pixels, 4 x 4 cells of the grid
SUBCELLS = 7  # per side of a patch; a subcell has 4 x 4 pixels
MIN_SUBCELLS = 3  # of 49: a patch with less of an object has no target
BACKGROUND, IGNORED = -1, -2

SAMPLE_STREAM = 2  # random stream for the sample, separate from the scene's
NUMBER_SHARES = (0.04, 0.12, 0.14, 0.16, 0.16, 0.19, 0.19)  # shares of scenes with 0..6 objects
NATIVE_SHARE = 0.4  # share of images painted at another size and resized
NATIVE_SIDES = (112, 400)  # pixels
JPEG_SHARE = 0.5  # share of the 224 x 224 ones that are encoded as JPEG
SUBSAMPLINGS = ("444", "420")

# Targets of each patch that shows an object, with their number of classes. Rank is by left edge.
# Entity is the index of its phrase in the caption. Member is 0 for the only object of its kind, 1
# and 2 for the left and the right one of two.
ATTRIBUTES = {
    "colour": len(COLOURS),
    "shape": len(INSIDE),
    "rank": MAX_OBJECTS,
    "entity": MAX_OBJECTS,
    "member": 3,
    "count": MAX_OBJECTS + 1,
}
EDGES = ("left", "top", "right", "bottom")  # cells of the grid
PAIR_SHARE = 0.4  # twice that of the world, because pairs are learnt last
TRAINED = replace(WIDE_WORLD, pair_share=PAIR_SHARE)

COLOUR_INDEX = {colour: at for at, colour in enumerate(COLOURS)}
SHAPE_INDEX = {shape: at for at, shape in enumerate(INSIDE)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Dense:
    """The dense targets of a sample. A patch shows the object that fills most of it.

    owner: int8 [64], index of the object, BACKGROUND or IGNORED. mask: bool [64, 49], whether a
    subcell shows any object. attributes: int64 [objects, 6 + 4], `ATTRIBUTES` and then `EDGES`.
    twin: int64 [objects], index of the other object of the kind, -1 if there is none.
    """

    owner: NDArray[np.int8]
    mask: NDArray[np.bool_]
    attributes: NDArray[np.int64]
    twin: NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSample:
    """A training sample. `pixels` is uint8 [3, 224, 224]."""

    pixels: NDArray[np.uint8]
    dense: Dense
    exercises: tuple[Exercise, ...]


def make_sample(seed: int, index: int, others: int | None, drills: int = 0) -> TrainingSample:
    """Make a sample with captions and `others` more exercises; None for no exercises at all.

    See `choose_exercises` for `drills`.
    """
    rng = np.random.default_rng([seed, index, SAMPLE_STREAM])
    number = int(rng.choice(MAX_OBJECTS + 1, p=NUMBER_SHARES))
    is_native = rng.uniform() < NATIVE_SHARE
    width, height = rng.integers(*NATIVE_SIDES, 2) if is_native else (IMAGE_SIZE, IMAGE_SIZE)
    scene = make_scene(
        seed, index, width=int(width), height=int(height), objects=(number, number), world=TRAINED
    )
    is_jpeg = is_native or rng.uniform() < JPEG_SHARE
    asked = () if others is None else choose_exercises(rng, scene, _captions(rng), others, drills)
    return TrainingSample(
        pixels=_through_jpeg(rng, scene) if is_jpeg else scene.pixels.transpose(2, 0, 1),
        dense=dense_of(scene),
        exercises=tuple(asked),
    )


def dense_of(scene: Scene) -> Dense:
    """Compute the dense targets of a scene."""
    objects = scene.objects
    step = RASTER // (PATCHES * SUBCELLS)
    seen = instances(
        [item.shape for item in objects],
        [item.outline for item in objects],
        [item.depth for item in objects],
    )[step // 2 :: step, step // 2 :: step]
    patches = (
        seen.reshape(PATCHES, SUBCELLS, PATCHES, SUBCELLS)
        .transpose(0, 2, 1, 3)
        .reshape(PATCHES**2, SUBCELLS**2)
    )
    return Dense(
        owner=_owners(patches, len(objects)),
        mask=patches >= 0,
        attributes=_attributes(objects),
        twin=_twins(objects),
    )


def _owners(patches: NDArray[np.int8], number: int) -> NDArray[np.int8]:
    if not number:
        return np.full(len(patches), BACKGROUND, np.int8)
    counts = np.stack([(patches == at).sum(1) for at in range(number)])  # [objects, 64]
    most = counts.max(0)
    owner: NDArray[np.int8] = counts.argmax(0).astype(np.int8)
    owner[most < MIN_SUBCELLS] = IGNORED
    owner[most == 0] = BACKGROUND
    return owner


def _attributes(objects: tuple[SceneObject, ...]) -> NDArray[np.int64]:
    phrases = list(dict.fromkeys(item.phrase for item in objects))
    rows = []
    for rank, (item, twin) in enumerate(zip(objects, _twins(objects).tolist(), strict=True)):
        ul, lr = cells_of(item.box)
        rows.append(
            (
                COLOUR_INDEX[item.colour],
                SHAPE_INDEX[item.shape],
                rank,
                phrases.index(item.phrase),
                0 if twin < 0 else 1 if rank < twin else 2,
                len(objects),
                *(ul % GRID, ul // GRID, lr % GRID, lr // GRID),
            )
        )
    return np.array(rows, np.int64).reshape(-1, len(ATTRIBUTES) + len(EDGES))


def _twins(objects: tuple[SceneObject, ...]) -> NDArray[np.int64]:
    phrases = [item.phrase for item in objects]
    others = (
        next((at for at, other in enumerate(phrases) if other == phrase and at != rank), -1)
        for rank, phrase in enumerate(phrases)
    )
    return np.fromiter(others, np.int64, len(phrases))


def _captions(rng: np.random.Generator) -> Sequence[Skill]:
    grounded = Skill.BRIEF if rng.uniform() < 0.6 else Skill.DETAILED
    plain = Skill.PLAIN_BRIEF if rng.uniform() < 0.6 else Skill.PLAIN_DETAILED
    return (grounded, plain) if rng.uniform() < 0.3 else (grounded,)


def _through_jpeg(rng: np.random.Generator, scene: Scene) -> NDArray[np.uint8]:
    """Encode a scene as JPEG, then decode and resize it as the pipeline does."""
    quality = int(rng.integers(*WIDE_WORLD.qualities, endpoint=True))
    jpeg = simplejpeg.encode_jpeg(
        scene.pixels,
        quality=quality,
        colorspace="RGB",
        colorsubsampling=SUBSAMPLINGS[rng.integers(len(SUBSAMPLINGS))],
    )
    return decode_image(jpeg).pixels
