"""A model of the real one's size in bfloat16, with random weights; each step in its own process.

`python -m tests.support.full_size build DIR` saves it, `run DIR` annotates some images and
prints as JSON what that took.
"""

import json
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from transformers import Kosmos2Config, Kosmos2ForConditionalGeneration
from transformers.initialization import no_init_weights

from kosmos2_core.annotator import Annotator
from kosmos2_core.generation import Generation
from kosmos2_core.prompts.tasks import Task
from tests.support.checkpoints import save_processor

IMAGES = 3
TASKS = [
    Task(name="brief", prompt="<grounding> An image of", max_new_tokens=8),
    Task(name="detailed", prompt="<grounding> Describe this image in detail:", max_new_tokens=8),
]


def build(directory: Path) -> None:
    config = Kosmos2Config()
    save_processor(directory, config.text_config.vocab_size)
    torch.set_default_dtype(torch.bfloat16)
    with no_init_weights():
        model = Kosmos2ForConditionalGeneration(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1:
                weight.uniform_(-1, 1).mul_(weight.shape[-1] ** -0.5)
            else:
                weight.fill_(name.endswith("weight"))
    model.tie_weights()
    model.save_pretrained(directory)


def run(directory: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (IMAGES, 3, 224, 224), np.uint8)
    started = memory("VmRSS")
    with largest_memory() as largest:
        annotator = Annotator.from_pretrained(
            str(directory),
            device="cpu",
            dtype="bfloat16",
            generation=Generation(slots=4),
            tasks=TASKS,
        )
        annotations = annotator.annotate_pixels(pixels, TASKS)
    said = [[len(a.token_ids) for a in row] for row in annotations]
    took = {"peak": memory("VmHWM"), "taken": max(largest) - started}
    print(json.dumps({"said": said, "needs": annotator.memory_bytes, **took}))


def memory(name: str) -> int:
    """Bytes, with mapped files, as weights are: `VmRSS` now, `VmHWM` the most there was."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(rf"{name}:\s+(\d+) kB", status)[1]) << 10


@contextmanager
def largest_memory() -> Iterator[list[int]]:
    """Samples of this process's memory while the block runs: its peak may have been before."""
    samples, is_over = [], threading.Event()

    def sample() -> None:
        while not is_over.wait(0.05):
            samples.append(memory("VmRSS"))

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield samples
    finally:
        is_over.set()
        thread.join()


if __name__ == "__main__":
    {"build": build, "run": run}[sys.argv[1]](Path(sys.argv[2]))
