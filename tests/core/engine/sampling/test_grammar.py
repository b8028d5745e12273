"""The strict grammar: whatever a model would say, its answer is well-formed."""

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kosmos2_core.annotation import Issue
from kosmos2_core.engine.requests import PREFIX_LENGTH, Prompt
from kosmos2_core.engine.sampling.grammar import (
    ENOUGH,
    RULES,
    TO_CLOSE,
    Grammar,
    GrammarStates,
    State,
    TokenKind,
    follow,
    permitted,
)
from kosmos2_core.engine.sampling.sampler import Sampler
from kosmos2_core.generation import Generation
from kosmos2_core.grounding.grid import CELLS, GRID
from kosmos2_core.grounding.parser import parse_tokens
from kosmos2_core.grounding.scores import TokenScores
from kosmos2_core.grounding.vocabulary import Tag
from kosmos2_core.prompts.tasks import BRIEF, DETAILED
from tests.support.engine_models import (
    answers,
    engine_of,
    ids_of,
    pixels,
    prompt_of,
    random_model,
    requests_of,
    shapes,
    tokens,
)

VOCABULARY = shapes().vocabulary
ROWS = shapes().model.config.text_config.vocab_size
EOS = 2
GRAMMAR = Grammar(VOCABULARY, eos=EOS, rows=ROWS, device=torch.device("cpu"))
WORD = VOCABULARY.pieces.index(" red")
SPACE = VOCABULARY.pieces.index(" ")
TAGS = {tag: token_id for token_id, tag in VOCABULARY.tags.items()}
PHRASE, END, OBJECT, CLOSE, DELIMITER = (
    TAGS[tag]
    for tag in (Tag.PHRASE, Tag.END_OF_PHRASE, Tag.OBJECT, Tag.END_OF_OBJECT, Tag.DELIMITER)
)


def cell(number):
    return VOCABULARY.first_location + number


OF_KIND = {
    **{TokenKind.WORD: WORD, TokenKind.SPACE: SPACE, TokenKind.END: EOS, TokenKind.PHRASE: PHRASE},
    **{TokenKind.END_OF_PHRASE: END, TokenKind.OBJECT: OBJECT, TokenKind.DELIMITER: DELIMITER},
    **{TokenKind.END_OF_OBJECT: CLOSE, TokenKind.LOCATION: cell(500), TokenKind.NOTHING: 0},
    TokenKind.OTHER_TAG: TAGS[Tag.END_OF_LINE],
}
TOKENS = st.sampled_from([*OF_KIND.values(), cell(0), cell(31), cell(1023)])
TEXTS = st.lists(TOKENS, max_size=12)
# The same cases every time, however slow the machine is.
thorough = settings(max_examples=60, derandomize=True, deadline=None)


# The rules


def test_every_token_has_the_kind_that_the_parser_sees():
    assert {kind: TokenKind(int(GRAMMAR.kinds[i])) for kind, i in OF_KIND.items()} == {
        kind: kind for kind in OF_KIND
    }
    assert set(OF_KIND) == set(TokenKind)


def test_the_way_to_close_is_the_shortest_one():
    found = {State.TEXT: 0}
    while len(found) < len(State):
        for state in set(State) - set(found):
            steps = [found[after] for after in RULES[state].values() if after in found]
            if steps and min(steps) == max(found.values()):
                found[state] = min(steps) + 1
                break
    assert found == TO_CLOSE


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("left", range(1, ENOUGH + 2))
def test_an_answer_is_closed_before_its_limit_wherever_that_is_possible(state, left):
    kinds = permitted(state, left)
    assert kinds
    if TO_CLOSE[state] <= left:
        assert all(TO_CLOSE[RULES[state][kind]] <= left - 1 for kind in kinds)
    if left >= ENOUGH:
        assert kinds == RULES[state].keys()


@pytest.mark.parametrize(
    ("text", "state", "corner"),
    [
        ((), State.TEXT, 0),
        ((TAGS[Tag.GROUNDING], WORD), State.TEXT, 0),
        ((PHRASE,), State.EMPTY_PHRASE, 0),
        ((PHRASE, SPACE), State.EMPTY_PHRASE, 0),
        ((PHRASE, SPACE, WORD), State.PHRASE, 0),
        ((PHRASE, WORD, PHRASE), State.EMPTY_PHRASE, 0),
        ((PHRASE, WORD, cell(3)), State.PHRASE, 0),
        ((PHRASE, WORD, END), State.AFTER_PHRASE, 0),
        ((PHRASE, END), State.TEXT, 0),
        ((PHRASE, WORD, END, WORD), State.TEXT, 0),
        ((PHRASE, WORD, END, OBJECT), State.FIRST_CORNER, 0),
        ((PHRASE, WORD, END, OBJECT, cell(70)), State.SECOND_CORNER, 70),
        ((OBJECT, cell(70), DELIMITER), State.FIRST_CORNER, 0),
        ((OBJECT, cell(70), cell(3)), State.AFTER_BOX, 0),
        ((OBJECT, cell(70), cell(3), cell(4)), State.AFTER_BOX, 0),
        ((OBJECT, cell(70), cell(90), DELIMITER, cell(5)), State.SECOND_CORNER, 5),
        ((OBJECT, cell(70), CLOSE), State.TEXT, 0),
        ((OBJECT, cell(70), WORD), State.TEXT, 0),
        ((OBJECT, cell(70), 0), State.SECOND_CORNER, 70),
    ],
)
def test_a_prompt_is_followed_to_where_it_ends(text, state, corner):
    assert GRAMMAR.state_after(text) == (state, corner)


@thorough
@given(TEXTS)
def test_the_device_follows_as_the_host(text):
    states = GrammarStates(GRAMMAR, 2)
    states.begin(1, [()], [100])
    for token_id in text:
        states.append(torch.tensor([1]), torch.tensor([token_id]))
    expected = GrammarStates(GRAMMAR, 2)
    expected.begin(1, [text], [100])
    slot, lengths = torch.tensor([1]), torch.tensor([50])
    assert torch.equal(states.allowed(slot, lengths), expected.allowed(slot, lengths))


@pytest.mark.parametrize("corner", [0, 31, 500, 992, 1023])
def test_the_second_corner_is_right_of_and_below_the_first(corner):
    states = GrammarStates(GRAMMAR, 1)
    states.begin(0, [(OBJECT, cell(corner))], [100])
    (allowed,) = states.allowed(torch.tensor([0]), torch.tensor([0]))
    found = {int(i) for i in allowed.nonzero().flatten()}
    (line, column), cells = divmod(corner, GRID), range(CELLS)
    assert found == {cell(c) for c in cells if c // GRID >= line and c % GRID >= column}


def test_every_state_follows_every_kind():
    assert all(follow(state, kind) in State for state in State for kind in TokenKind)


# Whole answers


def sampled(text, limit, seed, ngram_size=0, favour=()):
    """What a model of random logits says after `text` under the grammar, and its choices."""
    sampler = Sampler(shapes(), Generation(no_repeat_ngram_size=ngram_size, grammar="strict"))
    ids = (*ids_of(shapes)[:PREFIX_LENGTH], *text)
    constraints = sampler.new_constraints(1, len(ids) + limit)
    constraints.begin(0, [Prompt(task="", ids=ids, max_new_tokens=limit)])
    generator, said, choices = np.random.default_rng(seed), [], []
    while len(said) < limit and EOS not in said:
        logits = torch.from_numpy(generator.normal(size=(1, ROWS)))
        logits[0, list(favour)] += 9  # more than chance gives any other
        chosen = sampler(logits, constraints, 0, [len(ids) + len(said)]).read()
        (token_id,) = map(int, chosen.token_ids)
        expected = float(logits.log_softmax(-1)[0, token_id])
        assert chosen.logprobs == pytest.approx([expected], abs=1e-5)
        said.append(token_id)
        choices.append(chosen)
    return said, choices


def parsed(text, said=()):
    return parse_tokens(VOCABULARY, text, said, TokenScores.uniform(len(said)))


MARKUP = [PHRASE, END, OBJECT, CLOSE, DELIMITER, WORD, SPACE]
SEEDS = st.integers(0, 1 << 30)


@thorough
@given(TEXTS, st.integers(8, 40), SEEDS, st.lists(TOKENS, max_size=4))
def test_an_answer_adds_no_fault_to_any_prompt(text, limit, seed, favour):
    said, _ = sampled(text, limit, seed, favour=favour)
    assert set(parsed(text, said).issues) <= set(parsed(text).issues)


@thorough
@given(st.integers(1, 40), SEEDS, st.integers(0, 3))
def test_an_answer_is_well_formed_whatever_its_limit(limit, seed, ngram_size):
    said, _ = sampled((), limit, seed, ngram_size, favour=MARKUP)
    assert parsed((), said).issues == ()


@thorough
@given(TEXTS, st.integers(1, 12), SEEDS)
def test_something_is_always_allowed(text, limit, seed):
    """Also where an n-gram of one token bans every word that was said."""
    said, _ = sampled(text, limit, seed, ngram_size=1, favour=[PHRASE, WORD])
    states = GrammarStates(GRAMMAR, 1)
    states.begin(0, [text], [limit])
    for at, token_id in enumerate(said):
        (allowed,) = states.allowed(torch.tensor([0]), torch.tensor([at]))
        assert allowed[token_id]
        states.append(torch.tensor([0]), torch.tensor([token_id]))


@pytest.mark.parametrize("state_text", [(), (PHRASE,), (PHRASE, WORD)], ids=str)
def test_the_grammar_goes_before_a_ban_that_leaves_nothing(state_text):
    sampler = Sampler(shapes(), Generation(no_repeat_ngram_size=1, grammar="strict"))
    words = tuple(i for i, kind in enumerate(GRAMMAR.kinds.tolist()) if kind <= TokenKind.SPACE)
    ids = (*ids_of(shapes)[:PREFIX_LENGTH], *words, *state_text)
    constraints = sampler.new_constraints(1, len(ids) + 9)
    constraints.begin(0, [Prompt(task="", ids=ids, max_new_tokens=9)])
    chosen = sampler(torch.zeros(1, ROWS), constraints, 0, [len(ids)]).read()
    state, _ = GRAMMAR.state_after((*words, *state_text))
    assert TokenKind(int(GRAMMAR.kinds[int(chosen.token_ids[0])])) in RULES[state]


def test_what_the_grammar_took_is_named():
    said, choices = sampled((PHRASE, WORD, END), 20, 0, favour=[WORD])
    assert said[0] == OBJECT
    assert choices[0].is_grammar_enforced.all()
    said, choices = sampled((), 5, 0, favour=[WORD])
    assert said == [WORD] * 5
    assert not any(choice.is_grammar_enforced.any() for choice in choices)


# In the engine

FEW = 7
strict = partial(engine_of, grammar="strict")


@pytest.mark.parametrize(("seed", "limit"), [(0, 3), (0, 40), (1, 7)])
def test_a_random_model_says_nothing_malformed(seed, limit):
    checkpoint = random_model(seed)
    prompt = prompt_of(random_model, max_new_tokens=limit)
    found = answers(strict(checkpoint), requests_of(pixels(FEW), prompt))
    assert any(completion.is_grammar_enforced for completion in found.values())
    text = prompt.ids[PREFIX_LENGTH:]
    for completion in found.values():
        parse = parse_tokens(checkpoint.vocabulary, text, completion.token_ids, completion.scores)
        assert parse.issues == ()
    free = answers(engine_of(checkpoint), requests_of(pixels(FEW), prompt))
    assert not any(completion.is_grammar_enforced for completion in free.values())


def test_what_is_well_formed_is_left_alone():
    requests = requests_of(pixels(FEW), prompt_of(shapes), prompt_of(shapes, DETAILED))
    assert tokens(strict(shapes()), requests) == tokens(engine_of(shapes()), requests)


def test_answers_under_the_grammar_do_not_depend_on_their_neighbours():
    prompts = [prompt_of(random_model, max_new_tokens=n) for n in (9, 24, 17)]
    requests = requests_of(pixels(FEW), *prompts)
    assert tokens(strict(random_model(), slots=3), requests) == tokens(
        strict(random_model(), slots=16), requests[::-1]
    )


def test_an_open_prompt_is_closed():
    text = ids_of(random_model, BRIEF.prompt)[PREFIX_LENGTH:]
    tags = {tag: i for i, tag in random_model().vocabulary.tags.items()}
    ids = (
        *ids_of(random_model)[:PREFIX_LENGTH],
        *text,
        tags[Tag.PHRASE],
        646,
        tags[Tag.END_OF_PHRASE],
    )
    prompt = Prompt(task="about", ids=ids, max_new_tokens=4)
    for completion in strict(random_model()).generate(requests_of(pixels(FEW), prompt)):
        parse = parse_tokens(
            random_model().vocabulary, ids[PREFIX_LENGTH:], completion.token_ids, completion.scores
        )
        assert parse.issues == ()
        assert [entity.phrase for entity in parse.entities] == ["fire"]


def test_a_limit_that_is_too_short_for_an_open_prompt_is_named_by_the_parser():
    ids = (*ids_of(shapes)[:PREFIX_LENGTH], PHRASE, WORD, END)
    prompt = Prompt(task="about", ids=ids, max_new_tokens=2)
    (completion,) = strict(shapes()).generate(requests_of(pixels(1), prompt))
    assert completion.finish_reason == "length"
    assert Issue.UNCLOSED_OBJECT in parsed(ids[PREFIX_LENGTH:], completion.token_ids).issues
