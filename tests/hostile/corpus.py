"""The hostile inputs by number: equal numbers of an equal seed are equal inputs.

Another kind of input joins by a maker in `_MAKERS`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from tests.hostile import archives, pictures
from tests.hostile.spoiling import spoil
from tests.support.tars import picture, tar


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One input file.

    `survivors` are samples, by key, that must be annotated whatever happens to the others.
    `rejections` are the reasons that must be given, and no other; None where any will do.
    """

    name: str
    data: bytes
    survivors: frozenset[str] = frozenset()
    rejections: set[str] | None = None


def a_picture(rng: np.random.Generator) -> Case:
    """A spoilt picture, once or twice over, between two sound ones."""
    name = str(rng.choice(sorted(pictures.files())))
    data, how = spoil(rng, pictures.files()[name], pictures.SPOILS)
    extension = rng.choice(["jpg", "png", "webp", "gif", "tiff", name.partition(".")[2]])
    return _in_a_tar(f"{name}: {', '.join(how)}", data, str(extension))


def an_archive(rng: np.random.Generator) -> Case:
    """A tar of one kind, spoilt or not, once or twice over."""
    write = (archives.sound, archives.odd)[rng.integers(2)]
    data, how = spoil(rng, write(rng), archives.SPOILS)
    return Case(name=", ".join([write.__name__, *how]), data=data)


_MAKERS: tuple[Callable[[np.random.Generator], Case], ...] = (a_picture, a_picture, an_archive)


def case(seed: int, number: int) -> Case:
    """The bombs first, then as many as anyone asks for."""
    if number < len(bombs()):
        return bombs()[number]
    maker = _MAKERS[number % len(_MAKERS)]
    return maker(np.random.default_rng([seed, number]))


@cache
def bombs() -> list[Case]:
    """Inputs made by hand, each with the one end that is right."""
    return [
        *(
            _in_a_tar(name, data, name.partition(".")[2], rejections)
            for name, (data, rejections) in pictures.bombs().items()
        ),
        *(
            Case(name=name, data=data, rejections=rejections)
            for name, (data, rejections) in archives.bombs().items()
        ),
    ]


def _in_a_tar(name: str, data: bytes, extension: str, rejections: set[str] | None = None) -> Case:
    members = [("before.jpg", picture(1)), (f"hostile.{extension}", data), ("last.jpg", picture(2))]
    return Case(
        name=name,
        data=tar(members),
        survivors=frozenset({"before", "last"}),
        rejections=rejections,
    )
