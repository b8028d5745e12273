"""A reader of JSON values, one at a time; a document of gigabytes is never in memory as a whole."""

import json
from collections.abc import Iterator
from typing import Any, TextIO

from pipeline.formats.limits import MAX_ROW_CHARS

_CHUNK_CHARS = 64 << 10
_SPACES = " \t\r\n"
# NaN and Infinity are not JSON; DuckDB and others would fail on them.
_DECODER = json.JSONDecoder(parse_constant=lambda _: None)


class JsonValues:
    """A reader of JSON values.

    All methods raise ValueError if the text is not JSON, or a value is too large.
    """

    def __init__(self, text: TextIO) -> None:
        self._text = text
        self._held = ""
        self._at = 0

    def peek(self) -> str:
        """Return the next character that is not a space; "" at the end."""
        while True:
            while self._at < len(self._held):
                if self._held[self._at] not in _SPACES:
                    return self._held[self._at]
                self._at += 1
            if not self._more():
                return ""

    def value(self) -> Any:
        """Return the next value as a whole."""
        self.peek()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._held, self._at)
            except json.JSONDecodeError:
                if not self._more():
                    raise
                continue
            if end == len(self._held) and self._more():  # a number may continue
                continue
            self._at = end
            return value

    def elements(self) -> Iterator[Any]:
        """Yield the values of an array."""
        self._take("[")
        while self.peek() != "]":
            yield self.value()
            if self.peek() != "]":
                self._take(",")
        self._take("]")

    def keys(self) -> Iterator[str]:
        """Yield the keys of an object; after each, its value must be taken or skipped."""
        self._take("{")
        while self.peek() != "}":
            key = str(self.value())
            self._take(":")
            yield key
            if self.peek() != "}":
                self._take(",")
        self._take("}")

    def skip(self) -> None:
        """Skip a value of any size."""
        if self.peek() == "[":
            for _ in self.elements():
                pass
        else:
            self.value()

    def lines(self) -> Iterator[Any]:
        """Yield the value of each line that is not empty."""
        while line := self._line():
            if line.strip():
                yield json.loads(line, parse_constant=lambda _: None)

    def first_line(self) -> tuple[Any, bool]:
        """Return the value of the next line, without taking it, and whether nothing follows it.

        The value is None if it does not end in that line.
        """
        self.peek()
        while (end := self._held.find("\n", self._at)) < 0 and self._left < MAX_ROW_CHARS:
            if not self._more():
                break
        line = self._held[self._at :] if end < 0 else self._held[self._at : end]
        while not (rest := self._held[self._at + len(line) :].lstrip()) and self._more():
            pass
        try:
            return json.loads(line, parse_constant=lambda _: None), not rest
        except ValueError:
            return None, not rest

    @property
    def _left(self) -> int:
        return len(self._held) - self._at

    def _line(self) -> str:
        while (end := self._held.find("\n", self._at)) < 0 and self._more():
            pass
        start, self._at = self._at, len(self._held) if end < 0 else end + 1
        return self._held[start : self._at]

    def _take(self, character: str) -> None:
        if (found := self.peek()) != character:
            raise ValueError(f"expected {character!r}, found {found!r}")
        self._at += 1

    def _more(self) -> bool:
        if self._left > MAX_ROW_CHARS:
            raise ValueError(
                f"a value has more than {MAX_ROW_CHARS >> 20} Mi characters, or is not JSON; "
                "write images as text to Parquet"
            )
        more = self._text.read(max(_CHUNK_CHARS, self._left))
        self._held, self._at = self._held[self._at :] + more, 0
        return bool(more)
