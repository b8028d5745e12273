"""Classes of phrases, for formats whose boxes have one of a list of classes."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

from kosmos2_core.annotation import Box, Entity
from kosmos2_core.grounding.nouns import NO_NOUN, head_noun, plain_phrase
from pipeline.errors import SpecError
from pipeline.exports.example import Example

OBJECT = NO_NOUN
HEAD_NOUN = "head-noun"
ANY_PHRASE = "*"


class Categories:
    """Classes and their ids from 1 on, in the order in which they are listed or first occur."""

    def __init__(self, class_of: Callable[[str], str | None], known: tuple[str, ...] = ()) -> None:
        self._class_of = class_of
        self._ids = {name: i for i, name in enumerate(dict.fromkeys(known), start=1)}
        self.left_out = 0

    def anew(self) -> "Categories":
        """Return the same classes, with none left out yet."""
        return Categories(self._class_of, tuple(self._ids))

    def id_of(self, phrase: str) -> int | None:
        """Return the id of a phrase's class; None, counted in `left_out`, if it has no class."""
        name = self._class_of(phrase)
        if name is None:
            self.left_out += 1
            return None
        return self._ids.setdefault(name, len(self._ids) + 1)

    def classified(self, example: Example) -> Iterator[tuple[int, Entity, Box]]:
        """Yield each box with the id of its class and its entity; skip boxes without a class."""
        for entity, box in example.boxes:
            if (category_id := self.id_of(entity.phrase)) is not None:
                yield category_id, entity, box

    def name_of(self, category_id: int) -> str:
        return self.names[category_id - 1]

    @property
    def names(self) -> list[str]:
        """The classes so far; the first one has id 1."""
        return list(self._ids)


def categories_from(option: str) -> Categories:
    """Parse `object`, `head-noun`, or the path of a JSON file. Raises SpecError."""
    match option:
        case "object":
            return Categories(lambda _: OBJECT, (OBJECT,))
        case "head-noun":
            return Categories(head_noun)
    mapping = _read(Path(option))
    rest = mapping.get(ANY_PHRASE)
    return Categories(
        lambda phrase: mapping.get(plain_phrase(phrase), rest),
        tuple(dict.fromkeys(mapping.values())),
    )


def _read(path: Path) -> dict[str, str]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SpecError(
            f"--categories {path} cannot be read ({error.strerror}); give object, head-noun or "
            "the path of a JSON file"
        ) from error
    except ValueError as error:
        raise SpecError(f"--categories {path} is not JSON ({error}); correct it") from error
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found.values()):
        raise SpecError(
            f'--categories {path} is not an object of phrase: class; write {{"snowman": "person"}}'
        )
    return {plain_phrase(phrase): name for phrase, name in found.items()}
