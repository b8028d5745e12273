"""The head noun of a phrase, by rule and without a parser."""

import re

NO_NOUN = "object"

_ARTICLE = re.compile(r"(?:an?|the)\s+", re.I)
# Words that end the front part of an English noun phrase, whose last word is its head.
_AFTER_HEAD = re.compile(
    r"\s(?:of|with|in|on|at|by|to|for|from|near|under|over|behind|beside|between|above|below|"
    r"and|or|that|which|who|next|wearing|holding|sitting|standing)\b.*|[,;:(].*",
    re.I | re.S,
)


def plain_phrase(phrase: str) -> str:
    """Return the phrase without article, in lower case, with single spaces."""
    return " ".join(_ARTICLE.sub("", phrase.strip(), count=1).casefold().split())


def head_noun(phrase: str) -> str:
    """Return the last word before a preposition or similar: `A cup of coffee` -> `cup`.

    It returns `object` if no word is left.
    """
    words = re.findall(r"[^\W_][\w'-]*", _AFTER_HEAD.sub("", plain_phrase(phrase)))
    return words[-1] if words else NO_NOUN
