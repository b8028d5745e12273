"""A job as a YAML file with the fields of JobSpec. Flags win over it."""

import difflib
import textwrap
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from jobs.options.flags import first_problem
from pipeline.errors import SpecError
from pipeline.spec.job import JobOptions, JobSpec

_COLUMNS = 98


def job_spec(
    input: str | None, output: str | None, options: JobOptions, file: Path | None
) -> JobSpec:
    """Return the job of the command line, completed from the file. Raises SpecError."""
    given: dict[str, Any] = options.model_dump(include=options.model_fields_set)
    given |= {name: uri for name, uri in (("input", input), ("output", output)) if uri is not None}
    said = _read(file) if file is not None else {}
    _check_names(file, said)
    if missing := [name.upper() for name in ("input", "output") if name not in {**said, **given}]:
        raise SpecError(
            f"{' and '.join(missing)} missing: name both, INPUT and OUTPUT, on the command line or "
            "as `input` and `output` in the file of --config"
        )
    try:
        return JobSpec(**{**said, **given})
    except ValidationError as error:
        raise _invalid(file, error) from None


def to_yaml(spec: JobSpec) -> str:
    """Return a YAML file of the same job, with a comment on each option."""
    lines = ["# kosmos2 annotate --config THIS-FILE; flags win over it."]
    values = spec.model_dump(mode="json")
    for name in ("input", "output", *JobOptions.model_fields):
        comment = JobSpec.model_fields[name].description or ""
        lines += ["", *_wrapped(comment), _line(name, values[name])]
    return "\n".join(lines) + "\n"


def _line(name: str, value: object) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=1 << 20)
    return f"{name}: {text.strip().removesuffix('...').strip()}"


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(
        text,
        _COLUMNS,
        initial_indent="# ",
        subsequent_indent="# ",
        break_long_words=False,
        break_on_hyphens=False,
    )


class _Loader(yaml.SafeLoader):
    """YAML in which `off` is a word (`grammar: off`), `1:8` is not 68, and keys are unique."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        names = [self.construct_object(key) for key, _ in node.value]
        if twice := {name for name in names if names.count(name) > 1}:
            raise yaml.YAMLError(f"{', '.join(map(str, twice))} comes twice")
        mapping: dict[Hashable, Any] = super().construct_mapping(node, deep)
        return mapping


def _not_by_sixty(loader: _Loader, node: yaml.ScalarNode) -> int | str:
    return node.value if ":" in node.value else loader.construct_yaml_int(node)


_Loader.add_constructor("tag:yaml.org,2002:int", _not_by_sixty)
_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, pattern)
        for tag, pattern in resolvers
        if tag != "tag:yaml.org,2002:bool" or first in "tTfF"
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _read(path: Path) -> dict[str, Any]:
    try:
        said = yaml.load(path.read_text(), _Loader)  # noqa: S506 - a SafeLoader
    except OSError as error:
        raise SpecError(f"{path}: {error.strerror}: name a file that can be read") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise SpecError(f"{path} is not YAML: {reason}; correct it") from error
    if not isinstance(said, dict):
        raise SpecError(f"{path}: one option a line is needed, as in `model: shapes`")
    if any("\0" in str(value) for value in said.values()):
        raise SpecError(f"{path} holds a NUL character, which no name may have: take it out")
    return {str(name): value for name, value in said.items()}


def _check_names(path: Path | None, said: Mapping[str, Any]) -> None:
    for name in said:
        if name not in JobSpec.model_fields:
            like = difflib.get_close_matches(name, JobSpec.model_fields, n=1)
            raise SpecError(
                f"{path}: there is no option {name}"
                + (f"; did you mean {like[0]}?" if like else "")
                + " (`kosmos2 annotate --print-config` writes a file with all of them)"
            )


def _invalid(path: Path | None, error: ValidationError) -> SpecError:
    place, reason = first_problem(error)
    where = str(path) if path else ""
    return SpecError(": ".join(filter(None, [where, ".".join(place), reason])))
