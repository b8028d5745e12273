"""Options of `export`; the command line's flags and help derive from them."""

import re
from typing import Literal

from pydantic import Field, field_validator

from pipeline.spec.access import DestAccess

FormatName = Literal[
    "hf", "boxes", "coco", "grit", "webdataset", "label-studio", "fiftyone", "yolo", "odvg", "voc"
]
Score = Literal["mass", "joint", "logp", "consistency"]


class ExportOptions(DestAccess):
    """Everything about an export but what it reads and where it goes. `output_*` reach OUTPUT."""

    format: FormatName = Field(description="What to make of the dataset: docs/exports.md.")
    task: tuple[str, ...] = Field(
        (), description="Only annotations of that task. Repeat for more. Default: all."
    )
    strip_prompt: bool = Field(
        True, description="Cut the prompt's words off the captions; spans move with them."
    )
    score: Score = Field(
        "mass",
        description="Probability mass around a box's corners; that times the probability of its "
        "phrase (joint); probability of these exact corners (logp); or consistency, of a dataset "
        "made with --verify-boxes.",
    )
    images: Literal["auto", "embed", "reference"] = Field(
        "auto",
        description="Put the images into the export, turned upright, or say where they are. "
        "auto: embed where the format is of little use without (webdataset, fiftyone, yolo, "
        "voc).",
    )
    split: tuple[str, ...] = Field(
        ("train=1",),
        description="NAME=SHARE; repeat for more. Equal images come into the same split.",
    )
    categories: str = Field(
        "object",
        description="Classes of boxes: `object` for all, `head-noun` of the phrase, or a JSON file "
        "of phrase: class. For coco, label-studio, fiftyone (by default the phrase), yolo, voc.",
    )
    file_size_mb: int = Field(256, ge=1, description="About how large a file may become, in MB.")
    images_per_file: int | None = Field(
        None, ge=1, description="Begin a new file after so many annotations, too."
    )
    parallel: int = Field(
        1,
        ge=1,
        le=1000,
        description="Sections of the dataset exported at the same time, as tasks of a Ray cluster. "
        "1: in this process, without Ray.",
    )
    overwrite: bool = Field(False, description="Replace an earlier export in DEST.")

    @field_validator("split")
    @classmethod
    def _shares(cls, splits: tuple[str, ...]) -> tuple[str, ...]:
        for split in splits:
            match = re.fullmatch(r"[A-Za-z]\w*=(\d*\.?\d+)", split, re.ASCII)
            if match is None or float(match[1]) == 0:
                raise ValueError(f"{split!r}: give a name and a share above 0, as in test=0.1")
        names = [split.partition("=")[0] for split in splits]
        if not names or len(set(names)) != len(names):
            raise ValueError("name at least one split, each once")
        return splits

    @property
    def shares(self) -> dict[str, float]:
        """Share of each split, in [0, 1]; together 1."""
        parts = {name: float(share) for name, _, share in (s.partition("=") for s in self.split)}
        return {name: share / sum(parts.values()) for name, share in parts.items()}
