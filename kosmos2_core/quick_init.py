"""Frozen dataclasses whose objects are made in half the time: for those made per image or box."""

from dataclasses import MISSING, fields
from typing import Any, TypeVar

_T = TypeVar("_T")


def quick_init(made: type[_T]) -> type[_T]:
    """Replace the `__init__` of a dataclass that is frozen, keyword-only and has slots.

    That of `dataclass` calls `object.__setattr__` for each field, which takes most of its time.
    This one has the same parameters, and sets each slot with the setter of that slot. Raises
    TypeError for a class with factories, fields that are not parameters, or `__post_init__`.

    Example:
        >>> from dataclasses import dataclass
        >>> @quick_init
        ... @dataclass(frozen=True, slots=True, kw_only=True)
        ... class Size:
        ...     width: int
        ...     height: int = 1
        >>> Size(width=2)
        Size(width=2, height=1)
    """
    parameters, lines, names = list[str](), list[str](), dict[str, Any]()
    for field in fields(made):  # type: ignore[arg-type]
        if field.default_factory is not MISSING or not (field.init and field.kw_only):
            raise TypeError(f"{made.__name__}.{field.name} is no plain keyword parameter")
        has_default = field.default is not MISSING
        parameters.append(f"{field.name}=default_{field.name}" if has_default else field.name)
        lines.append(f"    set_{field.name}(self, {field.name})")
        names[f"default_{field.name}"] = field.default
        names[f"set_{field.name}"] = vars(made)[field.name].__set__
    if hasattr(made, "__post_init__"):
        raise TypeError(f"{made.__name__} has a __post_init__, which would not be called")
    source = "\n".join([f"def __init__(self, *, {', '.join(parameters)}):", *lines])
    exec(source, names)  # noqa: S102 - as `dataclass` does
    init = names["__init__"]
    init.__qualname__, init.__module__ = made.__init__.__qualname__, made.__module__
    init.__annotations__ = made.__init__.__annotations__
    made.__init__ = init  # type: ignore[method-assign]
    return made
