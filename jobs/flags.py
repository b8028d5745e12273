"""Options as flags of the command line."""

import json
from collections.abc import Iterator
from typing import Any

from cyclopts import default_name_transform
from pydantic import BaseModel


def flag_name(field: str) -> str:
    """`stall_timeout_s` -> `stall-timeout`: a unit belongs to code; for flags the help says it."""
    return default_name_transform(field.removesuffix("_s"))


def shown_default(value: Any) -> str | None:
    """In the help: that a flag is not set goes without saying."""
    if value is None or value is False or value == ():
        return None
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def flags_of(options: BaseModel, names: set[str]) -> Iterator[str]:
    """The arguments that say `options` again: those among `names` that are not as by default."""
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
