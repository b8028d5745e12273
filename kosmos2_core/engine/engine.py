"""Continuous batching over a checkpoint, token for token what Hugging Face generates.

>>> engine = Engine(load_checkpoint("shapes"), Generation(slots=16))
>>> for completion in engine.generate(requests):
...     print(completion.request_id, completion.task, completion.token_ids)
"""

import logging
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace

import torch

from kosmos2_core.checkpoint.load import Checkpoint
from kosmos2_core.engine.capacity import vision_batch_for
from kosmos2_core.engine.cuda_graphs import (
    DecodeGraphs,
    GraphCapture,
    GraphedVision,
    captured_or_none,
    graph_spans,
)
from kosmos2_core.engine.diagnosis import NonFiniteDiagnosis
from kosmos2_core.engine.image_encoder import ImageEncoder
from kosmos2_core.engine.loop import BatchingLoop, Components
from kosmos2_core.engine.model.decoder import TextDecoder
from kosmos2_core.engine.model.numerics import set_cuda_numerics
from kosmos2_core.engine.model.vision import VisionEncoder
from kosmos2_core.engine.model.weights import Backend, best_backend
from kosmos2_core.engine.requests import PREFIX_LENGTH, Completion, PromptRules, Request
from kosmos2_core.engine.sampling.sampler import Sampler
from kosmos2_core.engine.slot_memory import SlotMemory
from kosmos2_core.engine.vitals import StepClock, Vitals
from kosmos2_core.errors import EngineOutOfMemory, KosmosError, NotEnoughMemory
from kosmos2_core.generation import DEFAULT_SLOTS, Generation
from kosmos2_core.grounding.grid import IMAGE_SIZE
from kosmos2_core.grounding.vocabulary import Tag
from kosmos2_core.out_of_memory import naming_out_of_memory

_SLOTS_PER_PREFILL = 16  # on CUDA: few slots wait, and a prefill is worth its launches

_log = logging.getLogger(__name__)


class Engine:
    """Weights made ready once, and the memory of `slots` sequences, allocated once.

    `components` and `new_memory` are what each loop is made of.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        generation: Generation = Generation(),
        *,
        length: int | None = None,
        backend: Backend | None = None,
        vision_batch: int | None = None,
        prefill_group: int | None = None,
        keep_model: bool = True,
        reads_late: bool | None = None,
    ) -> None:
        """Each slot has room for `length` tokens of prompt and answer, by default the model's
        positions. `verify_boxes` of `generation` is left to the `Annotator`. `backend` None takes
        the best there is; images are encoded `vision_batch` at a time. A prefill takes at least
        `prefill_group` sequences, if so many wait. By default both depend on the device.

        Without `keep_model` the weights move out of `checkpoint.model`, which halves the memory;
        nothing else, no second engine either, can use that model then.
        `reads_late`: a step does not wait for the host to have read the tokens of the one before,
        which wastes at most one row of a step per sequence; None does so on CUDA, where that has
        not been tried. Raises ValueError unless vision_batch >= 1, and for a checkpoint whose
        weights moved away; NotEnoughMemory.
        """
        if vision_batch is None:
            vision_batch = vision_batch_for(checkpoint.device.type)
        if vision_batch < 1:
            raise ValueError(f"vision_batch must be at least 1, not {vision_batch}")
        if any(parameter.is_meta for parameter in checkpoint.model.parameters()):
            raise ValueError(
                "another engine took this checkpoint's weights: load it again, or make that engine "
                "with keep_model=True"
            )
        set_cuda_numerics(checkpoint.device)
        self.slots = generation.slots or DEFAULT_SLOTS
        self._device = checkpoint.device
        self._name = f"checkpoint {checkpoint.provenance.id} on {checkpoint.device}"
        lag = int(checkpoint.device.type == "cuda" if reads_late is None else reads_late)
        rules = _rules(checkpoint, length)
        self._length = rules.length + lag
        self._loops: list[BatchingLoop] = []  # those running now
        with self._naming_out_of_memory(NotEnoughMemory):
            backend = backend or best_backend(checkpoint.device, checkpoint.dtype)
            decoder = TextDecoder(checkpoint, backend, keep_model=keep_model)
            vision = VisionEncoder(checkpoint, backend, keep_model=keep_model)
            batch = min(vision_batch, self.slots)
            self.components = Components(
                image_encoder=ImageEncoder(
                    vision=vision,
                    decoder=decoder,
                    rules=rules,
                    batch=batch,
                    scratch=decoder.new_cache(batch, PREFIX_LENGTH),
                ),
                decoder=decoder,
                sampler=Sampler(checkpoint, generation),
                rules=rules,
                eos=checkpoint.tokenizer.eos_token_id,
                step=decoder.step,
                lag=lag,
                prefill_group=prefill_group
                or prefill_group_for(checkpoint.device.type, self.slots),
                clock=StepClock(),
                diagnosis=NonFiniteDiagnosis(vision, decoder),
            )
            has_graphs = checkpoint.device.type == "cuda" and generation.cuda_graph == "auto"
            self._capture = GraphCapture(checkpoint.device) if has_graphs else None
            self._idle = [self.new_memory()]
            if self._capture is not None:
                self._graph_vision(self._capture, vision)

    def generate(self, requests: Iterable[Request | None]) -> Iterator[Completion]:
        """One completion per prompt, as they are done.

        Reads `requests` lazily: at most `vision_batch` and a prefill beyond those that have a slot.
        A request
        that cannot be met completes with an `error` (InvalidRequest, NonFiniteLogits) and
        costs the others nothing. In float32 a completion's tokens do not depend on the others.

        None among the requests says that there is none now: the engine continues those in
        flight and asks again after a step. Where nothing is in flight, it asks again at once.

        Calls that overlap have memory of their own: the second one allocates it. Raises
        EngineOutOfMemory.
        """
        with self._naming_out_of_memory(EngineOutOfMemory):
            memory = self._idle.pop() if self._idle else self.new_memory()
        loop = BatchingLoop(self.components, memory, slots=self.slots, requests=iter(requests))
        self._loops.append(loop)
        try:
            with self._naming_out_of_memory(EngineOutOfMemory):
                yield from loop.completions()
        finally:
            self._loops.remove(loop)
            self._idle.append(memory)

    @property
    def vitals(self) -> Vitals:
        """To be asked from any thread. On CUDA a step's time is that of the host with it."""
        loops, clock = tuple(self._loops), self.components.clock
        return Vitals(
            slots=self.slots,
            live=sum(loop.live for loop in loops),
            waiting=sum(loop.waiting for loop in loops),
            decode_steps=clock.steps,
            decode_s=clock.seconds,
        )

    def new_memory(self) -> SlotMemory:
        """Return memory for one loop, at its final size."""
        parts = self.components
        memory = SlotMemory(
            cache=parts.decoder.new_cache(self.slots, self._length),
            tokens=torch.zeros(self.slots, dtype=torch.int64, device=self._device),
            constraints=parts.sampler.new_constraints(self.slots, self._length),
        )
        if (capture := self._capture) is None:
            return memory

        def graphs() -> DecodeGraphs:
            return DecodeGraphs(
                capture,
                parts.decoder,
                parts.sampler,
                cache=memory.cache,
                tokens=memory.tokens,
                constraints=memory.constraints,
            )

        spans = graph_spans(memory.cache.length)
        _log.info("capturing %d CUDA graphs, for spans up to %d", len(spans) + 1, spans[-1])
        return replace(memory, graphs=captured_or_none(graphs, "steps"))

    def _graph_vision(self, capture: GraphCapture, vision: VisionEncoder) -> None:
        encoder = self.components.image_encoder
        shape = (encoder.batch, 3, IMAGE_SIZE, IMAGE_SIZE)
        pixels = torch.zeros(shape, dtype=torch.uint8, device=self._device)
        graphed = captured_or_none(lambda: GraphedVision(capture, vision, pixels), "images")
        encoder = replace(encoder, vision=graphed or vision)
        self.components = replace(self.components, image_encoder=encoder)

    def _naming_out_of_memory(self, error: type[KosmosError]) -> AbstractContextManager[None]:
        return naming_out_of_memory(
            error,
            f"{self._name}, {self.slots} slots of {self._length} tokens",
            f"use fewer --slots than {self.slots}, half precision, or a device with more memory",
        )


def prefill_group_for(device_type: str, slots: int) -> int:
    """Return how many sequences a prefill takes at least, if so many wait.

    On CUDA a prefill of a few rows costs about what one of many costs. On the CPU each row has its
    price, and a free slot is filled at once.
    """
    return max(slots // _SLOTS_PER_PREFILL, 1) if device_type == "cuda" else 1


def _rules(checkpoint: Checkpoint, length: int | None) -> PromptRules:
    id_of = checkpoint.vocabulary.id_of
    tokenizer, config = checkpoint.tokenizer, checkpoint.model.config.text_config
    return PromptRules(
        start=tokenizer.bos_token_id,
        image=id_of(Tag.IMAGE),
        end_of_image=id_of(Tag.END_OF_IMAGE),
        padding=tokenizer.pad_token_id,
        vocabulary_size=config.vocab_size,
        positions=config.max_position_embeddings,
        length=min(length or config.max_position_embeddings, config.max_position_embeddings),
    )
