"""The model of an existing job: what is known of it without loading it."""

import pytest

from kosmos2_core.checkpoint.files import SHAPES_DIRECTORY, locate_checkpoint
from pipeline.driver.preflight import known_model
from pipeline.errors import SpecError
from pipeline.spec.job import JobSpec
from tests.support.tars import MODEL, job_record

SHAPES = MODEL.model_copy(
    update={"id": "shapes", "weights_digest": locate_checkpoint("shapes").weights_digest()}
)
SPEC = JobSpec(input="in", output="out")
RECORD = job_record(SPEC, SHAPES)


def test_a_job_that_asks_for_the_same_model_knows_it():
    assert known_model(SPEC, RECORD, is_work_left=True) == SHAPES


@pytest.mark.parametrize("changes", [{"model": "owner/other"}, {"dtype": "float16"}, {"slots": 2}])
def test_an_actor_says_what_another_request_comes_to(changes):
    asked = SPEC.model_copy(update=changes)
    assert known_model(asked, RECORD, is_work_left=True) is None


def test_an_actor_says_what_the_model_of_a_new_job_is():
    assert known_model(SPEC, None, is_work_left=True) is None
    assert known_model(SPEC, None, is_work_left=False) is None


@pytest.mark.parametrize(
    ("changes", "differs"),
    [
        ({"model": str(SHAPES_DIRECTORY)}, {}),
        ({"slots": 2}, {}),
        ({"dtype": "float16"}, {"dtype": "float16"}),
        ({"no_repeat_ngram_size": 2}, {"no_repeat_ngram_size": 2}),
        ({"grammar": "strict"}, {"ngram_mode": "text"}),
    ],
)
def test_a_finished_job_compares_another_request_by_its_files(changes, differs):
    asked = SPEC.model_copy(update=changes)
    found = known_model(asked, RECORD, is_work_left=False)
    assert found == SHAPES.model_copy(update=differs)


def test_a_finished_job_refuses_a_model_that_is_not_there():
    asked = SPEC.model_copy(update={"model": "./nowhere"})
    with pytest.raises(SpecError, match=r"no checkpoint at './nowhere'"):
        known_model(asked, RECORD, is_work_left=False)
