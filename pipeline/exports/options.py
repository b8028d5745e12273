"""Options of `export`; the command line's flags and help derive from them."""

import re
from typing import Literal

from pydantic import Field, field_validator

from pipeline.exports.papers.credits import checked_credit
from pipeline.spec.access import DestAccess

FormatName = Literal[
    "hf",
    "boxes",
    "coco",
    "grit",
    "webdataset",
    "label-studio",
    "fiftyone",
    "yolo",
    "odvg",
    "voc",
    "sidecar",
]
Score = Literal["mass", "joint", "logp", "consistency", "calibrated"]


class ExportOptions(DestAccess):
    """All options of an export except its source and its place. `output_*` are for OUTPUT."""

    format: FormatName = Field(description="Format of the export (see docs/exports.md).")
    task: tuple[str, ...] = Field(
        (), description="Task whose annotations to export. Repeat for several. Default: all tasks."
    )
    strip_prompt: bool = Field(
        True, description="Remove the prompt's words from the captions. Spans are adjusted."
    )
    score: Score = Field(
        "mass",
        description="Score of a box. mass: probability mass around its corners. joint: mass times "
        "the probability of its phrase. logp: probability of exactly these corners. consistency: "
        "for datasets made with --verify-boxes. calibrated: probability that the box is right, by "
        "the judgements of kosmos2 review import.",
    )
    images: Literal["auto", "embed", "reference"] = Field(
        "auto",
        description="embed: copy the images into the export, turned upright. reference: store "
        "their URIs. auto: embed for webdataset, fiftyone, yolo and voc, otherwise reference.",
    )
    split: tuple[str, ...] = Field(
        ("train=1",),
        description="Split and its share, as NAME=SHARE. Repeat for several. Equal images go into "
        "the same split.",
    )
    categories: str = Field(
        "object",
        description="Classes of the boxes: `object` for all, `head-noun` of the phrase, or a JSON "
        "file that maps phrases to classes. For coco, label-studio, fiftyone (default: the "
        "phrase), yolo and voc.",
    )
    sidecar: Literal["auto", "parquet"] = Field(
        "auto",
        description="Files of the format sidecar. auto: a tar for each tar, Parquet for other "
        "inputs. parquet: Parquet for tars, too.",
    )
    license: str | None = Field(
        None,
        description="License of the export: an SPDX identifier such as CC-BY-4.0, or another "
        "license's name or URL. The images may have licenses of their own.",
    )
    citation: str | None = Field(
        None, description="How to cite the dataset: a sentence or BibTeX, also of several lines."
    )
    creator: tuple[str, ...] = Field(
        (),
        description="Person who made the dataset, or an organization as org:NAME. Repeat for "
        "several.",
    )
    file_size_mb: int = Field(256, ge=1, description="Target size of a file, in MB.")
    images_per_file: int | None = Field(
        None, ge=1, description="Largest number of annotations in a file. Default: no limit."
    )
    parallel: int = Field(
        1,
        ge=1,
        le=1000,
        description="Number of sections to export in parallel, as Ray tasks. 1: export in this "
        "process, without Ray.",
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

    @field_validator("license")
    @classmethod
    def _one_line(cls, text: str | None) -> str | None:
        return None if text is None else checked_credit(text)

    @field_validator("citation")
    @classmethod
    def _lines(cls, text: str | None) -> str | None:
        return None if text is None else checked_credit(text, may_have_lines=True)

    @field_validator("creator")
    @classmethod
    def _names(cls, creators: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(checked_credit, creators))

    @property
    def shares(self) -> dict[str, float]:
        """Share of each split, in [0, 1]; together 1."""
        parts = {name: float(share) for name, _, share in (s.partition("=") for s in self.split)}
        return {name: share / sum(parts.values()) for name, share in parts.items()}
