"""How much is measured: in full on CUDA, in small on a CPU."""

from dataclasses import dataclass

from kosmos2_core.comparison.random_model import FULL_SIZE, Proportions
from kosmos2_core.comparison.workload import BRIEF_LENGTHS, DETAILED_LENGTHS, Lengths

# A random model beside the trained one: deeper answers, all kinds of tokens, other shapes.
_SMALL_MODEL = Proportions(
    text_layers=4,
    text_width=256,
    text_heads=4,
    vocabulary=2048,
    vision_layers=4,
    vision_width=192,
    vision_heads=3,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """Sizes of the measurements.

    `small_model` is compared token for token; `main_model` is what `--model random` stands for.
    `images`: of each comparison. `brief`, `detailed`: lengths of answers where they are forced.
    `variant_slots` are compared among themselves; `throughput_slots` are timed for
    `throughput_s` seconds each, beside Hugging Face with `batches`. `cycles` decode steps are
    profiled with `profile_slots`.
    """

    small_model: Proportions = _SMALL_MODEL
    main_model: Proportions = _SMALL_MODEL
    images: int = 8
    brief: Lengths = BRIEF_LENGTHS
    detailed: Lengths = DETAILED_LENGTHS
    forced_tokens: int = 24
    variant_images: int = 6
    variant_slots: tuple[int, ...] = (1, 5, 16)
    throughput_slots: tuple[int, ...] = (1, 4, 16)
    throughput_s: float = 2.0
    batches: tuple[int, ...] = (16,)
    memory_slots: int = 16
    profile_slots: int = 16
    cycles: int = 10


EXTENTS = {
    "cpu": Extent(),
    "cuda": Extent(
        main_model=FULL_SIZE,
        images=64,
        variant_images=24,
        throughput_slots=(16, 64, 256, 512),
        throughput_s=8.0,
        batches=(32, 128),
        memory_slots=256,
        profile_slots=256,
    ),
}
