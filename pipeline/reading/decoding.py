"""Decoding of images: in this process, or in a child process that an image may kill."""

import multiprocessing
import resource
import signal
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from threading import Lock
from typing import Protocol, Self

import kosmos2_core.images.resize  # noqa: F401 - not at the first image, which has a limit of time
from kosmos2_core.errors import ImageError
from kosmos2_core.images.decode import DecodedImage, DecodeMode, ExifPolicy, decode_image
from pipeline.errors import DecoderHung, WorkerDied
from pipeline.faults import fault
from pipeline.formats.sample import Sample

# The largest image to be decoded needs 2.1 GiB beside the libraries. With a higher limit, the
# kernel might kill another process than the decoder.
DECODER_MEMORY_BYTES = 6 << 30

# Per image. The largest takes seconds on one core. Three times this limit is still below
# --stall-timeout, so a shard with such an image reaches its third attempt.
DECODE_LIMIT_S = 120.0

_FAREWELL_S = 60.0  # an interpreter ends slowly on a busy machine

# A fork would copy the locks of Ray's threads.
_spawning = multiprocessing.get_context("spawn")


class Decoder(Protocol):
    @property
    def limit_s(self) -> float | None:
        """Seconds to wait for an image before the decoder counts as hanging; None means forever."""

    def decode(self, sample: Sample) -> DecodedImage:
        """Decode an image. Several threads may call it. Raises ImageError, WorkerDied."""


class ThreadDecoder:
    """Decodes in the caller's thread: fast, but a fatal image kills this process."""

    def __init__(self, exif: ExifPolicy, decode: DecodeMode) -> None:
        self._exif = exif
        self._decode = decode

    @property
    def limit_s(self) -> float | None:
        return DECODE_LIMIT_S

    def decode(self, sample: Sample) -> DecodedImage:
        fault("decoder.decode", key=sample.key, index=sample.index)
        return decode_image(sample.data, exif=self._exif, decode=self._decode)


class ChildDecoder:
    """Decodes in a child process, one image at a time, so that a fatal image costs only itself.

    The child is started at the first image and after each death; it ends with its parent, however
    that ends.
    """

    def __init__(self, exif: ExifPolicy, decode: DecodeMode) -> None:
        self._exif = exif
        self._decode = decode
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
                raise WorkerDied(
                    f"{sample.key:.200}: the decoder died ({self._end()}); remove the image, or "
                    "run `kosmos2 retry --samples --error-type worker_died`"
                ) from None
        if isinstance(answer, ImageError):
            raise answer
        return answer

    def _answer(self, sample: Sample) -> DecodedImage | ImageError:
        if self._child is None:
            self._child = _start(self._exif, self._decode)
        child, pipe = self._child
        pipe.send(sample)
        if not pipe.poll(DECODE_LIMIT_S):
            child.kill()
            self._end()
            raise DecoderHung(
                f"{sample.key:.200}: the decoder gave no answer within {DECODE_LIMIT_S:g} s; "
                "remove the image, or run `kosmos2 retry --samples --error-type worker_died`"
            )
        answer: DecodedImage | ImageError = pipe.recv()
        return answer

    def _end(self) -> str:
        """End the child by closing the pipe; return how it ended."""
        if self._child is None:
            return ""
        (child, pipe), self._child = self._child, None
        pipe.close()
        child.join(_FAREWELL_S)
        if child.exitcode is None:  # it hangs in an image
            child.kill()
            child.join()
        return _cause(child.exitcode)


def _start(exif: ExifPolicy, decode: DecodeMode) -> tuple[BaseProcess, Connection]:
    ours, theirs = _spawning.Pipe()
    child = _spawning.Process(target=_serve, args=(theirs, exif, decode), daemon=True)
    child.start()
    theirs.close()  # else the end of the child would go unnoticed
    with suppress(EOFError):  # then the first image will find it dead
        ours.recv()  # it is ready: its start does not count towards an image's limit
    return child, ours


def _serve(pipe: Connection, exif: ExifPolicy, decode: DecodeMode) -> None:
    """Run the child: receive samples, send images or ImageErrors, until the pipe is closed."""
    _limit_memory()
    decoder = ThreadDecoder(exif, decode)
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
