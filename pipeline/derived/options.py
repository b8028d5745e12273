"""Options of `filter` and `dedup`; the command line's flags and help derive from them."""

from collections.abc import Iterator
from typing import Literal

from pydantic import Field, field_validator

from kosmos2_core.annotation import Issue
from pipeline.derived.conditions import Condition, Level
from pipeline.spec.access import DestAccess

_SHARE = "In 0..1."


class DedupOptions(DestAccess):
    """Options of `dedup`."""

    near: int | None = Field(
        None,
        ge=0,
        le=10,
        description="Images that look alike, too: their perceptual hashes differ in at most so "
        "many of 64 bits. 4 finds what was scaled or compressed anew; with more, images that "
        "only resemble one another go, too. Default: only images of the same bytes.",
    )
    keep: Literal["largest", "first"] = Field(
        "largest", description="Of copies, the one of most pixels, or the first of the plan."
    )

    @property
    def parameters(self) -> tuple[str, ...]:
        near = () if self.near is None else (f"--near {self.near}",)
        return (*near, f"--keep {self.keep}")


class FilterOptions(DestAccess):
    """Conditions on what is kept. Numbers that a box or phrase has not, because it was given in the
    prompt or never checked, are no reason to drop it, unless SQL says so."""

    where: tuple[str, ...] = Field(
        (),
        description="SQL about an annotation as it will be written: its columns, and `box_count`. "
        "Repeat for more: all must be true.",
    )
    where_entity: tuple[str, ...] = Field(
        (), description="SQL about an entity: phrase, phrase_logprob, boxes, ... Repeat for more."
    )
    where_box: tuple[str, ...] = Field(
        (),
        description="SQL about a box: x1, y1, x2, y2, score, consistency, area, ..., the columns "
        "of its entity. Repeat for more.",
    )
    min_score: float | None = Field(None, ge=0, le=1, description=f"Of a box. {_SHARE}")
    min_consistency: float | None = Field(
        None, ge=0, le=1, description="Of a box, in a dataset made with --verify-boxes. In 0..1."
    )
    min_phrase_logprob: float | None = Field(
        None, le=0, description="Of an entity's phrase, natural logarithm: 0 is certain."
    )
    min_side: float | None = Field(
        None, ge=0, le=1, description=f"Of a box, width and height, of the image's. {_SHARE}"
    )
    max_area: float | None = Field(
        None, ge=0, le=1, description=f"Of a box, of the image's. {_SHARE}"
    )
    with_issue: tuple[str, ...] = Field(
        (), description="Only annotations with that flag: docs/quality.md. Repeat for more."
    )
    without_issue: tuple[str, ...] = Field(
        (), description="Only annotations without that flag. Repeat for more."
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
