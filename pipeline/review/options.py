"""Options of `sample`; the command line's flags and help derive from them."""

from typing import Literal

from pydantic import Field

from pipeline.spec.access import DestAccess

SampleBy = Literal["random", "uncertain", "flag"]


class SampleOptions(DestAccess):
    """All options of a sample of boxes except its source and its place."""

    by: SampleBy = Field(
        "random",
        description="random: all boxes alike. uncertain: more boxes whose score is in the middle. "
        "flag: half of the boxes from captions with a quality flag. Each box keeps the probability "
        "of its choice, so precisions of the dataset stay unbiased.",
    )
    count: int = Field(200, ge=1, le=100_000, description="Number of boxes to judge.")
    seed: int = Field(0, ge=0, description="Another seed chooses other boxes.")
    export: Literal["label-studio"] = Field(
        "label-studio", description="Format of the tasks for people."
    )
    images: Literal["data", "url"] = Field(
        "data",
        description="data: put a copy of each image, of at most 1024 pixels a side, into its task. "
        "url: the sample's own field `url`, or the web address of the image.",
    )
