"""Options as flags of the command line."""

import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, TypeVar, get_args, get_origin

from cyclopts import CycloptsError, CycloptsPanel, Group, Parameter, default_name_transform
from pydantic import (
    AfterValidator,
    BaseModel,
    Field,
    PlainSerializer,
    TypeAdapter,
    ValidationError,
    create_model,
)
from pydantic.fields import FieldInfo
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
        if getattr(options, name) == fields[name].get_default():
            continue
        if value is True:
            yield flag
        else:
            for each in value if isinstance(value, tuple) else [value]:
                yield f"{flag}={json.dumps(each) if isinstance(each, dict) else each}"


Options = TypeVar("Options", bound=BaseModel)


def as_flags(options: type[Options], panels: Mapping[str, Group]) -> type[Options]:
    """Return the same options as flags: typed as text (`2:64` for (2, 64)), each in its panel.

    Args:
        options: The model. A wrong text is refused at once, by the type of its field.
        panels: Field -> the panel of the help that shows it. Others stand under "Options".
    """
    flags: dict[str, Any] = {}
    for name, typed in options.model_fields.items():
        kind, field = _as_text(options, name) if _has_text(typed) else (typed.annotation, typed)
        panel = (Parameter(group=panels[name]),) if name in panels else ()
        flags[name] = (Annotated[(kind, *panel)] if panel else kind, field)
    return create_model(options.__name__, __base__=options, **flags)


def _has_text(field: FieldInfo) -> bool:
    return any(isinstance(each, PlainSerializer) for each in _metadata(field))


def _metadata(field: FieldInfo) -> list[Any]:
    """Return the metadata of a field; for an optional field, also that of its type."""
    inner = [each for each in get_args(field.annotation) if get_origin(each) is Annotated]
    return [*field.metadata, *(part for each in inner for part in get_args(each)[1:])]


def _as_text(options: type[BaseModel], name: str) -> tuple[Any, FieldInfo]:
    field = options.model_fields[name]
    whole: Any = field.annotation
    if field.metadata:
        whole = Annotated[(whole, *field.metadata)]
    adapter: TypeAdapter[Any] = TypeAdapter(whole)
    default = adapter.dump_python(field.get_default())

    def checked(text: Any) -> Any:
        adapter.validate_python(text)
        return text

    text_type: Any = tuple[str, ...] if isinstance(default, tuple) else str
    if default is None:
        text_type = str | None
    return (
        Annotated[text_type, AfterValidator(checked)],
        Field(default, description=field.description),
    )
