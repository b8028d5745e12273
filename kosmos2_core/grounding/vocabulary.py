"""Map token ids to tags, locations and text, for the grounding parser."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from kosmos2_core.errors import CheckpointError
from kosmos2_core.grounding.grid import CELLS

REAL_VOCABULARY_SIZE = 65_037


class Tag(StrEnum):
    """The tag tokens of Kosmos-2, in the order of their ids."""

    END_OF_DOCUMENT = "</doc>"
    IMAGE = "<image>"
    END_OF_IMAGE = "</image>"
    END_OF_CHUNK = "</chunk>"
    END_OF_LINE = "</line>"
    PHRASE = "<phrase>"
    END_OF_PHRASE = "</phrase>"
    OBJECT = "<object>"
    END_OF_OBJECT = "</object>"
    DELIMITER = "</delimiter_of_multi_objects/>"
    GROUNDING = "<grounding>"


# The ids are those in the tests of Kosmos2Processor in transformers. A conversion that moves them
# would give wrong annotations without an error.
REAL_FIRST_TAG = 64_002


@dataclass(frozen=True, slots=True, kw_only=True)
class Vocabulary:
    """Token ids by meaning.

    `pieces[i]` is the text of token i with its leading space, and empty for special tokens.
    `tags` maps ids to tags. Locations are the 1,024 consecutive ids from `first_location`.
    `markup` maps the ids of both: to a tag, or to the grid cell of a location.
    """

    pieces: tuple[str, ...]
    tags: dict[int, Tag]
    first_location: int
    markup: dict[int, Tag | int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        locations = {self.first_location + cell: cell for cell in range(CELLS)}
        object.__setattr__(self, "markup", {**self.tags, **locations})

    @classmethod
    def from_tokenizer(cls, tokenizer: Any) -> "Vocabulary":
        """Read the vocabulary of a tokenizer. Raises CheckpointError if it is not Kosmos-2's."""
        tag_ids = [_id_of(tokenizer, tag) for tag in Tag]
        locations = [_id_of(tokenizer, name) for name in location_names()]
        if locations != list(range(locations[0], locations[0] + CELLS)):
            raise CheckpointError(
                "the tokenizer's <patch_index_....> tokens are not consecutive; use the tokenizer "
                "files of microsoft/kosmos-2-patch14-224"
            )
        _check_real_ids(len(tokenizer), tag_ids)
        special = set(tokenizer.all_special_ids)
        tokens = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
        pieces = tuple("" if i in special else t.replace("▁", " ") for i, t in enumerate(tokens))
        return cls(
            pieces=pieces,
            tags=dict(zip(tag_ids, Tag, strict=True)),
            first_location=locations[0],
        )

    def id_of(self, tag: Tag) -> int:
        """Return the token id of a tag."""
        return next(token_id for token_id, named in self.tags.items() if named is tag)

    def piece(self, token_id: int) -> str:
        """Return the text of a token; "" for ids above the tokenizer's, if the model is padded."""
        return self.pieces[token_id] if token_id < len(self.pieces) else ""

    def texts(self, token_ids: Sequence[int]) -> list[str]:
        """Return the `piece` of each token."""
        pieces, known = self.pieces, len(self.pieces)
        return [pieces[i] if i < known else "" for i in token_ids]

    def location(self, token_id: int) -> int | None:
        """Return the grid cell of a location token, None for other tokens."""
        cell = token_id - self.first_location
        return cell if 0 <= cell < CELLS else None


def location_names() -> list[str]:
    """Return the location tokens as a tokenizer writes them, by grid cell."""
    return [f"<patch_index_{cell:04d}>" for cell in range(CELLS)]


def _id_of(tokenizer: Any, token: str) -> int:
    token_id = tokenizer.convert_tokens_to_ids(token)
    if token_id is None or token_id == tokenizer.unk_token_id:
        raise CheckpointError(
            f"the tokenizer has no token {token}, so it is not a Kosmos-2 tokenizer; "
            "use the tokenizer files of microsoft/kosmos-2-patch14-224"
        )
    return int(token_id)


def _check_real_ids(size: int, tag_ids: list[int]) -> None:
    expected = list(range(REAL_FIRST_TAG, REAL_FIRST_TAG + len(Tag)))
    if size == REAL_VOCABULARY_SIZE and tag_ids != expected:
        raise CheckpointError(
            f"the tags have the ids {tag_ids}, but the model was trained with {expected}. The "
            "tokenizer was converted wrongly; use that of microsoft/kosmos-2-patch14-224"
        )
