"""A synthetic world of coloured shapes: scenes whose captions and boxes are known exactly.

Sizes are shares of each side, because the model sees every image squashed to 224 x 224.
The box of an object that another covers in part is the box of what is seen of it.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from kosmos2_core.grounding.grid import XYXY
from kosmos2_core.prompts.tasks import PLAIN
from kosmos2_core.shapes.world.painting import (
    INSIDE,
    Floats,
    add_noise,
    paint_background,
    paint_shape,
)
from kosmos2_core.shapes.world.pillow_painting import paint_shape_with_pillow
from kosmos2_core.shapes.world.placing import Placed, cover, place
from kosmos2_core.shapes.world.ranges import MAX_OBJECTS, PLAIN_WORLD, Range
from kosmos2_core.shapes.world.wording import enumerate_phrases, phrase_for

COLOURS = {
    "red": (220, 40, 40),
    "green": (40, 165, 60),
    "blue": (45, 75, 215),
    "yellow": (240, 220, 50),
    "orange": (245, 140, 30),
    "purple": (130, 50, 170),
    "pink": (240, 115, 175),
    "cyan": (50, 210, 220),
    "white": (242, 242, 242),
    "black": (18, 18, 18),
}
MIN_SIDE = 16  # pixels
PLACINGS = 60  # tries to find an arrangement in which enough is seen of every object

ColouredShape = tuple[str, str]  # colour, shape
PhraseBoxes = tuple[str, tuple[XYXY, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneObject:
    """One painted shape. `phrase` is its name in the caption: "an orange star", or
    "two red circles" for either of two. `box` is normalised xyxy of what is seen of it,
    `outline` of the whole shape; greater `depth` is painted over smaller."""

    phrase: str
    box: XYXY
    colour: str
    shape: str
    outline: XYXY
    depth: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """`objects` ordered by left edge; `caption` a whole sentence; `pixels` uint8 RGB [H, W, 3]."""

    objects: tuple[SceneObject, ...]
    caption: str
    pixels: NDArray[np.uint8]

    @property
    def entities(self) -> tuple[PhraseBoxes, ...]:
        """The phrases of the caption, in its order, each with the boxes of its objects."""
        return entities_of(self.objects)


def entities_of(objects: tuple[SceneObject, ...]) -> tuple[PhraseBoxes, ...]:
    boxes: dict[str, tuple[XYXY, ...]] = {}
    for item in objects:
        boxes[item.phrase] = (*boxes.get(item.phrase, ()), item.box)
    return tuple(boxes.items())


def make_scene(
    seed: int,
    index: int,
    *,
    width: int | None = None,
    height: int | None = None,
    objects: tuple[int, int] | None = None,
    world: Range = PLAIN_WORLD,
) -> Scene:
    """The scene number `index` of the world `seed`, whatever else was made before it.

    `objects` is the least and the greatest number of shapes, within 0..6. A side not given is
    drawn from the seed; objects, colours and boxes are the same at every image size.
    """
    objects = objects or world.objects
    check_scene(seed, objects, width, height)
    rng = np.random.default_rng([seed, index])
    drawn_width, drawn_height = _image_size(rng, world)
    number = int(rng.integers(*objects, endpoint=True))
    ends = _background_colours(rng)
    kinds, placed = _arrange(rng, number, ends, world)
    canvas = paint_background(rng, width or drawn_width, height or drawn_height, ends)
    _paint(rng, canvas, kinds, placed, world)
    add_noise(rng, canvas, world.max_noise)
    items = _named(kinds, placed)
    phrases = [phrase for phrase, _ in entities_of(items)]
    return Scene(
        objects=items,
        caption=f"{PLAIN.prompt} {enumerate_phrases(phrases)}.",
        pixels=np.clip(canvas + 0.5, 0, 255).astype(np.uint8).transpose(1, 2, 0).copy(),
    )


def check_scene(seed: int, objects: tuple[int, int], width: int | None, height: int | None) -> None:
    low, high = objects
    if seed < 0:
        raise ValueError(f"the seed {seed} is negative")
    if not 0 <= low <= high <= MAX_OBJECTS:
        raise ValueError(f"objects {low}-{high}: want 0 <= low <= high <= {MAX_OBJECTS}")
    for side in (width, height):
        if side is not None and side < MIN_SIDE:
            raise ValueError(f"a side of {side} px: want at least {MIN_SIDE}")


def _image_size(rng: np.random.Generator, world: Range) -> tuple[int, int]:
    """Width and height in pixels within `sides`, the longer at most twice the shorter."""
    mean_side = rng.uniform(world.sides[0] * 2**0.5, world.sides[1] / 2**0.5)
    stretch = 2 ** rng.uniform(-0.5, 0.5)
    return round(mean_side * stretch), round(mean_side / stretch)


def _background_colours(rng: np.random.Generator) -> Floats:
    """Two muted colours near each other, float32 [2, 3] in 0..255."""
    first = rng.uniform(50, 205) + rng.uniform(-20, 20, 3)
    return np.clip([first, first + rng.uniform(-30, 30, 3)], 0, 255).astype(np.float32)


def _arrange(
    rng: np.random.Generator, number: int, ends: Floats, world: Range
) -> tuple[list[ColouredShape], list[Placed]]:
    """What stands where. Fewer and fewer shapes touch, so the search ends."""
    kinds = _choose_kinds(rng, number, ends, world)
    if not world.min_visible:
        boxes = place(rng, number, world)
        return kinds, [
            Placed(shape=shape, outline=box, box=box, depth=depth)
            for depth, ((_, shape), box) in enumerate(zip(kinds, boxes, strict=True))
        ]
    for tries in range(PLACINGS):
        looser = replace(world, max_overlap=world.max_overlap * (1 - tries / PLACINGS))
        if (placed := cover(rng, kinds, place(rng, number, looser), world)) is not None:
            return kinds, placed
    apart = replace(world, max_overlap=0.0)
    placed = cover(rng, kinds, place(rng, number, apart), world)
    assert placed is not None, "shapes apart from each other are all seen"
    return kinds, placed


def _choose_kinds(
    rng: np.random.Generator, number: int, ends: Floats, world: Range
) -> list[ColouredShape]:
    """`number` (colour, shape), each colour in contrast to the whole background.

    All are different, but for the two of one kind that a world may have.
    """
    behind = np.array([ends[0], ends.mean(0), ends[1]])
    kinds = [
        (name, shape)
        for name, colour in COLOURS.items()
        if np.abs(behind - colour).sum(1).min() > world.min_contrast
        for shape in INSIDE
    ]
    chosen = [kinds[at] for at in rng.choice(len(kinds), number, replace=False)]
    if number > 1 and world.pair_share and rng.uniform() < world.pair_share:
        first, second = rng.choice(number, 2, replace=False)
        chosen[second] = chosen[first]
    return chosen


def _paint(
    rng: np.random.Generator,
    canvas: Floats,
    kinds: list[ColouredShape],
    placed: list[Placed],
    world: Range,
) -> None:
    is_pillow = bool(world.pillow_share) and rng.uniform() < world.pillow_share
    paint = paint_shape_with_pillow if is_pillow else paint_shape
    colours = [_jitter(rng, colour, world.jitter) for colour, _ in kinds]
    for at in sorted(range(len(placed)), key=lambda at: placed[at].depth):
        paint(canvas, placed[at].shape, colours[at], placed[at].outline)


def _jitter(rng: np.random.Generator, colour: str, most: float) -> Floats:
    """The colour's RGB, float32 [3], each channel moved by at most `most`."""
    moved = np.add(COLOURS[colour], rng.uniform(-most, most, 3))
    return np.clip(moved, 0, 255).astype(np.float32)


def _named(kinds: list[ColouredShape], placed: list[Placed]) -> tuple[SceneObject, ...]:
    return tuple(
        SceneObject(
            phrase=phrase_for(*kind, kinds.count(kind)),
            box=place.box,
            colour=kind[0],
            shape=kind[1],
            outline=place.outline,
            depth=place.depth,
        )
        for kind, place in zip(kinds, placed, strict=True)
    )
