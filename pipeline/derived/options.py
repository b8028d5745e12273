"""Options of `filter` and `dedup`; the command line's flags and help derive from them."""

from collections.abc import Iterator
from typing import Literal

from pydantic import Field, field_validator

from kosmos2_core.annotation import Issue
from pipeline.derived.conditions import Condition, Level
from pipeline.spec.access import DestAccess


class DedupOptions(DestAccess):
    """Options of `dedup`."""

    near: int | None = Field(
        None,
        ge=0,
        le=10,
        description="Largest number of differing bits, of 64, between the perceptual hashes of two "
        "copies. 4 finds images that were resized or recompressed; larger values also remove "
        "images that are merely similar. Default: only images with the same bytes are copies.",
    )
    keep: Literal["largest", "first"] = Field(
        "largest", description="Copy to keep: the one with most pixels, or the first of the plan."
    )

    @property
    def parameters(self) -> tuple[str, ...]:
        near = () if self.near is None else (f"--near {self.near}",)
        return (*near, f"--keep {self.keep}")


class FilterOptions(DestAccess):
    """Conditions on what to keep.

    A box or phrase that was given in the prompt, or never checked, has no score. A missing score
    drops nothing, unless SQL asks for it.
    """

    where: tuple[str, ...] = Field(
        (),
        description="SQL condition on an annotation, after boxes and entities were dropped: its "
        "columns, and `box_count`. Repeat for several; all must be true.",
    )
    where_entity: tuple[str, ...] = Field(
        (),
        description="SQL condition on an entity: phrase, phrase_logprob, boxes, ... Repeat for "
        "several.",
    )
    where_box: tuple[str, ...] = Field(
        (),
        description="SQL condition on a box: x1, y1, x2, y2, score, consistency, area, ..., and "
        "the columns of its entity. Repeat for several.",
    )
    min_score: float | None = Field(
        None, ge=0, le=1, description="Smallest score of a box, from 0 to 1."
    )
    min_precision: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Smallest share of right boxes among those that are kept, from 0 to 1, by a "
        "score that people's judgements give (kosmos2 review import).",
    )
    min_consistency: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Smallest consistency of a box, from 0 to 1, in a dataset made with "
        "--verify-boxes.",
    )
    min_phrase_logprob: float | None = Field(
        None,
        le=0,
        description="Smallest log-probability of an entity's phrase (natural logarithm; 0 is "
        "certain).",
    )
    min_side: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Smallest width and height of a box, as a share of the image's, from 0 to 1.",
    )
    max_area: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Largest area of a box, as a share of the image's, from 0 to 1.",
    )
    with_issue: tuple[str, ...] = Field(
        (),
        description="Keep only annotations with this issue (see docs/quality.md). Repeat for "
        "several.",
    )
    without_issue: tuple[str, ...] = Field(
        (), description="Keep only annotations without this issue. Repeat for several."
    )

    @field_validator("with_issue", "without_issue")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in list(Issue):
                raise ValueError(f"no flag is named {name!r}; there are: {', '.join(Issue)}")
        return names

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """Conditions, in the order in which they are checked within each level."""
        return tuple(self._conditions())

    def _conditions(self) -> Iterator[Condition]:
        numbers: tuple[tuple[str, Level, str], ...] = (
            ("min-score", "box", "coalesce(score >= {0}, true)"),
            ("min-consistency", "box", "coalesce(consistency >= {0}, true)"),
            ("min-side", "box", "least(x2 - x1, y2 - y1) >= {0}"),
            ("max-area", "box", "area <= {0}"),
            ("min-phrase-logprob", "entity", "coalesce(phrase_logprob >= {0}, true)"),
        )
        for name, level, sql in numbers:
            if (value := getattr(self, name.replace("-", "_"))) is not None:
                yield Condition(level=level, option=f"--{name} {value}", sql=sql.format(value))
        for flag, names, sql in (
            ("--with-issue", self.with_issue, "list_contains(issues, '{0}')"),
            ("--without-issue", self.without_issue, "NOT list_contains(issues, '{0}')"),
        ):
            for name in names:
                yield Condition(level="annotation", option=f"{flag} {name}", sql=sql.format(name))
        wheres: tuple[tuple[str, tuple[str, ...], Level], ...] = (
            ("--where-box", self.where_box, "box"),
            ("--where-entity", self.where_entity, "entity"),
            ("--where", self.where, "annotation"),
        )
        for flag, expressions, level in wheres:
            for sql in expressions:
                yield Condition(level=level, option=f'{flag} "{sql}"', sql=sql)
