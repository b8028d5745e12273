"""Both sides of the comparison, from uint8 pixels to token ids."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from transformers import StoppingCriteria, StoppingCriteriaList

from kosmos2_core.comparison.oracle import Oracle
from kosmos2_core.comparison.workload import BatchQuestion, Workload
from kosmos2_core.engine.engine import Engine
from kosmos2_core.engine.requests import Prompt, Request

# Token ids by (number of the image, number of the question).
AnswerTokens = dict[tuple[int, int], tuple[int, ...]]


def engine_answers(engine: Engine, work: Workload) -> AnswerTokens:
    completions = engine.generate(requests_of(work))
    return {(int(str(c.request_id)), c.index): c.token_ids for c in completions}


def requests_of(work: Workload) -> Iterator[Request]:
    for number, pixels in enumerate(work.pixels):
        prompts = tuple(
            Prompt(
                task=question.task,
                ids=question.ids,
                max_new_tokens=question.lengths[number],
                ignore_eos=not question.stops_at_eos,
            )
            for question in work.questions
        )
        yield Request(id=number, pixels=pixels, prompts=prompts)


def generate_answers(oracle: Oracle, work: Workload, batch: int) -> AnswerTokens:
    """Run Hugging Face's generate on `batch` images at a time. Questions share `image_embeds`."""
    found: AnswerTokens = {}
    for start in range(0, len(work.pixels), batch):
        embeds = oracle.embed_images(work.pixels[start : start + batch])
        for index, question in enumerate(work.questions):
            answers = _generated(oracle, embeds, question, start)
            found |= {(number, index): ids for number, ids in enumerate(answers, start)}
    return found


def _generated(
    oracle: Oracle, embeds: Tensor, question: BatchQuestion, start: int
) -> Iterator[tuple[int, ...]]:
    lengths = question.lengths[start : start + len(embeds)]
    prompt, eos = len(question.ids), oracle.checkpoint.tokenizer.eos_token_id
    ends = StoppingCriteriaList([_AtLengths(prompt, lengths, embeds.device)])
    rows = oracle.generate(
        embeds,
        question.ids,
        max_new_tokens=max(lengths),
        eos_token_id=eos if question.stops_at_eos else None,
        stopping_criteria=None if question.stops_at_eos else ends,
    )
    for row, length in zip(rows.tolist(), lengths, strict=True):
        answer = row[prompt : prompt + length]
        if question.stops_at_eos and eos in answer:
            answer = answer[: answer.index(eos) + 1]
        yield tuple(answer)


class _AtLengths(StoppingCriteria):  # type: ignore[misc] # transformers is untyped
    """Ends each row at its own length, in place of the end of sequence.

    As with that, rows that are done stay in the batch as padding until the last one is done.
    """

    def __init__(self, prompt: int, lengths: Sequence[int], device: torch.device) -> None:
        self._ends = torch.tensor([prompt + length for length in lengths], device=device)
        self.eos_token_id = None  # has `generate` pad

    def __call__(self, input_ids: Tensor, scores: Tensor, **kwargs: object) -> Tensor:
        return self._ends <= input_ids.shape[1]
