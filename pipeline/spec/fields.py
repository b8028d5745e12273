"""A sample's own fields: which are kept as metadata, and which get columns."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Self

import pyarrow as pa
from pydantic import BeforeValidator, PlainSerializer

from kosmos2_core.annotation import Issue
from pipeline.schema import ANNOTATION, metadata_json

TYPES = {"string": pa.string(), "int64": pa.int64(), "double": pa.float64(), "bool": pa.bool_()}
_FORM = re.compile(r"(?P<name>[^:,]+)(?::(?P<type>\w+))?")
_INT64 = range(-(2**63), 2**63)
_BOOLS = {"true": True, "false": False}

Fields = Mapping[str, Any]


def look_up(fields: Mapping[str, object], path: str) -> object:
    """Return the value at the name of a field, or at a path, as in `objects.0.phrase`.

    The value is None if there is nothing. A field whose own name has dots comes first.
    """
    return fields[path] if path in fields else value_inside(fields, path.split("."))


def value_inside(value: object, steps: Sequence[str]) -> object:
    """Return the value that names of fields and places in lists lead to; None if there is none."""
    for step in steps:
        if isinstance(value, Mapping):
            value = value.get(step)
        elif isinstance(value, list) and step.isascii() and step.isdigit():
            value = value[int(step)] if int(step) < len(value) else None
        else:
            return None
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Carried:
    """A field as a column. `name` is the name of both, and the path in the metadata (`look_up`)."""

    name: str
    type: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse `NAME` or `NAME:TYPE`. Raises ValueError."""
        match = _FORM.fullmatch(text.strip())
        kind = (match["type"] or "string") if match else ""
        if match is None or kind not in TYPES:
            raise ValueError(
                f"{text!r} is not a field and a type; give for example url or likes:int64; types "
                f"are {', '.join(TYPES)}"
            )
        if match["name"] in ANNOTATION.names:
            raise ValueError(f"{text!r} is a column of every dataset; carry another field")
        return cls(name=match["name"], type=kind)

    def __str__(self) -> str:
        return f"{self.name}:{self.type}"

    @property
    def column(self) -> pa.Field:
        return pa.field(self.name, TYPES[self.type])

    def value(self, fields: Fields) -> Any:
        """Return the value, or None if there is none.

        Raises ValueError for a value of another type.
        """
        found = look_up(fields, self.name)
        return None if found is None else _as(self.type, found)


def _parse_carry(value: object) -> object:
    """Parse several of `NAME:TYPE,NAME,...`. Raises ValueError."""
    if not isinstance(value, tuple | list):
        return value
    texts = [part for each in value for part in str(each).split(",")]
    fields = tuple(map(Carried.parse, texts))
    if len({field.name for field in fields}) < len(fields):
        raise ValueError(f"{', '.join(texts)}: name each field once")
    return fields


CarriedFields = Annotated[  # text in flags, job files and `job.json`
    tuple[Carried, ...],
    BeforeValidator(_parse_carry),
    PlainSerializer(lambda carry: tuple(map(str, carry))),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldChoice:
    """The choice of fields. `kept` are the fields that stay metadata; None means all of them."""

    kept: tuple[str, ...] | None
    carried: tuple[Carried, ...]

    @property
    def changes_nothing(self) -> bool:
        return self.kept is None and not self.carried

    def applied_to(self, sample: Mapping[str, Any], fields: Fields) -> dict[str, Any]:
        """Return a row of `schema.SAMPLE`, whose metadata are `fields`, with the chosen fields."""
        columns, issues = dict[str, Any](), set[Issue]()
        for each in self.carried:
            try:
                columns[each.name] = each.value(fields)
            except ValueError:
                columns[each.name] = None
                issues.add(Issue.CARRIED_INVALID)
        return {
            **sample,
            **columns,
            "metadata": self._metadata(sample["metadata"], fields),
            "issues": [*sample["issues"], *issues],
        }

    def _metadata(self, text: str | None, fields: Fields) -> str | None:
        if self.kept is None:
            return text
        chosen = {name: fields[name] for name in self.kept if name in fields}
        return metadata_json(chosen) if chosen else None


def carried_columns(carry: Sequence[str]) -> tuple[pa.Field, ...]:
    """Return the columns that `carry` of an identity adds to a dataset."""
    return tuple(Carried.parse(each).column for each in carry)


def fields_of(metadata: str | None) -> Fields:
    """Parse a value of the column `metadata`."""
    found: Fields = json.loads(metadata) if metadata else {}
    return found


def _as(kind: str, value: object) -> Any:
    """Convert a value. CSV has only text, so text of a number is a number. Raises ValueError."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind == "string":
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if kind == "bool" and isinstance(value, bool | str):
        return value if isinstance(value, bool) else _known(_BOOLS, value)
    if kind == "int64" and (is_number or isinstance(value, str)):
        return _integer(value)
    if kind == "double" and (is_number or isinstance(value, str)):
        return _double(value)
    raise ValueError(f"not a {kind}: {value!r:.80}")


def _known(names: Mapping[str, bool], text: str) -> bool:
    try:
        return names[text.strip().lower()]
    except KeyError:
        raise ValueError(f"not a bool: {text!r:.80}") from None


def _double(value: Any) -> float:
    try:
        number = float(value)
    except OverflowError:  # JSON may hold integers of any length
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"not a double: {value!r:.80}")
    return number


def _integer(value: Any) -> int:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"not an int64: {value!r}")
    number = int(value)
    if number not in _INT64 or (isinstance(value, float) and number != value):
        raise ValueError(f"not an int64: {value!r:.80}")
    return number
