"""JobSpec and Identity: what defines a run, and what of it decides the content."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from pipeline.errors import StorageUrlError
from pipeline.spec.identity import IMAGE_PATH, JobRecord, identity_of
from pipeline.spec.job import JobSpec, RetryOptions
from tests.support.tars import MODEL, job_record

SPEC = JobSpec(input="in", output="out", gpu_hour_cost=1.0)
MINE = {"name": "mine", "prompt": "How many {thing}?", "max_new_tokens": 8}
SECRET = "wJalrXUtnFEMI"


def changed(**changes: Any) -> JobSpec:
    return JobSpec(**{**SPEC.model_dump(), **changes})


# ---- what may be asked for


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"colour": "red"}, "Extra inputs are not permitted"),
        ({"Slots": 3}, "Extra inputs are not permitted"),
        ({"task": ("haiku",)}, "no task named 'haiku'; there are: brief, detailed"),
        ({"task": ()}, "at least one task"),
        ({"task": ("brief", "brief")}, "each once"),
        ({"task": ("ground:phrase=a", "ground:phrase=b")}, "each once"),
        ({"task": ("ground:box=a",)}, "task ground has no field 'box'; it has phrase"),
        ({"task": ("mine",)}, "no task named 'mine'; there are: brief"),
        ({"define": ({"name": "brief", "prompt": "a"},)}, "task brief: name 'brief'"),
        ({"define": (MINE, MINE)}, "define each task once"),
        ({"define": (MINE,), "task": ("mine:box=a",)}, "task mine has no field 'box'"),
        ({"dtype": "int8"}, "'auto', 'float32', 'float16' or 'bfloat16'"),
        ({"exif": "maybe"}, "'apply' or 'ignore'"),
        *[({name: 0}, "greater than") for name in ("slots", "limit", "stall_timeout_s")],
        ({"no_repeat_ngram_size": -1}, "greater than or equal to 0"),
        ({"max_reject_rate": 1.5}, "less than or equal to 1"),
        ({"partition": "4/4"}, "of four parts, the first is 0/4"),
        ({"ngram_mode": "words"}, "'reference' or 'text'"),
        ({"grammar": "loose"}, "'off' or 'strict'"),
        (
            {"ngram_mode": "reference", "grammar": "strict", "verify_boxes": True},
            "use ngram mode text, or grammar off",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        changed(**options)


@pytest.mark.parametrize(
    ("given", "mode"), [("auto", "auto"), ("off", "off"), (False, "off"), (True, "auto")]
)
def test_cuda_graphs_are_a_word_also_where_yaml_or_a_record_has_a_bool(
    given: object, mode: str
) -> None:
    spec = JobSpec.model_validate({"input": "in", "output": "out", "cuda_graph": given})
    assert spec.generation.cuda_graph == mode


def test_a_spec_is_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        SPEC.slots = 3


def test_every_option_explains_itself_for_the_help() -> None:
    assert all(field.description for field in JobSpec.model_fields.values())


def test_a_record_reads_back_as_it_was_written() -> None:
    record = job_record(changed(task=("detailed", "brief"), exclude=("a", "b"), limit=3))
    assert JobRecord.model_validate_json(record.model_dump_json()) == record


def test_a_retry_takes_all_from_the_job_but_what_it_is_told() -> None:
    spec = changed(
        **{"actors": 3, "max_reject_rate": 0.5, "output_profile": "a", "max_gpu_hours": 3.0},
        task=("detailed", "brief"),
    )
    options = RetryOptions(samples=True, actors=2, output_endpoint_url="http://b")
    assert options.applied_to(spec, "there") == spec.model_copy(
        update={
            "output": "there",
            "actors": (2, 2),
            "output_endpoint_url": "http://b",
            "output_profile": None,
            "max_gpu_hours": None,
        }
    )


def test_a_reason_to_retry_is_one_of_samples() -> None:
    with pytest.raises(ValidationError, match="add --samples"):
        RetryOptions(error_type="corrupt_image")


# ---- the fingerprint


# Every field of the spec is in one of the two tables, so that a new one is thought about.
DECIDES = {
    **{"task": ("detailed",), "exif": "ignore", "decode": "fast"},
    **{
        "grammar": "strict",
        "verify_boxes": True,
        "image_column": "picture",
        "image_member": "left.png",
    },
    **{"carry": ("url",), "metadata": "none"},
}
NEUTRAL = {
    **{"input": "elsewhere", "output": "elsewhere", "include": ("*.x",), "exclude": ("*.y",)},
    **{"slots": 5, "actors": 7, "drivers": 2, "limit": 3, "partition": "1/4", "extend": True},
    **{"cuda_graph": "off", "gpus_per_actor": 2, "accelerator_type": "A100"},
    **{"actor_label": ("a=b",), "reader_label": ("a=b",)},
    **{"max_reject_rate": 0.5, "stall_timeout_s": 1},
    **{"skip_copies": True, "reuse": ("elsewhere",)},
    **{"gpu_hour_cost": 3.5, "max_gpu_hours": 2.0, "max_cost": 7.0},
    **{"input_endpoint_url": "http://a", "output_endpoint_url": "http://b"},
    **{"input_profile": "a", "output_profile": "b"},
    **{"input_storage_option": ("region=a",), "output_storage_option": ("sse=AES256",)},
    "define": (MINE,),  # a task that is asked for is in the identity as `task`
    # What these come to lies in the plan, which is frozen.
    **{"input_format": "files", "samples_per_shard": 5, "allow_http": True},
    # What these come to decides: they are in the tables of the resolved model.
    **{"model": "owner/name", "device": "cuda", "dtype": "float16", "no_repeat_ngram_size": 0},
    "ngram_mode": "text",
}
MODEL_DECIDES = {
    **{"weights_digest": "e" * 64, "dtype": "float16", "no_repeat_ngram_size": 0},
    "ngram_mode": "text",
}
MODEL_NEUTRAL = {
    "id": "other/name",
    "commit": None,
    "device": "cuda",
    "slots": 3,
    "memory_bytes": 4,
}


def test_the_tables_name_every_field() -> None:
    assert DECIDES.keys() | NEUTRAL.keys() == JobSpec.model_fields.keys()
    assert MODEL_DECIDES.keys() | MODEL_NEUTRAL.keys() == type(MODEL).model_fields.keys()


@pytest.mark.parametrize("name", [*DECIDES, *NEUTRAL])
def test_the_fingerprint_changes_only_with_what_decides_the_content(name: str) -> None:
    before = identity_of(SPEC, MODEL)
    after = identity_of(changed(**{name: {**DECIDES, **NEUTRAL}[name]}), MODEL)
    assert (after.fingerprint != before.fingerprint) == (name in DECIDES)
    assert bool(after.differences(before)) == (name in DECIDES)


@pytest.mark.parametrize("name", [*MODEL_DECIDES, *MODEL_NEUTRAL])
def test_the_fingerprint_changes_only_with_what_the_model_came_to(name: str) -> None:
    before = identity_of(SPEC, MODEL)
    value = {**MODEL_DECIDES, **MODEL_NEUTRAL}[name]
    after = identity_of(SPEC, MODEL.model_copy(update={name: value}))
    assert (after.fingerprint != before.fingerprint) == (name in MODEL_DECIDES)
    assert after.differences(before) == (
        {name: (value, getattr(MODEL, name))} if name in MODEL_DECIDES else {}
    )


def test_a_task_of_the_users_own_is_part_of_the_identity() -> None:
    spec = changed(define=(MINE,), task=("mine:thing=label",))
    [task] = identity_of(spec, MODEL).tasks
    assert (task.prompt, task.max_new_tokens) == ("How many {thing}?", 8)
    assert task.sources == (("thing", "label"),)
    for other in ({"prompt": "Which {thing}?"}, {"max_new_tokens": 9}, {"grounded": True}):
        another = changed(define=({**MINE, **other},), task=("mine:thing=label",))
        assert identity_of(another, MODEL).fingerprint != identity_of(spec, MODEL).fingerprint


def test_the_order_of_tasks_is_part_of_the_identity() -> None:
    one, other = changed(task=("brief", "detailed")), changed(task=("detailed", "brief"))
    assert identity_of(one, MODEL).fingerprint != identity_of(other, MODEL).fingerprint


def test_the_fingerprint_of_yesterday_is_that_of_today() -> None:
    """Existing outputs cannot be resumed once it is another: raise SCHEMA_VERSION instead."""
    identity = identity_of(SPEC, MODEL)
    assert identity.image_path == IMAGE_PATH == "simplejpeg+torch-bicubic"
    assert identity.fingerprint == "7c499a5bd35a0097"


def test_a_record_from_before_a_field_of_the_identity_is_that_of_its_default() -> None:
    record = job_record(SPEC)
    body = json.loads(record.model_dump_json())
    for part, later in (
        ("identity", ("ngram_mode", "grammar", "verify_boxes", "derived")),
        ("model", ("ngram_mode", "slots", "memory_bytes")),
        ("spec", ("ngram_mode", "grammar")),
    ):
        for name in later:
            del body[part][name]
    del body["source"]
    assert JobRecord.model_validate(body) == record
    assert record.identity.fingerprint == record.fingerprint


# ---- secrets


@pytest.mark.parametrize(
    "place",
    [
        {"input": f"s3://key:{SECRET}@bucket/in"},
        {"output": f"s3://key:{SECRET}@bucket/out"},
        {"input": f"https://user:{SECRET}@host/in"},
        {"input": f"https://host/in?X-Amz-Signature={SECRET}"},
        {"input_endpoint_url": f"http://key:{SECRET}@host"},
        {"output_endpoint_url": f"http://key:{SECRET}@host"},
    ],
)
def test_credentials_are_refused_before_anybody_writes_them(place: dict[str, str]) -> None:
    with pytest.raises(StorageUrlError) as refused:
        changed(**place)
    assert SECRET not in str(refused.value)


def test_a_record_holds_the_names_of_profiles_and_no_secret(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", SECRET)
    record = job_record(changed(input_profile="mine", output_endpoint_url="http://host:8333"))
    assert SECRET not in record.model_dump_json() + repr(record)
    body = json.loads(record.model_dump_json())
    assert (body["spec"]["input_profile"], body["spec"]["output_profile"]) == ("mine", None)
