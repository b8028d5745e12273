"""A synthetic world of coloured shapes: scenes with exactly known captions and boxes.

Sizes are shares of each side, because the model's input is resized to 224 x 224.
The box of a partly covered object is the box of its visible part.
"""

from collections import Counter
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
PLACINGS = 60  # tries to find an arrangement with enough of every object visible

ColouredShape = tuple[str, str]  # colour, shape
PhraseBoxes = tuple[str, tuple[XYXY, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class SceneObject:
    """One painted shape.

    `phrase` is its name in the caption: "an orange star", or "two red circles" for each of two.
    Boxes are normalised xyxy: `box` of the visible part, `outline` of the whole shape. Objects with
    a greater `depth` are painted over those with a smaller one.
    """

    phrase: str
    box: XYXY
    colour: str
    shape: str
    outline: XYXY
    depth: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A scene: `objects` by left edge, `caption` as a sentence, `pixels` uint8 RGB [H, W, 3]."""

    objects: tuple[SceneObject, ...]
    caption: str
    pixels: NDArray[np.uint8]

    @property
    def entities(self) -> tuple[PhraseBoxes, ...]:
        """The phrases of the caption in order, each with the boxes of its objects."""
        return entities_of(self.objects)


def entities_of(objects: tuple[SceneObject, ...]) -> tuple[PhraseBoxes, ...]:
    """Group the boxes of objects by phrase."""
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
    """Make scene number `index` of the world `seed`, independently of earlier calls.

    `objects` is the least and the greatest number of shapes, within 0..6. A side that is not given
    is drawn from the seed. Objects, colours and boxes are the same at every image size.

    Raises ValueError for arguments out of range.
    """
    objects = objects or world.objects
    check_scene(seed, objects, width, height)
    rng = np.random.default_rng([seed, index])
    drawn_width, drawn_height = _image_size(rng, world)
    number = int(rng.integers(*objects, endpoint=True))
    ends = _background_colours(rng)
    placed = _arrange(rng, number, ends, world)
    canvas = paint_background(rng, width or drawn_width, height or drawn_height, ends)
    _paint(rng, canvas, placed, world)
    add_noise(rng, canvas, world.max_noise)
    items = _named(placed)
    phrases = [phrase for phrase, _ in entities_of(items)]
    return Scene(
        objects=items,
        caption=f"{PLAIN.prompt} {enumerate_phrases(phrases)}.",
        pixels=np.clip(canvas + 0.5, 0, 255).astype(np.uint8).transpose(1, 2, 0).copy(),
    )


def check_scene(seed: int, objects: tuple[int, int], width: int | None, height: int | None) -> None:
    """Raise ValueError for arguments that `make_scene` cannot use."""
    low, high = objects
    if seed < 0:
        raise ValueError(f"seed {seed} is negative: it must be at least 0")
    if not 0 <= low <= high <= MAX_OBJECTS:
        raise ValueError(f"objects {low}-{high}: use 0 <= low <= high <= {MAX_OBJECTS}")
    for side in (width, height):
        if side is not None and side < MIN_SIDE:
            raise ValueError(f"a side of {side} px is too small: use at least {MIN_SIDE}")


def _image_size(rng: np.random.Generator, world: Range) -> tuple[int, int]:
    """Draw width and height in pixels within `sides`, the longer at most twice the shorter."""
    mean_side = rng.uniform(world.sides[0] * 2**0.5, world.sides[1] / 2**0.5)
    stretch = 2 ** rng.uniform(-0.5, 0.5)
    return round(mean_side * stretch), round(mean_side / stretch)


def _background_colours(rng: np.random.Generator) -> Floats:
    """Draw two muted colours near each other, float32 [2, 3] in 0..255."""
    first = rng.uniform(50, 205) + rng.uniform(-20, 20, 3)
    return np.clip([first, first + rng.uniform(-30, 30, 3)], 0, 255).astype(np.float32)


def _arrange(rng: np.random.Generator, number: int, ends: Floats, world: Range) -> list[Placed]:
    """Place the objects. Each try allows less overlap, so the search ends."""
    kinds = _choose_kinds(rng, number, ends, world)
    if not world.min_visible:
        boxes = place(rng, number, world)
        return [
            Placed(colour=colour, shape=shape, outline=box, box=box, depth=depth)
            for depth, ((colour, shape), box) in enumerate(zip(kinds, boxes, strict=True))
        ]
    for tries in range(PLACINGS):
        looser = replace(world, max_overlap=world.max_overlap * (1 - tries / PLACINGS))
        if (placed := cover(rng, kinds, place(rng, number, looser), world)) is not None:
            return placed
    apart = replace(world, max_overlap=0.0)
    placed = cover(rng, kinds, place(rng, number, apart), world)
    assert placed is not None, "separate shapes are all visible"
    return placed


def _choose_kinds(
    rng: np.random.Generator, number: int, ends: Floats, world: Range
) -> list[ColouredShape]:
    """Draw `number` (colour, shape), with colours in contrast to the whole background.

    All are different, except for two of one kind if the world has such pairs.
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


def _paint(rng: np.random.Generator, canvas: Floats, placed: list[Placed], world: Range) -> None:
    is_pillow = bool(world.pillow_share) and rng.uniform() < world.pillow_share
    paint = paint_shape_with_pillow if is_pillow else paint_shape
    colours = [_jitter(rng, item.colour, world.jitter) for item in placed]
    painted = sorted(zip(placed, colours, strict=True), key=lambda pair: pair[0].depth)
    for item, colour in painted:
        paint(canvas, item.shape, colour, item.outline)


def _jitter(rng: np.random.Generator, colour: str, most: float) -> Floats:
    """Return the colour as RGB, float32 [3], each channel changed by at most `most`."""
    moved = np.add(COLOURS[colour], rng.uniform(-most, most, 3))
    return np.clip(moved, 0, 255).astype(np.float32)


def _named(placed: list[Placed]) -> tuple[SceneObject, ...]:
    number = Counter((item.colour, item.shape) for item in placed)
    return tuple(
        SceneObject(
            phrase=phrase_for(item.colour, item.shape, number[item.colour, item.shape]),
            box=item.box,
            colour=item.colour,
            shape=item.shape,
            outline=item.outline,
            depth=item.depth,
        )
        for item in placed
    )
