"""The grammar of grounded captions, kept token by token.

    caption = (word | entity)* </s>
    entity  = <phrase> word+ </phrase> <object> box (</delimiter_of_multi_objects/> box)* </object>
    box     = location location     the second neither above nor left of the first

An entity is only begun, and a phrase only gets longer, where the limit on new tokens leaves room
to close it: an answer that reaches its limit is well-formed, too. States live on the device, as
the n-gram history does: nothing of it waits for a token to be read back.
"""

from collections.abc import Sequence
from enum import IntEnum, auto

import torch
from torch import Tensor

from kosmos2_core.engine.model.transfer import to_device
from kosmos2_core.grounding.grid import CELLS, GRID
from kosmos2_core.grounding.vocabulary import Tag, Vocabulary


class TokenKind(IntEnum):
    """The grammar's classes of tokens."""

    WORD = 0  # text that shows
    SPACE = auto()  # text of white space alone: makes no phrase
    END = auto()  # of the sequence
    PHRASE = auto()
    END_OF_PHRASE = auto()
    OBJECT = auto()
    DELIMITER = auto()
    END_OF_OBJECT = auto()
    LOCATION = auto()
    OTHER_TAG = auto()
    NOTHING = auto()  # other special tokens, and rows of the model beyond the tokenizer


class State(IntEnum):
    TEXT = 0
    EMPTY_PHRASE = auto()  # <phrase>, no word yet
    PHRASE = auto()
    AFTER_PHRASE = auto()
    FIRST_CORNER = auto()  # one is next
    SECOND_CORNER = auto()
    AFTER_BOX = auto()


RULES: dict[State, dict[TokenKind, State]] = {
    State.TEXT: {
        TokenKind.WORD: State.TEXT,
        TokenKind.SPACE: State.TEXT,
        TokenKind.END: State.TEXT,
        TokenKind.PHRASE: State.EMPTY_PHRASE,
    },
    State.EMPTY_PHRASE: {TokenKind.WORD: State.PHRASE, TokenKind.SPACE: State.EMPTY_PHRASE},
    State.PHRASE: {
        TokenKind.WORD: State.PHRASE,
        TokenKind.SPACE: State.PHRASE,
        TokenKind.END_OF_PHRASE: State.AFTER_PHRASE,
    },
    State.AFTER_PHRASE: {TokenKind.OBJECT: State.FIRST_CORNER},
    State.FIRST_CORNER: {TokenKind.LOCATION: State.SECOND_CORNER},
    State.SECOND_CORNER: {TokenKind.LOCATION: State.AFTER_BOX},
    State.AFTER_BOX: {TokenKind.DELIMITER: State.FIRST_CORNER, TokenKind.END_OF_OBJECT: State.TEXT},
}

# Tokens from each state back to plain text, on the shortest way.
TO_CLOSE: dict[State, int] = {
    State.TEXT: 0,
    State.EMPTY_PHRASE: 6,
    State.PHRASE: 5,
    State.AFTER_PHRASE: 4,
    State.FIRST_CORNER: 3,
    State.SECOND_CORNER: 2,
    State.AFTER_BOX: 1,
}
ENOUGH = max(TO_CLOSE.values()) + 1  # with so many tokens left the limit forbids nothing


def permitted(state: State, left: int) -> frozenset[TokenKind]:
    """Return what may come next if at most `left` tokens come, this one included.

    Never empty: where a prompt leaves open more than can be closed, the limit is ignored.
    """
    rules = RULES[state]
    closing = frozenset(kind for kind, after in rules.items() if TO_CLOSE[after] < left)
    return closing or frozenset(rules)


def follow(state: State, kind: TokenKind) -> State:
    """Total, for prompts may hold anything: what is against the rules goes the parser's way."""
    if (after := RULES[state].get(kind)) is not None:
        return after
    match kind:
        case TokenKind.PHRASE:
            return State.EMPTY_PHRASE
        case TokenKind.OBJECT:
            return State.FIRST_CORNER
        case TokenKind.DELIMITER if state in (State.FIRST_CORNER, State.SECOND_CORNER):
            return State.FIRST_CORNER
        case TokenKind.LOCATION if state is State.AFTER_BOX:
            return state
        case TokenKind.END_OF_PHRASE:
            return State.TEXT  # of an empty phrase: boxes would belong to nothing
        case TokenKind.END | TokenKind.NOTHING:
            return state
    return state if state in (State.EMPTY_PHRASE, State.PHRASE) else State.TEXT


class Grammar:
    """The rules as tables on a device, for a model of `rows` tokens."""

    def __init__(
        self, vocabulary: Vocabulary, *, eos: int, rows: int, device: torch.device
    ) -> None:
        self._kinds = [_kind(vocabulary, token_id, eos) for token_id in range(rows)]
        self.first_location = vocabulary.first_location
        self.kinds = torch.tensor(self._kinds, device=device)  # [V]
        self.following = torch.tensor(
            [[follow(state, kind) for kind in TokenKind] for state in State], device=device
        )
        self.permitted = torch.tensor(
            [
                [
                    [kind in permitted(state, left) for kind in TokenKind]
                    for left in range(ENOUGH + 1)
                ]
                for state in State
            ],
            device=device,
        )  # [states, left, kinds]
        cells = torch.arange(CELLS, device=device)
        self.columns, self.lines = cells % GRID, cells // GRID

    def state_after(self, ids: Sequence[int]) -> tuple[State, int]:
        """Where the text of a prompt ends, and the cell of its first corner if that is open."""
        state, corner = State.TEXT, 0
        for token_id in ids:
            is_first = state is State.FIRST_CORNER
            state = follow(state, self._kinds[token_id])
            if is_first and state is State.SECOND_CORNER:
                corner = token_id - self.first_location
        return state, corner if state is State.SECOND_CORNER else 0


class GrammarStates:
    """Where every slot is in the grammar: int64 [slots, 3] on the device.

    `states`; `corners`: the cell of the first corner where the second one is next, else 0; `ends`:
    the length that a sequence may reach, prompt and answer together.
    """

    def __init__(self, grammar: Grammar, slots: int) -> None:
        self._grammar = grammar
        self._slots = grammar.kinds.new_zeros((slots, 3))
        self._states, self._corners, self._ends = self._slots.unbind(1)

    def begin(self, first_slot: int, texts: Sequence[Sequence[int]], ends: Sequence[int]) -> None:
        """`texts`: what follows the image in the prompts of the slots from `first_slot` on."""
        rows = [
            [*self._grammar.state_after(text), end] for text, end in zip(texts, ends, strict=True)
        ]
        begun = to_device(rows, self._slots.device)
        self._slots[first_slot : first_slot + len(rows)] = begun

    def append(self, slots: Tensor, tokens: Tensor) -> None:
        """int64 [N] each: the next token of each slot."""
        grammar, states = self._grammar, self._states[slots]
        after = grammar.following[states, grammar.kinds[tokens]]
        is_corner = (states == State.FIRST_CORNER) & (after == State.SECOND_CORNER)
        kept = self._corners[slots].where(after == State.SECOND_CORNER, 0)
        self._corners[slots] = (tokens - grammar.first_location).where(is_corner, kept)
        self._states[slots] = after

    def move(self, slot: int, to: int) -> None:
        self._slots[to] = self._slots[slot]

    def allowed(self, slots: Tensor, lengths: Tensor) -> Tensor:
        """bool [N, V]: what may come next in each slot that holds `lengths` tokens. Some may."""
        grammar, corners = self._grammar, self._corners[slots][:, None]
        left = (self._ends[slots] - lengths).clamp(0, ENOUGH)
        kinds = grammar.permitted[self._states[slots], left]  # [N, kinds]
        allowed = kinds[:, grammar.kinds]
        # Every cell is right of and below cell 0, which stands where no corner is open.
        ordered = (grammar.columns >= corners % GRID) & (grammar.lines >= corners // GRID)
        allowed[:, grammar.first_location : grammar.first_location + CELLS] &= ordered
        return allowed


_TAG_KINDS = {
    Tag.PHRASE: TokenKind.PHRASE,
    Tag.END_OF_PHRASE: TokenKind.END_OF_PHRASE,
    Tag.OBJECT: TokenKind.OBJECT,
    Tag.DELIMITER: TokenKind.DELIMITER,
    Tag.END_OF_OBJECT: TokenKind.END_OF_OBJECT,
}


def _kind(vocabulary: Vocabulary, token_id: int, eos: int) -> TokenKind:
    if token_id == eos:
        return TokenKind.END
    if (tag := vocabulary.tags.get(token_id)) is not None:
        return _TAG_KINDS.get(tag, TokenKind.OTHER_TAG)
    if vocabulary.location(token_id) is not None:
        return TokenKind.LOCATION
    piece = vocabulary.piece(token_id)
    if not piece:
        return TokenKind.NOTHING
    return TokenKind.WORD if piece.strip() else TokenKind.SPACE
