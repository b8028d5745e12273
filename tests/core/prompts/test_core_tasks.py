import pytest

from kosmos2_core.errors import KosmosError, UnknownTask
from kosmos2_core.prompts.tasks import TASKS, Task, task_named


@pytest.mark.parametrize(
    ("name", "prompt"),
    [
        ("brief", "<grounding> An image of"),
        ("detailed", "<grounding> Describe this image in detail:"),
    ],
)
def test_prompts_are_those_of_the_model_card(name, prompt):
    assert task_named(name).prompt == prompt


def test_tasks_are_found_by_their_own_names():
    assert {name: task.name for name, task in TASKS.items()} == {name: name for name in TASKS}


@pytest.mark.parametrize(
    ("prompt", "fields"),
    [
        ("<grounding> An image of", ()),
        ("<grounding><phrase> {phrase}</phrase>", ("phrase",)),
        ("<grounding> Question: {question} Answer: {answer}", ("question", "answer")),
        ("a literal {{brace}}", ()),
    ],
)
def test_fields_are_what_the_prompt_needs_from_the_sample(prompt, fields):
    assert Task(name="any", prompt=prompt, max_new_tokens=1).fields == fields


def test_unknown_task_lists_those_there_are():
    with pytest.raises(UnknownTask, match="'terse'; there are: brief, detailed, plain, "):
        task_named("terse")
    assert issubclass(UnknownTask, KosmosError)
