"""Tell a tie from a disagreement, where the answers of both sides differ.

A random model is close to a tie once in some ten thousand tokens. There Hugging Face's own answer
changes with the batch size.
"""

from collections.abc import Iterator

from kosmos2_core.comparison.oracle import Oracle
from kosmos2_core.comparison.sides import AnswerTokens
from kosmos2_core.comparison.workload import Workload

# Of logits whose deviation is about 1. Computed without its cache, Hugging Face's own logits of the
# same tokens moved by 1e-4 (AMD EPYC, after 60 tokens).
_TIE = 5e-4


def partings(theirs: AnswerTokens, ours: AnswerTokens) -> Iterator[tuple[int, int]]:
    """Yield the keys of the answers that differ."""
    return (key for key, ids in theirs.items() if ours[key] != ids)


def is_tie(
    oracle: Oracle,
    work: Workload,
    theirs: AnswerTokens,
    ours: AnswerTokens,
    key: tuple[int, int],
) -> bool:
    """Return whether both tokens are equally likely where the answers first differ."""
    number, index = key
    pairs = enumerate(zip(theirs[key], ours[key], strict=False))  # the end can come earlier
    parting = next(((i, pair) for i, pair in pairs if pair[0] != pair[1]), None)
    if parting is None:
        return False  # one answer ends where the other goes on
    at, (one, other) = parting
    output = oracle.generate(
        oracle.embed_images(work.pixels[number : number + 1]),
        work.questions[index].ids + theirs[key][:at],
        max_new_tokens=1,
        output_logits=True,
        return_dict_in_generate=True,
    )
    logits = output.logits[0][0]  # [V]
    return bool((logits[one] - logits[other]).abs() < _TIE)
