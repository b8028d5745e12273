"""The ranges from which the scenes of a world are drawn."""

from dataclasses import dataclass

MAX_OBJECTS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """The limits of a world. Sizes are shares of each side of the image.

    `sizes[n]` bounds the geometric mean of an object's sides in scenes of n objects; `min_side` and
    `max_side` bound each side. `log_aspect` bounds the logarithm of width / height, both as shares.
    `max_overlap` is a share of the smaller box, `min_visible` a share of an object's painted
    area. Colours are in levels of 0..255. Noise is uniform.
    """

    objects: tuple[int, int]  # least and greatest number, by default
    sizes: tuple[tuple[float, float], ...]
    min_side: float = 0.0
    max_side: float = 1.0
    is_log_uniform: bool = False  # distribution of sizes; else uniform
    log_aspect: float = 0.18
    left_gap: float = 0.05  # between left edges, so that the order is clear
    max_overlap: float = 0.06
    min_visible: float = 0.0  # 0: boxes are those of whole shapes
    pair_share: float = 0.0  # share of scenes of several objects that have two of one kind
    pillow_share: float = 0.0  # share of scenes drawn by Pillow
    jitter: float = 14  # greatest change of each channel of a colour
    min_contrast: float = 110  # least L1 distance of a named colour to the background
    max_noise: int = 19
    sides: tuple[int, int] = (160, 640)  # pixels
    qualities: tuple[int, int] = (60, 95)  # JPEG quality in Pillow's scale


# 1 to 4 separate objects, none of them small.
PLAIN_WORLD = Range(
    objects=(1, 4),
    sizes=(
        (0, 0),
        (0.16, 0.62),
        (0.16, 0.46),
        (0.16, 0.38),
        (0.16, 0.33),
        (0.15, 0.28),
        (0.14, 0.25),
    ),
)

# The world that the embedded checkpoint is trained on.
WIDE_WORLD = Range(
    objects=(0, 6),
    sizes=(
        (0.08, 0.9),
        (0.08, 0.9),
        (0.08, 0.62),
        (0.08, 0.48),
        (0.08, 0.4),
        (0.08, 0.34),
        (0.08, 0.3),
    ),
    min_side=0.08,
    max_side=0.9,
    is_log_uniform=True,
    log_aspect=0.3,
    max_overlap=0.35,
    min_visible=0.6,
    pair_share=0.2,
    pillow_share=0.5,
    jitter=30,
    min_contrast=140,  # at least 50 after the jitter
    sides=(96, 640),
    qualities=(40, 95),
)

# Harder than the training data: the checkpoint must make errors, to evaluate its scores.
HARD_WORLD = Range(
    objects=(5, 6),
    sizes=((0.05, 0.3),) * 7,
    min_side=0.05,
    max_side=0.4,
    is_log_uniform=True,
    log_aspect=0.4,
    max_overlap=0.6,
    min_visible=0.35,
    pair_share=0.3,
    pillow_share=0.5,
    jitter=35,
    min_contrast=60,
    max_noise=60,
    sides=(96, 640),
    qualities=(15, 60),
)

RANGES = {"plain": PLAIN_WORLD, "wide": WIDE_WORLD, "hard": HARD_WORLD}
