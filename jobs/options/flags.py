"""Options as flags of the command line."""

import json
from collections.abc import Iterator
from typing import Any

from cyclopts import CycloptsError, CycloptsPanel, default_name_transform
from pydantic import BaseModel, ValidationError
from rich.panel import Panel


def flag_name(field: str) -> str:
    """Return the name of a flag: `stall_timeout_s` -> `stall-timeout`. The help names the unit."""
    return default_name_transform(field.removesuffix("_s"))


def shown_default(value: Any) -> str | None:
    """Return a default as the help shows it; None hides it."""
    if value is None or value is False or value == ():
        return None
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def shown_error(error: CycloptsError) -> Panel:
    """Show an error of an option in one sentence, without pydantic's report."""
    cause = error.__cause__
    if not isinstance(cause, ValidationError):
        return CycloptsPanel(error)
    place, reason = first_problem(cause)
    flag = f"--{flag_name(place[0])}" if place else ""
    return CycloptsPanel(": ".join(filter(None, [flag, *place[1:], reason])))


def first_problem(error: ValidationError) -> tuple[list[str], str]:
    """Return the path to the first wrong value, and the reason."""
    first = error.errors()[0]
    reason = str(first["ctx"]["error"]) if first["type"] == "value_error" else first["msg"]
    is_told = first["type"] in ("value_error", "missing")
    place = [str(name) for name in first["loc"]]
    return place, reason if is_told else f"{reason}, not {first['input']!r:.80}"


def flags_of(options: BaseModel, names: set[str]) -> Iterator[str]:
    """Yield arguments that set the fields `names` of `options`, without those at their default."""
    fields = type(options).model_fields
    for name, value in options.model_dump(include=names).items():
        flag = f"--{flag_name(name)}"
        if value == fields[name].get_default():
            continue
        if value is True:
            yield flag
        else:
            for each in value if isinstance(value, tuple) else [value]:
                yield f"{flag}={json.dumps(each) if isinstance(each, dict) else each}"
