"""Each command of README and docs runs here, on a bucket of that name, or is listed with why not;
those of the cookbook run in tests/test_cookbook.py.

A new one that is not listed runs too, and has to end with exit code 0.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.cli import run_command
from kosmos2_core.shapes.world.shards import encode_jpeg, make_scene
from tests.support.bucket import FEW_OBJECTS, Bucket
from tests.support.cluster import Kosmos2
from tests.support.documents import COMMANDS, DOCUMENTS, ROOT, commands, words
from tests.support.locally import LocalCommand, local_surroundings
from tests.support.s3 import S3Server
from tests.support.tars import tar

SHARDS, IMAGES = 2, 4
# What stands for something of yours, and for a model that is not at hand.
_STAND_FOR = {
    "IN": "s3://bucket/shards/",
    "OUT": "s3://bucket/out/",
    "OUTPUT": "s3://bucket/out/",
    **dict.fromkeys(("OTHER", "golden/", "out/", "s3://bucket/new/"), "s3://bucket/out/"),
    "DEST": "s3://bucket/dest/",
    "demo/out": "s3://bucket/out/",
    "s3://my-output/annotated/": "s3://bucket/out/",
    "microsoft/kosmos-2-patch14-224": "shapes",
}
# What begins so cannot run here.
ELSEWHERE = {
    r"docker ": "no Docker; tests/infra checks its files",
    r"(openssl .*\| |HEAD=\$\()?kubectl ": "no Kubernetes; tests/infra checks the manifests",
    r"aws ": "no AWS; tests/infra checks the policies",
    r"cat > infra/\.env": "secrets for Docker",
    r"apt-get |npm ": "for administrators",
    r"pip install 'kosmos2-annotate\[": "it is what the tests run in",
    r"\.venv/bin/python -m tests\.support\.read_costs": "a measurement of a minute",
    r"python -m tests\.support\.originals_at_scale": "a measurement of minutes",
    r'python -c "from kosmos2_core import Annotator;': "a measurement; it prints nothing",
    r"make test|\.venv/bin/pytest ": "these are the tests, and would run this one",
    r"pip install |python -m build": "tests/infra/test_install.py does it, in an empty environment",
    r"make install|make docs": "what the tests run in, and what test_readme.py compares",
    r"make lint|\.venv/bin/ruff ": "CI does it before the tests",
    r"ray (job stop|logs|start)": "Ray's own, of a job with that ID or of a cluster",
    r"kosmos2 export --score": "one option of a command that is there in full",
}
# What takes minutes, a job server or a death: a test does it, smaller where it says so.
BY_ANOTHER_TEST = {
    "make demo": ("jobs/test_cli.py", "test_status_of_a_demo_is_json"),
    "make chaos": ("chaos/test_chaos.py", "test_schedule_of_faults_loses_nothing"),
    "kosmos2 demo": ("jobs/test_cli.py", "test_status_of_a_demo_is_json"),
    **dict.fromkeys(
        ("kosmos2 check", "python -m kosmos2_core.check"),
        ("jobs/commands/test_check_command.py", "test_json_is_the_only_output"),
    ),
    "kosmos2 doctor": ("jobs/commands/test_doctor.py", "test_a_local_setup_is_right"),
    "kosmos2 bench decode": (
        "jobs/bench/test_bench_decode.py",
        "test_fast_decoding_is_measured_and_its_boxes_are_counted",
    ),
    "kosmos2 bench reader": (
        "jobs/bench/test_bench_reader.py",
        "test_each_part_of_both_inputs_is_measured_on_disk_and_on_s3",
    ),
    "kosmos2 model fetch": (
        "jobs/commands/test_model_command.py",
        "test_a_model_is_put_where_a_job_finds_it",
    ),
    "kosmos2 annotate s3://bucket/shards/ s3://bucket/out/ --model s3://": (
        "jobs/commands/test_model_command.py",
        "test_a_model_is_put_where_a_job_finds_it",
    ),
    "kosmos2 bench engine": (
        "jobs/bench/test_bench_engine.py",
        "test_the_benchmark_prints_its_figures",
    ),
    "python -m jobs.bench.engine.spans": (
        "jobs/bench/test_bench_spans.py",
        "test_groups_give_the_same_attention",
    ),
    "kosmos2 bench host": (
        "jobs/bench/test_bench_host.py",
        "test_the_benchmark_prints_its_figures",
    ),
    "kosmos2 bench pipeline": (
        "jobs/bench/test_bench_pipeline.py",
        "test_the_benchmark_prints_its_figures",
    ),
    "kosmos2 bench scale": (
        "jobs/bench/test_bench_scale.py",
        "test_the_benchmark_prints_its_figures",
    ),
    "kosmos2 bench driver": ("jobs/bench/test_bench_light.py", "test_a_driver_has_its_figures"),
    "kosmos2 bench actors": ("jobs/bench/test_bench_light.py", "test_actors_are_compared_with_one"),
    "kosmos2 bench soak": (
        "jobs/bench/test_bench_light.py",
        "test_a_soak_has_a_trend_of_each_figure",
    ),
    "kosmos2 submit s3://bucket/shards/ s3://bucket/out/ --actors 2:64 --address": (
        "e2e/test_jobs.py",
        "test_a_stopped_job_is_taken_up_again_and_followed_to_its_end",
    ),
    "kosmos2 annotate s3://bucket/shards/ s3://bucket/out/ --actors 64 --drivers 4": (
        "e2e/test_deaths.py",
        "test_a_run_with_two_drivers_goes_on_after_the_death_of_one",
    ),
    "kosmos2 annotate s3://bucket/shards/ s3://bucket/out/ --skip-copies": (
        "local/test_copies.py",
        "test_copies_within_a_run_are_annotated_once",
    ),
    "kosmos2 annotate s3://bucket/new/ s3://bucket/out2/ --reuse s3://bucket/out/": (
        "local/test_copies.py",
        "test_answers_are_taken_from_another_dataset",
    ),
    'python -c "import ray; from ray.autoscaler.sdk': (
        "e2e/test_autoscaling.py",
        "test_nodes_can_be_asked_for_by_hand",
    ),
    "kosmos2 annotate az://": ("e2e/test_azure.py", "test_a_job_from_azure_to_azure"),
    "kosmos2 submit --config": (
        "e2e/test_jobs.py",
        "test_a_stopped_job_is_taken_up_again_and_followed_to_its_end",
    ),
    'KOSMOS2_FAULTS="driver.committed:3=kill"': (
        "e2e/test_deaths.py",
        "test_killed_run_leaves_its_commits_and_no_driver",
    ),
    "kosmos2 export OUTPUT DEST --format hf --parallel": (
        "e2e/test_export.py",
        "test_sections_are_exported_at_the_same_time_and_a_death_costs_nothing",
    ),
    **dict.fromkeys(
        (
            "kosmos2 sample s3://bucket/out/ judge/",
            "kosmos2 review import s3://bucket/out/ answers.json",
            "kosmos2 filter s3://bucket/out/ s3://bucket/precise/ --min-precision",
        ),
        ("jobs/commands/test_review.py", "test_boxes_are_filtered_by_precision"),
    ),
    **dict.fromkeys(
        (
            "kosmos2 export s3://bucket/precise/ coco/ --format coco",
            "kosmos2 export s3://bucket/out/ calibrated/ --format boxes --score calibrated",
        ),
        ("jobs/commands/test_review.py", "test_scores_are_exported_calibrated"),
    ),
    "kosmos2 publish hf/ me/captions --private": (
        "jobs/commands/test_publish.py",
        "test_an_export_arrives_in_one_commit_and_is_noted",
    ),
    **dict.fromkeys(
        (
            "kosmos2 annotate s3://bucket/laion-parquet/",
            "kosmos2 annotate hf-dataset/",
            "kosmos2 annotate s3://bucket/photos/",
            "kosmos2 annotate photos/metadata.jsonl",
            "kosmos2 annotate urls.parquet",
        ),
        (
            "pipeline/formats/test_inputs.py",
            "test_scenes_are_annotated_alike_whatever_they_come_in",
        ),
    ),
    "kosmos2 annotate 's3://bucket/part-": (
        "pipeline/plan/test_kinds.py",
        "test_a_pattern_is_an_input",
    ),
    **dict.fromkeys(
        (
            *("kosmos2 annotate photos/ out/", "kosmos2 view out/"),
            *("kosmos2 filter out/ good/", "kosmos2 dedup good/ unique/"),
        ),
        ("test_cookbook.py", "test_a_command_of_the_cookbook_does_what_it_says"),
    ),
    "OMP_NUM_THREADS=1 MALLOC_MMAP_THRESHOLD_": (
        "core/shapes/test_training.py",
        "test_a_killed_run_resumes_to_the_same_weights",
    ),
}
# What takes minutes, made small.
_SMALLER = {
    "kosmos2 bench images": ("--images", "2", "--rounds", "1"),
    "kosmos2 evaluate shapes": ("--scenes", "5"),
}
# Each makes a dataset of its own.
_ALONE = re.compile(r"kosmos2 annotate (IN OUT --(task|carry|metadata) |.* --partition )")


def listed(command: str) -> bool:
    return any(re.match(start, command) for start in ELSEWHERE) or any(
        command.startswith(start) for start in BY_ANOTHER_TEST
    )


_OF_OTHERS = {
    c for page in DOCUMENTS if page.name != "cookbook.md" for c in commands(page.read_text())
}
RUN = [command for command in COMMANDS if command in _OF_OTHERS and not listed(command)]
ALONE = [command for command in RUN if _ALONE.match(command)]
QUICK = [command for command in RUN if command not in (*ALONE, *_SMALLER)]


def arguments(command: str) -> list[str]:
    """What the command line gets, with something in the place of what is yours."""
    program, *given = words(command)
    assert program == "kosmos2"
    return [_STAND_FOR.get(word, word) for word in given]


def scene_with_fields(index: int) -> Iterator[tuple[str, bytes]]:
    """A scene with what the examples of docs/tasks.md ask of it."""
    scene = make_scene(5, index, objects=FEW_OBJECTS)
    [shown, *_] = scene.objects
    box = [float(side) for side in shown.box]
    fields = {
        "alt_text": shown.phrase,
        "phrase": shown.phrase,
        "words": shown.phrase,
        "q": f"What is next to {shown.phrase}?",
        "region": box,
        "objects": [{"box": box}],
    }
    yield f"{index}.jpg", encode_jpeg(scene, 90)
    yield f"{index}.json", json.dumps(fields).encode()


@pytest.fixture(scope="module")
def bucket(s3_server: S3Server) -> Bucket:
    """Called as in the documents."""
    bucket = Bucket(name=s3_server.make_bucket("bucket"), server=s3_server)
    for shard in range(SHARDS):
        members = [m for i in range(IMAGES) for m in scene_with_fields(shard * IMAGES + i)]
        bucket.put(f"shards/{shard}.tar", tar(members))
    return bucket


@pytest.fixture(scope="module")
def dataset(bucket: Bucket) -> Bucket:
    """Make it as the README does, but without Ray."""
    annotates = [command for command in RUN if command.startswith("kosmos2 annotate ")]
    first = next(command for command in annotates if "--task brief --task detailed" in command)
    with local_surroundings(bucket.server):
        done = LocalCommand().run(*arguments(first))
    assert done.returncode == 0, done.stderr
    return bucket


@pytest.mark.parametrize("command", QUICK)
def test_command_does_what_it_should(
    command: str,
    dataset: Bucket,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In this process: of what is there already nothing is annotated again."""
    for name, value in dataset.server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    code = run_command(arguments(command))
    said = capsys.readouterr()
    assert code == 0, said.err
    assert said.out + said.err


@pytest.mark.slow
@pytest.mark.parametrize("command", ALONE)
def test_command_annotates_what_it_asks_for(command: str, bucket: Bucket, kosmos2: Kosmos2) -> None:
    own = f"s3://bucket/out-{ALONE.index(command)}/"
    given = [own if word == _STAND_FOR["OUT"] else word for word in arguments(command)]
    done = kosmos2.run(*given)
    assert done.returncode == 0, done.stderr
    assert "rejected 0" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("command", _SMALLER)
def test_command_that_takes_minutes_prints_its_figures(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command in RUN
    assert run_command([*arguments(command), *_SMALLER[command]]) == 0
    assert capsys.readouterr().out


@pytest.mark.parametrize("start", [*ELSEWHERE, *map(re.escape, BY_ANOTHER_TEST)])
def test_a_list_has_nothing_that_no_document_shows(start: str) -> None:
    assert any(re.match(start, command) for command in COMMANDS)


@pytest.mark.parametrize(("path", "name"), BY_ANOTHER_TEST.values())
def test_the_other_test_is_there(path: str, name: str) -> None:
    assert f"def {name}(" in (ROOT / "tests" / path).read_text()


@pytest.mark.parametrize("command", [one for one in COMMANDS if "/bin/pytest " in one])
def test_tests_that_a_document_names_are_there(command: str) -> None:
    assert all((ROOT / word).exists() for word in words(command) if word.startswith("tests/"))
