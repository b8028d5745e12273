"""A sample's image -> pixels: in this process, or in one of its own that it may kill."""

import multiprocessing
import resource
import signal
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from threading import Lock
from typing import Protocol, Self

from kosmos2_core.errors import ImageError
from kosmos2_core.images.decode import DecodedImage, ExifPolicy, decode_image
from pipeline.errors import DecoderHung, WorkerDied
from pipeline.faults import fault
from pipeline.formats.sample import Sample

# The largest image that we decode needs 1.6 GiB beside the libraries. More than this and the
# kernel's killer might choose another process than the one that asked.
DECODER_MEMORY_BYTES = 6 << 30

# Of one image. The largest takes seconds on a core of its own; three times this is still less
# than --stall-timeout, so that a shard with such an image gets to its third attempt.
DECODE_LIMIT_S = 120.0

_FAREWELL_S = 60.0  # an interpreter ends slowly on a busy machine

# A fork would copy the locks of whatever threads Ray runs.
_spawning = multiprocessing.get_context("spawn")


class Decoder(Protocol):
    @property
    def limit_s(self) -> float | None:
        """How long to wait for an image before the decoder counts as hanging; None: for ever."""

    def decode(self, sample: Sample) -> DecodedImage:
        """From several threads at once. Raises ImageError, WorkerDied."""


class ThreadDecoder:
    """In the caller's thread: fast, and an image that kills its decoder kills this process."""

    def __init__(self, exif: ExifPolicy) -> None:
        self._exif = exif

    @property
    def limit_s(self) -> float | None:
        return DECODE_LIMIT_S

    def decode(self, sample: Sample) -> DecodedImage:
        fault("decoder.decode", key=sample.key, index=sample.index)
        return decode_image(sample.data, exif=self._exif)


class ChildDecoder:
    """In a child process, one image at a time: what kills it, or hangs, costs itself alone.

    The child is started at the first image and anew after each death; it ends with its parent,
    whichever way that goes.
    """

    def __init__(self, exif: ExifPolicy) -> None:
        self._exif = exif
        self._lock = Lock()
        self._child: tuple[BaseProcess, Connection] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._end()

    @property
    def limit_s(self) -> float | None:
        return None  # the child has one

    def decode(self, sample: Sample) -> DecodedImage:
        with self._lock:
            try:
                answer = self._answer(sample)
            except (EOFError, OSError):
                raise WorkerDied(f"its decoder died: {self._end()}") from None
        if isinstance(answer, ImageError):
            raise answer
        return answer

    def _answer(self, sample: Sample) -> DecodedImage | ImageError:
        if self._child is None:
            self._child = _start(self._exif)
        child, pipe = self._child
        pipe.send(sample)
        if not pipe.poll(DECODE_LIMIT_S):
            child.kill()
            self._end()
            raise DecoderHung(f"its decoder gave no answer within {DECODE_LIMIT_S:g} s")
        answer: DecodedImage | ImageError = pipe.recv()
        return answer

    def _end(self) -> str:
        """How the child ended; closing our end is what tells a living one to."""
        if self._child is None:
            return ""
        (child, pipe), self._child = self._child, None
        pipe.close()
        child.join(_FAREWELL_S)
        if child.exitcode is None:  # it hangs in an image
            child.kill()
            child.join()
        return _cause(child.exitcode)


def _start(exif: ExifPolicy) -> tuple[BaseProcess, Connection]:
    ours, theirs = _spawning.Pipe()
    child = _spawning.Process(target=_serve, args=(theirs, exif), daemon=True)
    child.start()
    theirs.close()  # or the end of the child would go unnoticed
    with suppress(EOFError):  # then the first image will find it dead
        ours.recv()  # it is ready: its start is no image's time
    return child, ours


def _serve(pipe: Connection, exif: ExifPolicy) -> None:
    """The child: samples in, images or ImageErrors out, until the other end is closed."""
    _limit_memory()
    decoder = ThreadDecoder(exif)
    with suppress(EOFError, BrokenPipeError):
        pipe.send(None)
        while True:
            sample = pipe.recv()
            try:
                pipe.send(decoder.decode(sample))
            except ImageError as error:
                pipe.send(error)


def _limit_memory() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    is_less = hard != resource.RLIM_INFINITY and hard < DECODER_MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_DATA, (hard if is_less else DECODER_MEMORY_BYTES, hard))


def _cause(exit_code: int | None) -> str:
    if exit_code is not None and exit_code < 0:
        return signal.Signals(-exit_code).name
    return f"exit code {exit_code}"
