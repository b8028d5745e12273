import pytest

from kosmos2_core.generation import Generation


def test_the_strict_grammar_implies_the_text_mode():
    assert Generation().resolved_ngram_mode == "reference"
    assert Generation(ngram_mode="text").resolved_ngram_mode == "text"
    for asked in (None, "text"):
        assert Generation(ngram_mode=asked, grammar="strict").resolved_ngram_mode == "text"
    with pytest.raises(ValueError, match="use ngram mode text, or grammar off"):
        Generation(ngram_mode="reference", grammar="strict")


@pytest.mark.parametrize("slots", [0, -1])
def test_slots_are_at_least_one(slots):
    with pytest.raises(ValueError, match="slots must be at least 1"):
        Generation(slots=slots)


def test_options_that_are_none_are_resolved():
    found = Generation(verify_boxes=True).resolved(no_repeat_ngram_size=3)
    assert found == Generation(
        no_repeat_ngram_size=3, ngram_mode="reference", slots=16, verify_boxes=True
    )


def test_given_options_are_kept():
    asked = Generation(no_repeat_ngram_size=0, ngram_mode="text", slots=2)
    assert asked.resolved(no_repeat_ngram_size=3, slots=8) == asked
