"""Write a learner as a checkpoint for Hugging Face and `load_checkpoint`."""

import copy
import json
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from kosmos2_core.grounding.grid import IMAGE_SIZE
from kosmos2_core.shapes.training.learner import Learner
from kosmos2_core.shapes.world.tokens import make_processor


@torch.no_grad()
def save_checkpoint(directory: Path, learner: Learner) -> None:
    """Write a checkpoint in float16. Each file is replaced atomically."""
    model = copy.deepcopy(learner.model)
    model.text_model.model.embed_tokens.weight.copy_(learner.table())
    with TemporaryDirectory(dir=directory, prefix=".checkpoint-") as name:
        partial = Path(name)
        model.half().save_pretrained(partial)
        make_processor().save_pretrained(partial)
        # Lists of phrases repeat trigrams. transformers omits the 0 if it is the default.
        for config in ("config.json", "generation_config.json"):
            _edit(partial / config, no_repeat_ngram_size=0)
        # As in the real checkpoint. transformers saves the effect of the flag, not the flag.
        squash = {"use_square_size": True, "size": {"shortest_edge": IMAGE_SIZE}}
        _edit(partial / "processor_config.json", image_processor=squash)
        for path in sorted(partial.iterdir()):
            path.chmod(0o644)  # safetensors gives access to the owner only
            os.replace(path, directory / path.name)


def _edit(path: Path, **changes: Any) -> None:
    """Set keys of a JSON file. A mapping is merged into the existing one."""
    config = json.loads(path.read_text())
    for key, value in changes.items():
        config[key] = config[key] | value if isinstance(value, dict) else value
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
