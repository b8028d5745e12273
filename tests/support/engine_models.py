"""Checkpoints, pixels and prompts for the engine's tests; the oracle is Hugging Face."""

import tempfile
from copy import deepcopy
from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from kosmos2_core.checkpoint.load import load_checkpoint
from kosmos2_core.comparison.oracle import Oracle
from kosmos2_core.comparison.reference import with_reference_model
from kosmos2_core.engine.engine import Engine
from kosmos2_core.engine.model.decoder import TextDecoder
from kosmos2_core.engine.requests import Prompt, Request
from kosmos2_core.engine.sampling.scores import TokenScorer
from kosmos2_core.generation import Generation
from kosmos2_core.grounding.scores import TokenScores
from kosmos2_core.images.decode import square_pixels
from kosmos2_core.prompts.encoder import PromptEncoder
from kosmos2_core.prompts.tasks import BRIEF, Task
from kosmos2_core.shapes.world.shards import make_scene
from tests.support.checkpoints import SMALL, random_checkpoint

HEAD = 67
LENGTH = 352


@cache
def shapes(ngram_size=0):
    checkpoint = load_checkpoint("shapes", device="cpu", no_repeat_ngram_size=ngram_size)
    return with_reference_model(checkpoint)


def random_model(seed=0, ngram_size=3, size=SMALL):
    """The layout of the real model; its answers are noise, with all kinds of tokens in it."""
    return replace(_random_model(seed, size), no_repeat_ngram_size=ngram_size)


@cache
def _random_model(seed, size):
    with tempfile.TemporaryDirectory() as directory:
        path = random_checkpoint(Path(directory), seed=seed, size=size)
        return with_reference_model(load_checkpoint(str(path), device="cpu"))


@cache
def babbling_model():
    """A random model that generates padding tokens, which have no position of their own."""
    with tempfile.TemporaryDirectory() as directory:
        path = str(random_checkpoint(Path(directory), seed=2))
        checkpoint = load_checkpoint(path, device="cpu")
    with torch.no_grad():
        checkpoint.model.text_model.model.embed_tokens.weight[1].mul_(4)
    return checkpoint


def checkpoint_with_causal_resampler(checkpoint_of=shapes):
    """The defect of transformers 5.17 to 5.22."""
    checkpoint = replace(checkpoint_of(), model=deepcopy(checkpoint_of().model))
    checkpoint.model.image_to_text_projection.x_attn.is_causal = True
    return checkpoint


def count_steps(monkeypatch):
    """The rows of every decode step of engines that are made from now on."""
    rows, step = [], TextDecoder.step

    def counting(self, cache, ids, starts, **options):
        rows.append(len(ids))
        return step(self, cache, ids, starts, **options)

    monkeypatch.setattr(TextDecoder, "step", counting)
    return rows


@cache
def pixels(count):
    scenes = (make_scene(11, index, width=224, height=224) for index in range(count))
    return np.stack([square_pixels(Image.fromarray(scene.pixels)) for scene in scenes])


@cache
def ids_of(checkpoint_of, text=BRIEF.prompt):
    task = Task(name="any", prompt=text, max_new_tokens=1)
    return PromptEncoder(checkpoint_of()).encode(task, {}).prompt.ids


def prompt_of(checkpoint_of, task=BRIEF, **options):
    limits = {"max_new_tokens": task.max_new_tokens, **options}
    return Prompt(task=task.name, ids=ids_of(checkpoint_of, task.prompt), **limits)


def requests_of(images, *prompts, follow_up=None):
    return [
        Request(id=number, pixels=image, prompts=prompts, follow_up=follow_up)
        for number, image in enumerate(images)
    ]


def answers(engine, requests):
    """{(request, index of the prompt): completion}; each comes exactly once."""
    completions = list(engine.generate(requests))
    found = {(c.request_id, c.index): c for c in completions}
    assert len(found) == len(completions)
    return found


def tokens(engine, requests):
    return {key: c.token_ids for key, c in answers(engine, requests).items()}


def engine_of(checkpoint, **options):
    """`options` are those of `Generation`, by default with 5 slots, and of `Engine`.

    By default a slot has room for the longest answer to a prompt of the tests.
    """
    names = {field.name for field in fields(Generation)} & set(options)
    generation = Generation(**{"slots": 5, **{name: options.pop(name) for name in names}})
    return Engine(checkpoint, generation, **{"length": LENGTH, **options})


class GeneratedTokens(NamedTuple):
    """The generated tokens of one image, end of sequence included, and their raw scores."""

    token_ids: tuple[int, ...]
    scores: TokenScores
    finish_reason: str


@torch.inference_mode()
def generate(checkpoint, image_embeds, prompt_ids, max_new_tokens):
    """Hugging Face's greedy continuation of one prompt for a batch of images [B, 64, D]."""
    output = Oracle(checkpoint).generate(
        image_embeds,
        prompt_ids,
        max_new_tokens=max_new_tokens,
        output_logits=True,  # raw: before the n-gram ban
        return_dict_in_generate=True,
    )
    tokens = output.sequences[:, len(prompt_ids) :]  # [B, T]
    logits = torch.stack(output.logits, dim=1)  # [B, T, V]
    first_location = checkpoint.vocabulary.first_location
    scorer = TokenScorer(
        rows=logits.shape[-1], first_location=first_location, device=checkpoint.device
    )
    logprobs, masses = scorer(logits, tokens)
    eos = checkpoint.tokenizer.eos_token_id
    rows = zip(tokens.tolist(), logprobs.tolist(), masses.tolist(), strict=True)
    return [_until(eos, *row) for row in rows]


def _until(eos, token_ids, logprobs, masses):
    is_finished = eos in token_ids
    length = token_ids.index(eos) + 1 if is_finished else len(token_ids)
    assert np.isfinite(logprobs[:length]).all()
    scores = TokenScores(logprobs=tuple(logprobs[:length]), masses=tuple(masses[:length]))
    reason = "eos" if is_finished else "length"
    return GeneratedTokens(tuple(token_ids[:length]), scores, reason)


def reference(checkpoint, images, prompt, batch=16):
    """Hugging Face's generations of one prompt for all images."""
    found = []
    for start in range(0, len(images), batch):
        embeds = Oracle(checkpoint).embed_images(images[start : start + batch])
        found += generate(checkpoint, embeds, prompt.ids, prompt.max_new_tokens)
    return found


@cache
def reference_of(checkpoint_of, task, count, max_new_tokens):
    prompt = prompt_of(checkpoint_of, task, max_new_tokens=max_new_tokens)
    return reference(checkpoint_of(), pixels(count), prompt)
