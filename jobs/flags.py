"""Options as flags of the command line."""

from cyclopts import default_name_transform


def flag_name(field: str) -> str:
    """`stall_timeout_s` -> `stall-timeout`: a unit belongs to code; for flags the help says it."""
    return default_name_transform(field.removesuffix("_s"))
