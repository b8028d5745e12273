"""Jobs as YAML files."""

from pathlib import Path
from typing import Any

import pytest

from jobs.cli import run_command
from jobs.options.job_file import job_spec, to_yaml
from pipeline.errors import SpecError
from pipeline.spec.job import JobOptions, JobSpec

SPECS = {
    "defaults": JobSpec(input="in", output="out"),
    "all": JobSpec(
        **{"input": "s3://a/in", "output": "s3://a/out: with # signs", "task": ("detailed",)},
        **{"grammar": "strict", "actors": "2:64", "gpus_per_actor": 0.5, "slots": 8},
        **{"exclude": ("*:*", "- a", "ü"), "extend": True, "limit": 3, "stall_timeout_s": 1.5},
        **{"reader_label": ("pool=cpu",), "input_endpoint_url": "http://a:1"},
    ),
}


def written(folder: Path, text: str) -> Path:
    path = folder / "job.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", SPECS)
def test_a_spec_reads_back_as_it_was_written(name: str, tmp_path: Path) -> None:
    path = written(tmp_path, to_yaml(SPECS[name]))
    assert job_spec(None, None, JobOptions(), path) == SPECS[name]


def test_a_flag_names_a_task_that_the_file_defines(tmp_path: Path) -> None:
    text = """
input: a
output: b
define:
  - name: count
    prompt: "Question: How many {thing} are there? Answer:"
    max_new_tokens: 8
"""
    path = written(tmp_path, text)
    spec = job_spec(None, None, JobOptions(task=("count:thing=label", "brief")), path)
    assert spec.task_names == ("count", "brief")
    assert job_spec(None, None, JobOptions(), written(tmp_path, to_yaml(spec))) == spec


def test_flags_win(tmp_path: Path) -> None:
    path = written(tmp_path, "input: a\noutput: b\nlimit: 3\nactors: 4\ngrammar: off\n")
    spec = job_spec("c", None, JobOptions(actors="1"), path)  # also where it is the default
    assert (spec.input, spec.output, spec.limit, spec.actors) == ("c", "b", 3, (1, 1))
    assert spec.grammar == "off"


def test_a_range_of_actors_is_no_number_of_seconds(tmp_path: Path) -> None:
    path = written(tmp_path, "input: a\noutput: b\nactors: 1:8\n")  # 68, says YAML 1.1
    assert job_spec(None, None, JobOptions(), path).actors == (1, 8)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("input: a\noutput: b\nlimt: 3", "no option limt; did you mean limit?"),
        ("input: a\noutput: b\nstall-timeout: 3", "did you mean stall_timeout_s?"),
        ("input: a\noutput: b\nlimit: 0", "job.yaml: limit: Input should be greater"),
        ("input: a\noutput: b\ntask: brief", "job.yaml: task: "),
        ("input: a\noutput: b\ntask: [mine]", "no task named 'mine'"),
        ("input: a\noutput: b\ndefine: [{name: a}]", "job.yaml: define.0.prompt: Field required"),
        ("input: a\noutput: b\ndefine: [{name: a, prompt: '{b'}]", "define.0: task a"),
        ("input: a\noutput: b\ngpus_per_actor: 0", "gpus_per_actor: Input should be"),
        ("input: a\ninput: b", "input comes twice"),
        ("input: a", "OUTPUT missing"),
        ("", "one option a line"),
        ("- a", "one option a line"),
        ("a: [", "is not YAML"),
    ],
)
def test_what_is_wrong_is_named(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError) as raised:
        job_spec(None, None, JobOptions(), written(tmp_path, text))
    assert said in str(raised.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"nothing.yaml: No such file"):
        job_spec("a", "b", JobOptions(), tmp_path / "nothing.yaml")


def test_print_config_writes_what_config_reads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["annotate", "in", "out", "--limit", "2", "--stall-timeout", "7", "--print-config"]
    assert run_command(arguments) == 0
    path = written(tmp_path, capsys.readouterr().out)
    asked: list[Any] = []
    monkeypatch.setattr(
        "jobs.commands.annotate.annotate_and_report", lambda spec: asked.append(spec) or 0
    )
    assert run_command(["annotate", "--config", str(path), "--limit", "5"]) == 0
    assert asked == [JobSpec(input="in", output="out", limit=5, stall_timeout_s=7)]
    assert not (tmp_path / "out").exists()
