"""The docstrings of the public names: complete, in Google style, with examples that are run."""

import ast
import dataclasses
import doctest
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping
from enum import EnumType
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from pydantic import BaseModel

import kosmos2_core
import pipeline
from kosmos2_core.shapes.world.shards import encode_jpeg, make_scene
from pipeline.driver.run import retry, run
from tests.support.locally import LocalTables

SECTIONS = ("Args", "Attributes", "Returns", "Raises", "Example")
# Ray itself runs in this example. tests/e2e/test_python.py runs the one of docs/python.md.
NEEDS_A_CLUSTER = {"AnnotateImages"}


def needs_example(value: object) -> bool:
    """Errors, enums and constants need none; tests/test_errors.py checks what errors say."""
    is_error = isinstance(value, type) and issubclass(value, Exception)
    return callable(value) and not is_error and not isinstance(value, EnumType)


PUBLIC = {
    f"{face.__name__}.{name}": getattr(face, name)
    for face in (kosmos2_core, pipeline)
    for name in face.__all__
}
DOCUMENTED = {name: value for name, value in PUBLIC.items() if needs_example(value)}


def sections(documented: object) -> dict[str, str]:
    """Return the text of each section; that before the first one is under ""."""
    text = inspect.cleandoc(getattr(documented, "__doc__", None) or "")
    parts = re.split(rf"^({'|'.join(SECTIONS)}):\n", text, flags=re.M)
    return {"": parts[0]} | dict(zip(parts[1::2], parts[2::2], strict=True))


def entries(section: str) -> set[str]:
    """Return the names that a section describes, each as `name: text`."""
    return set(re.findall(r"^    (\w+): \S", section, flags=re.M))


def parameters(function: Callable[..., Any]) -> set[str]:
    return set(inspect.signature(function).parameters) - {"self", "cls"}


def public_methods(cls: type) -> Iterator[tuple[str, Callable[..., Any]]]:
    for name, member in vars(cls).items():
        function = getattr(member, "__func__", member)
        is_ours = inspect.isfunction(function) and function.__module__ == cls.__module__
        if is_ours and (not name.startswith("_") or name == "__call__"):
            yield f"{cls.__name__}.{name}", function


FUNCTIONS: dict[str, Callable[..., Any]] = {
    name: value for name, value in DOCUMENTED.items() if inspect.isfunction(value)
} | {
    name: method
    for value in DOCUMENTED.values()
    if isinstance(value, type)
    for name, method in public_methods(value)
}
CLASSES = {name: value for name, value in DOCUMENTED.items() if isinstance(value, type)}


def raises(function: Callable[..., Any]) -> bool:
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    return any(isinstance(node, ast.Raise) for node in ast.walk(tree))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_function_documents_parameters_result_and_errors(name: str) -> None:
    function = FUNCTIONS[name]
    documented = sections(function)
    assert entries(documented.get("Args", "")) == parameters(function)
    is_returning = inspect.signature(function).return_annotation not in (None, "None")
    assert ("Returns" in documented) == is_returning
    if raises(function):
        assert documented.get("Raises"), "it raises, and does not say so"
    assert "Raises " not in documented[""], "write a section Raises"


def constructor_parameters(cls: type) -> Mapping[str, set[str]]:
    """Return the names that the sections of a class must describe."""
    if dataclasses.is_dataclass(cls):
        return {"Attributes": {field.name for field in dataclasses.fields(cls)}}
    if issubclass(cls, BaseModel):  # each field has its description
        return {}
    return {"Args": parameters(cls.__init__)}


@pytest.mark.parametrize("name", CLASSES)
def test_class_documents_its_fields_or_parameters(name: str) -> None:
    cls = CLASSES[name]
    documented = sections(cls)
    for section, names in constructor_parameters(cls).items():
        assert entries(documented.get(section, "")) == names
    if issubclass(cls, BaseModel):
        assert all(field.description for field in cls.model_fields.values())
    checks = [vars(cls).get(method) for method in ("__init__", "__post_init__")]
    if any(inspect.isfunction(each) and raises(each) for each in checks if has_source(each)):
        assert documented.get("Raises"), "it raises, and does not say so"


def has_source(function: object) -> bool:
    """Return whether a method is written in a file; `dataclass` makes others."""
    return inspect.isfunction(function) and Path(inspect.getfile(function)).exists()


@pytest.mark.parametrize("name", DOCUMENTED)
def test_public_name_has_an_example(name: str) -> None:
    assert ">>> " in sections(DOCUMENTED[name]).get("Example", "")


@pytest.mark.parametrize("name", PUBLIC)
def test_docstring_begins_with_one_line(name: str) -> None:
    value = PUBLIC[name]
    if callable(value):
        assert re.match(r"[A-Z][^\n]+\.(\n\n|$)", inspect.cleandoc(value.__doc__ or ""))


RUNNABLE = [
    name
    for name, value in PUBLIC.items()
    if "Example" in sections(value) and name.rpartition(".")[2] not in NEEDS_A_CLUSTER
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which examples run, with images and a finished dataset."""
    folder = tmp_path_factory.mktemp("examples")
    scenes = [make_scene(0, index, width=640, height=480) for index in (1, 2)]
    (folder / "photos").mkdir()
    for number, scene in enumerate(scenes):
        (folder / "photos" / f"{number}.jpg").write_bytes(encode_jpeg(scene, 95))
    (folder / "photo.jpg").write_bytes((folder / "photos" / "0.jpg").read_bytes())
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run(pipeline.JobSpec(input="photos/", output="out"), source=LocalTables())
    return folder


def namespace(face: ModuleType) -> dict[str, Any]:
    """Return the public names; a job annotates in this process instead of on Ray."""
    local = {
        "run": partial(run, source=LocalTables()),
        "retry": partial(retry, source=LocalTables()),
    }
    names = {name: getattr(face, name) for name in face.__all__}
    return names | {name: local[name] for name in local.keys() & names.keys()}


@pytest.mark.parametrize("name", RUNNABLE)
def test_examples_are_right(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    face = {"kosmos2_core": kosmos2_core, "pipeline": pipeline}[name.partition(".")[0]]
    text = sections(PUBLIC[name])["Example"]
    test = doctest.DocTestParser().get_doctest(text, namespace(face), name, None, None)
    said: list[str] = []
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    doctest.DocTestRunner(optionflags=flags).run(test, out=said.append)
    assert said == []
