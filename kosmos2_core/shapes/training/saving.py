"""A learner -> a checkpoint that Hugging Face and `load_checkpoint` read."""

import copy
import json
import os
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from kosmos2_core.grounding.grid import IMAGE_SIZE
from kosmos2_core.shapes.training.learner import Learner
from kosmos2_core.shapes.world.tokens import make_processor


@torch.no_grad()
def save_checkpoint(directory: Path, learner: Learner) -> None:
    """float16; each file is replaced as a whole."""
    model = copy.deepcopy(learner.model)
    model.text_model.model.embed_tokens.weight.copy_(learner.table())
    with TemporaryDirectory(dir=directory, prefix=".checkpoint-") as name:
        partial = Path(name)
        model.half().save_pretrained(partial)
        make_processor().save_pretrained(partial)
        for config in ("config.json", "generation_config.json"):
            _edit(partial / config, _allow_repeats)
        _edit(partial / "processor_config.json", _squash_by_flag)
        for path in sorted(partial.iterdir()):
            path.chmod(0o644)  # safetensors writes for the owner alone
            os.replace(path, directory / path.name)


def _edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def _allow_repeats(config: dict[str, Any]) -> None:
    """Lists of phrases repeat trigrams; transformers leaves the 0 out where it is the default."""
    config["no_repeat_ngram_size"] = 0


def _squash_by_flag(config: dict[str, Any]) -> None:
    """As the real checkpoint has it; transformers saves what the flag led to, without the flag."""
    config["image_processor"] |= {"use_square_size": True, "size": {"shortest_edge": IMAGE_SIZE}}
