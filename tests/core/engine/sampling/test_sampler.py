"""The n-gram ban in both modes; the reference is Hugging Face's own processor."""

import pytest
import torch
from transformers import NoRepeatNGramLogitsProcessor

from kosmos2_core.engine.requests import Prompt
from kosmos2_core.engine.sampling.ngrams import NgramHistory
from kosmos2_core.engine.sampling.sampler import Sampler
from kosmos2_core.generation import Generation
from kosmos2_core.grounding.vocabulary import Tag
from tests.support.engine_models import HEAD, shapes

WORDS = 6


def history_of(rows, size, counted=None):
    history = NgramHistory(
        size=size,
        slots=len(rows) + 1,
        length=20,
        counted=torch.arange(WORDS) if counted is None else counted,
    )
    history.begin(0, rows)
    return history


def banned(history, rows, first=0):
    lengths = torch.tensor([len(row) for row in rows])
    slots = torch.arange(first, first + len(rows))
    mask = history.banned(slots, lengths, WORDS, span=int(lengths.max()))
    return [set(row.nonzero().flatten().tolist()) for row in mask]


def reference(row, size):
    scores = NoRepeatNGramLogitsProcessor(size)(torch.tensor([row]), torch.zeros(1, WORDS))
    return set(torch.isinf(scores[0]).nonzero().flatten().tolist())


def rows_of(seed):
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(4, 20, (8,), generator=generator).tolist()
    return [torch.randint(0, WORDS, (n,), generator=generator).tolist() for n in lengths]


@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize("seed", range(10))
def test_banned_tokens_are_those_of_hugging_face_for_every_row(seed, size):
    rows = rows_of(seed)
    assert banned(history_of(rows, size), rows) == [reference(row, size) for row in rows]


def test_a_history_grows_token_by_token_and_follows_its_sequence():
    rows = rows_of(3)
    history = history_of([row[:3] for row in rows], 2)
    for at in range(3, 20):
        for slot, row in enumerate(rows):
            if at < len(row):
                history.append(torch.tensor([slot]), torch.tensor([at]), torch.tensor([row[at]]))
    history.move(5, to=len(rows))
    assert banned(history, rows) == [reference(row, 2) for row in rows]
    assert banned(history, [rows[5]], first=len(rows)) == [reference(rows[5], 2)]


def test_a_slot_forgets_the_sequence_before():
    history = history_of([[1, 2, 3, 1, 2, 4, 1, 2]], 3)
    history.begin(0, [[0, 1, 2]])
    assert banned(history, [[0, 1, 2]]) == [set()]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        pytest.param([1, 2, 3, 1, 2], {3}, id="all text"),
        pytest.param([1, 5, 3, 1, 5], set(), id="a tag in the middle"),
        pytest.param([5, 2, 3, 5, 2], set(), id="a tag before"),
        pytest.param([1, 2, 5, 1, 2], set(), id="the tag itself"),
        pytest.param([5, 5, 5, 5, 5], set(), id="tags only"),
        pytest.param([5, 1, 2, 3, 5, 1, 2], {3}, id="text between tags"),
    ],
)
def test_what_does_not_count_is_never_banned_nor_bans(row, expected):
    counted = torch.arange(WORDS).where(torch.arange(WORDS) != 5, -1)
    assert banned(history_of([row], 3, counted), [row]) == [expected]


# Whole choices, with the vocabulary of the shapes checkpoint


def ids(tag):
    vocabulary = shapes().vocabulary
    return next(i for i, t in vocabulary.tags.items() if t is tag)


PHRASE, END, OBJECT = map(ids, (Tag.PHRASE, Tag.END_OF_PHRASE, Tag.OBJECT))
LOCATION = shapes().vocabulary.first_location + 40
DOG, CAT, RUNS, OTHER = 101, 102, 103, 104  # not among the placeholders
PLACEHOLDERS = tuple(range(4, 4 + HEAD))


def choose(text, wish, mode, size=3):
    """The token after image and `text` where the model wants `wish` most, then OTHER."""
    sampler = Sampler(shapes(), Generation(no_repeat_ngram_size=size, ngram_mode=mode))
    prompt = Prompt(task="", ids=PLACEHOLDERS + text, max_new_tokens=9)
    if constraints := sampler.new_constraints(1, 200):
        constraints.begin(0, [prompt])
    logits = torch.zeros(1, shapes().model.config.text_config.vocab_size)
    logits[0, wish], logits[0, OTHER] = 9.0, 8.0
    return sampler(logits, constraints, 0, [len(prompt.ids)]).read()


SECOND_DOG = (DOG, END, OBJECT, LOCATION, RUNS, DOG, END)


@pytest.mark.parametrize(
    ("text", "wish", "mode", "is_banned", "is_suppressed"),
    [
        pytest.param(SECOND_DOG, OBJECT, "reference", True, True, id="tag, reference"),
        pytest.param(SECOND_DOG, OBJECT, "text", False, False, id="tag, text"),
        pytest.param((DOG, CAT, RUNS, DOG, CAT), RUNS, "reference", True, False, id="word"),
        pytest.param((DOG, CAT, RUNS, DOG, CAT), RUNS, "text", True, False, id="word, text"),
        pytest.param((OBJECT, 5, 6), 7, "reference", True, False, id="placeholders, reference"),
        pytest.param((OBJECT, 5, 6), 7, "text", False, False, id="placeholders, text"),
        pytest.param(
            (END, OBJECT, LOCATION, END, OBJECT), LOCATION, "reference", True, True, id="location"
        ),
        pytest.param(
            (END, OBJECT, LOCATION, END, OBJECT),
            LOCATION,
            "text",
            False,
            False,
            id="location, text",
        ),
        pytest.param((DOG, CAT), RUNS, "reference", False, False, id="nothing repeated"),
    ],
)
def test_a_ban_takes_the_second_best_and_names_lost_markup(
    text, wish, mode, is_banned, is_suppressed
):
    choice = choose(text, wish, mode)
    assert choice.token_ids.tolist() == [OTHER if is_banned else wish]
    assert choice.is_ngram_suppressed.tolist() == [is_suppressed]


def test_scores_are_those_before_the_ban():
    free = choose((DOG, CAT, RUNS, DOG, CAT), RUNS, "reference", size=0)
    banned = choose((DOG, CAT, RUNS, DOG, CAT), RUNS, "reference")
    assert (*free.token_ids, *banned.token_ids) == (RUNS, OTHER)
    assert banned.logprobs == pytest.approx(free.logprobs - 1, abs=1e-5)
