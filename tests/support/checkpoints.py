"""Tiny checkpoints with random weights, for tests that need the layout of the real model."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import (
    CLIPImageProcessorPil,
    Kosmos2Config,
    Kosmos2ForConditionalGeneration,
    Kosmos2Processor,
    XLMRobertaTokenizer,
)

TAGS = 11
LOCATIONS = 1024
TAGS_AND_LOCATIONS = TAGS + LOCATIONS  # added by Kosmos2Processor behind the tokenizer's own pieces

# Found by trial: words, tags, locations and the end of sequence all occur in 128 tokens.
TAG_GAIN = 2.5
LOCATION_GAIN = 1.35
EOS_GAIN = 3.0
LAYER_GAIN = 4.0  # or each token would predict itself: embedding and head are tied

# Pieces with ids that the integration tests of transformers pin down for the real tokenizer.
REAL_PIECES = {
    4: ".",
    5: "▁the",
    6: ",",
    7: "▁to",
    8: "▁and",
    9: "▁of",
    10: "▁a",
    12: "▁in",
    32: "▁by",
    38: "▁this",
    55: ":",
    247: "e",
    597: "▁himself",
    646: "▁fire",
    712: "▁An",
    770: "▁field",
    1264: "▁Two",
    1357: "▁sit",
    1648: "▁image",
    3391: "▁detail",
    4464: "▁grass",
    5950: "▁warming",
    17772: "▁puppies",
    34645: "▁Describ",
    43867: "▁snowman",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """Of vision tower and text model alike; `vocabulary` is that of the real model."""

    width: int
    heads: int
    layers: int
    vocabulary: int = 65_037


SMALL = Size(width=64, heads=4, layers=2)
LARGER = Size(width=96, heads=6, layers=3)


def random_checkpoint(
    directory: Path, seed: int = 0, size: Size = SMALL, *, processor: Path | None = None
) -> Path:
    """Save a checkpoint that `load_checkpoint` accepts, with the files of `processor` if given.

    Its captions are noise, tags and locations in any order among them. Returns `directory`.
    """
    if processor is None:
        save_processor(directory, size.vocabulary)
    else:
        for path in processor.glob("*.json"):
            shutil.copy(path, directory)
    _model(size, seed).save_pretrained(directory)
    return directory


def save_processor(directory: Path, vocab_size: int) -> None:
    processor = Kosmos2Processor(
        CLIPImageProcessorPil(size={"height": 224, "width": 224}, crop_size=224, resample=3),
        XLMRobertaTokenizer(vocab=_pieces(vocab_size - TAGS_AND_LOCATIONS), model_max_length=2048),
    )
    processor.save_pretrained(directory)


def _pieces(size: int) -> list[tuple[str, float]]:
    """`size` pieces with their unigram scores: <s> <pad> </s> <unk>, words, <mask>.

    All ASCII characters are among them, at the end, so that any English text can be encoded.
    """
    pieces = [f"▁w{index}" for index in range(size)]
    pieces[:4] = ["<s>", "<pad>", "</s>", "<unk>"]
    for index, piece in REAL_PIECES.items():
        if index < size - 128:
            pieces[index] = piece
    taken = set(pieces)
    letters = [c for c in ["▁", *map(chr, range(33, 127))] if c not in taken]
    pieces[size - 1 - len(letters) :] = [*letters, "<mask>"]
    return [(piece, 0.0 if piece.startswith("<") else -10.0) for piece in pieces]


def _model(size: Size, seed: int) -> Kosmos2ForConditionalGeneration:
    config = Kosmos2Config(
        vision_config={
            "hidden_size": size.width,
            "num_hidden_layers": size.layers,
            "num_attention_heads": size.heads,
            "intermediate_size": 2 * size.width,
            "patch_size": 28,
        },
        text_config={
            "vocab_size": size.vocabulary,
            "embed_dim": size.width,
            "layers": size.layers,
            "attention_heads": size.heads,
            "ffn_dim": 2 * size.width,
        },
    )
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = Kosmos2ForConditionalGeneration(config).eval()
        for name, weight in model.named_parameters():
            if weight.ndim > 1:
                gain = LAYER_GAIN if "text_model.model.layers" in name else 1.0
                weight.normal_(0, gain * weight.shape[-1] ** -0.5)
        embedding = model.text_model.model.embed_tokens.weight
        embedding[-TAGS_AND_LOCATIONS:-LOCATIONS] *= TAG_GAIN
        embedding[-LOCATIONS:] *= LOCATION_GAIN
        embedding[config.text_config.eos_token_id] *= EOS_GAIN
    return model
