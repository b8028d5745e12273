"""`kosmos2 check` in a size that takes seconds."""

from kosmos2_core.check.extent import Extent
from kosmos2_core.comparison.random_model import Proportions
from kosmos2_core.comparison.workload import Lengths

TINY_MODEL = Proportions(
    text_layers=2, text_width=48, vision_layers=1, vision_width=48, vocabulary=1300, patch=28
)
TINY = Extent(
    small_model=TINY_MODEL,
    main_model=TINY_MODEL,
    images=2,
    brief=Lengths(mean=5, deviation=3, most=9),
    detailed=Lengths(mean=9, deviation=4, most=15),
    forced_tokens=4,
    variant_images=1,
    variant_slots=(1, 3),
    throughput_slots=(1, 2),
    throughput_s=0.05,
    batches=(2,),
    memory_slots=2,
    profile_slots=2,
    cycles=2,
)
