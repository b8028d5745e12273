"""Objects of a class with `quick_init` are those of the same dataclass without it."""

import inspect
import pickle
from dataclasses import FrozenInstanceError, dataclass, field, replace

import pytest

from kosmos2_core.quick_init import quick_init


@dataclass(frozen=True, slots=True, kw_only=True)
class Plain:
    x: int
    name: str = "a"


@quick_init
@dataclass(frozen=True, slots=True, kw_only=True)
class Quick:
    x: int
    name: str = "a"


def test_objects_compare_print_and_copy_as_before():
    assert Quick(x=1) == Quick(name="a", x=1) != Quick(x=2)
    assert hash(Quick(x=1)) == hash(Plain(x=1))
    assert repr(Quick(x=1)) == repr(Plain(x=1)).replace("Plain", "Quick")
    assert replace(Quick(x=1), name="b") == Quick(x=1, name="b")
    assert pickle.loads(pickle.dumps(Quick(x=1))) == Quick(x=1)
    assert inspect.signature(Quick) == inspect.signature(Plain)


def test_an_object_stays_frozen():
    with pytest.raises(FrozenInstanceError):
        Quick(x=1).x = 2


@pytest.mark.parametrize(("args", "options"), [((1,), {}), ((), {}), ((), {"x": 1, "y": 2})])
def test_wrong_arguments_are_refused(args, options):
    for kind in (Plain, Quick):
        with pytest.raises(TypeError):
            kind(*args, **options)


def test_a_class_that_needs_more_is_refused():
    @dataclass(frozen=True, slots=True, kw_only=True)
    class WithFactory:
        names: list[str] = field(default_factory=list)

    @dataclass(frozen=True, slots=True, kw_only=True)
    class WithMore:
        x: int

        def __post_init__(self):
            raise AssertionError

    with pytest.raises(TypeError, match=r"WithFactory\.names"):
        quick_init(WithFactory)
    with pytest.raises(TypeError, match="__post_init__"):
        quick_init(WithMore)
