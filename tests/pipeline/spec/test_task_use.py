"""Tasks as a job names them, and the fields of a sample that they are made of."""

import pytest

from kosmos2_core.errors import UnknownTask
from kosmos2_core.prompts.tasks import ASK, BRIEF, GROUND
from pipeline.spec.tasks import TaskUse


@pytest.mark.parametrize(
    ("text", "task", "sources"),
    [
        ("brief", BRIEF, ()),
        ("ground", GROUND, (("phrase", "phrase"),)),
        ("ground:phrase=caption", GROUND, (("phrase", "caption"),)),
        (
            "ask:question=q,box=region",
            ASK,
            (("question", "q"), ("phrase", "phrase"), ("box", "region")),
        ),
        ("ground:phrase=a b.c:d", GROUND, (("phrase", "a b.c:d"),)),
    ],
)
def test_fields_come_from_where_they_are_said_to(
    text: str, task: object, sources: tuple[tuple[str, str], ...]
) -> None:
    assert TaskUse.parse(text) == TaskUse(task=task, sources=sources)


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("haiku:phrase=x", UnknownTask, "'haiku'"),
        ("", ValueError, "is not a task; give"),
        ("ground:phrase", ValueError, "FIELD=METADATA_FIELD"),
        ("ground:phrase=", ValueError, "FIELD=METADATA_FIELD"),
        ("ground:phrase=a,phrase=b", ValueError, "repeats a field"),
        ("ground:box=a", ValueError, "no field 'box'; it has phrase"),
        ("brief:phrase=a", ValueError, "no field 'phrase'; it has none"),
    ],
)
def test_what_names_no_task_or_field_is_refused(
    text: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        TaskUse.parse(text)


def test_a_sample_gives_what_it_has() -> None:
    use = TaskUse.parse("ask:question=q,box=region")
    assert use.fields_of({"q": "What?", "other": 1}) == {"question": "What?"}
    assert use.fields_of({"q": "What?", "region": [0, 0, 1, 1]}) == {
        "question": "What?",
        "box": [0, 0, 1, 1],
    }


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("caption", "a dog"),
        ("objects.0.phrase", "a cat"),
        ("objects.1.phrase", None),
        ("objects.-1.phrase", None),
        ("objects.phrase", None),
        ("caption.0", None),
        ("a.b", "literal"),
        ("nothing", None),
    ],
)
def test_paths_lead_into_nested_fields(path: str, expected: str | None) -> None:
    metadata = {"caption": "a dog", "objects": [{"phrase": "a cat"}], "a.b": "literal", "a": {}}
    found = TaskUse.parse(f"ground:phrase={path}").fields_of(metadata)
    assert found == ({} if expected is None else {"phrase": expected})
