"""Describe scenes in words."""

from collections.abc import Sequence

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six")
EMPTY = "an empty background"


def enumerate_phrases(phrases: Sequence[str]) -> str:
    """Return "a X", "a X and a Y", "a X, a Y and a Z" or "an empty background"."""
    if not phrases:
        return EMPTY
    *others, last = phrases
    return f"{', '.join(others)} and {last}" if others else last


def with_article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def plural(shape: str) -> str:
    return f"{shape}es" if shape.endswith("s") else f"{shape}s"


def phrase_for(colour: str, shape: str, number: int) -> str:
    """Return "a red circle" or "two red circles"."""
    if number == 1:
        return with_article(f"{colour} {shape}")
    return f"{NUMBERS[number]} {colour} {plural(shape)}"
