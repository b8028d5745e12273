"""A CUDA device that is emulated on the CPU: what it computes is right, and all it does is counted.

Tensors "on the device" are CPU tensors of a class of their own. While `EmulatedCuda` is active,
torch's functions treat them as CUDA would: a tensor of the host beside them is an error, a copy is
synchronous unless it is pinned and non-blocking, and an asynchronous copy to the host has arrived
only after an event that was recorded behind it, on the device's own stream, was waited for. Until
then the host reads garbage. A captured graph is a list of operators, which a replay computes again.
"""

import copy
from collections import Counter
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from types import SimpleNamespace

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

GARBAGE = -77
_BLOCKING = {"item", "tolist", "__bool__", "__int__", "__float__", "__index__", "numpy", "nonzero"}
_NO_KERNELS = {"empty", "empty_strided", "new_empty", "new_empty_strided", "empty_like"}


class DeviceTensor(torch.Tensor):
    """A tensor on the emulated device."""


@dataclass
class Activity:
    """Counts of the device's work, from some moment on."""

    kernels: Counter = field(default_factory=Counter)
    uploads: int = 0
    downloads: int = 0
    waits: int = 0  # for an event
    replays: int = 0
    captures: int = 0
    synchronous: list = field(default_factory=list)  # copies and reads that wait for the device

    @property
    def launches(self):
        return sum(self.kernels.values())

    def counts(self):
        return {
            name: getattr(self, name)
            for name in ("launches", "uploads", "downloads", "waits", "replays")
        }


class EmulatedCuda(TorchFunctionMode):
    """Device `index`, while `current` is torch's current device."""

    def __init__(self, index=0, current=0):
        super().__init__()
        self.device = torch.device("cuda", index)
        self.current = current
        self.activity = Activity()
        self.arriving = []  # copies to the host: destination, values
        self.recording = None  # operators of the graph that is captured
        self.is_capture_broken = False
        self._operators = _Operators(self)

    def __enter__(self):
        self._stack = ExitStack()
        patch = self._stack.enter_context(pytest.MonkeyPatch.context())
        for name, stub in _stubs(self).items():
            patch.setattr(torch.cuda, name, stub)
        self._stack.enter_context(self._operators)
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self._stack.close()

    @contextmanager
    def watched(self):
        """The activity within a block."""
        before, self.activity = self.activity, Activity()
        try:
            yield self.activity
        finally:
            self.activity = before

    def hold(self, checkpoint, dtype=None):
        """A copy of a checkpoint on the device."""
        return replace(
            checkpoint,
            model=_held_model(checkpoint.model, dtype),
            device=self.device,
            dtype=dtype or checkpoint.dtype,
            mean=_held_tensor(checkpoint.mean.clone()).float(),
            std=_held_tensor(checkpoint.std.clone()).float(),
        )

    # What torch's functions do

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs, name = dict(kwargs or {}), getattr(func, "__name__", "")
        first = args[0] if args else None
        if func == torch.Tensor.device.__get__:
            return self.device if isinstance(first, DeviceTensor) else func(*args)
        if func == torch.Tensor.is_cuda.__get__:
            return isinstance(first, DeviceTensor)
        if name == "__get__":
            return self._run(func, args, kwargs)
        if name == "pin_memory":
            return _pinned(self._run(torch.clone, args, kwargs))
        if name == "copy_":
            return self._copy(*args, **kwargs)
        if name == "cpu" or name in _BLOCKING:
            return self._read(func, args, kwargs)
        if name == "to" and (place := _place_in(args[1:], kwargs)) is not None:
            return self._move(first, place, kwargs)
        if "device" in kwargs:
            return self._make(func, args, kwargs)
        if name in ("__getitem__", "__setitem__") and isinstance(first, DeviceTensor):
            args = self._with_index_on_device(name, args)
        return self._compute(func, args, kwargs)

    def _compute(self, func, args, kwargs):
        tensors = [*_tensors_in(args), *_tensors_in(kwargs.values())]
        are_held = [isinstance(tensor, DeviceTensor) for tensor in tensors]
        if not any(are_held):
            return self._run(func, args, kwargs)
        if any(t.dim() for t, is_held in zip(tensors, are_held, strict=True) if not is_held):
            raise RuntimeError(
                f"Expected all tensors to be on the same device, but found {self.device} and cpu"
                f" in {func}"
            )
        if func is torch.mm and "out_dtype" in kwargs:  # CUDA alone has it
            dtype = kwargs.pop("out_dtype")
            args = tuple(arg.as_subclass(torch.Tensor).to(dtype) for arg in args)
        return self._held(self._run(func, args, kwargs, on_device=True), tensors)

    def _run(self, func, args, kwargs, *, on_device=False):
        self._operators.is_on_device = on_device
        try:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **kwargs)
        finally:
            self._operators.is_on_device = False

    def _held(self, result, given=()):
        def held(leaf):
            if not isinstance(leaf, torch.Tensor) or any(leaf is tensor for tensor in given):
                return leaf
            return leaf.as_subclass(DeviceTensor)

        with torch._C.DisableTorchFunctionSubclass():
            return held(result) if isinstance(result, torch.Tensor) else tree_map(held, result)

    # Transfers

    def _make(self, func, args, kwargs):
        """A function that names the device of its result."""
        place = kwargs["device"]
        place = place if place is None else torch.device(place)
        is_pinned = kwargs.pop("pin_memory", False)
        if place is not None and place.type == "cuda":
            assert place.index in (self.device.index, None), f"{func} on {place}"
            if func in (torch.tensor, torch.as_tensor):
                self._synchronous(f"torch.{func.__name__}")
            kwargs["device"] = "cpu"
            return self._held(self._run(func, args, kwargs, on_device=True))
        if place is None:
            del kwargs["device"]
            return self._compute(func, args, kwargs)
        made = self._run(func, args, kwargs)
        made = made.as_subclass(torch.Tensor) if isinstance(made, DeviceTensor) else made
        return _pinned(made) if is_pinned else made

    def _move(self, tensor, place, kwargs):
        dtype = kwargs.get("dtype") or tensor.dtype
        if isinstance(tensor, DeviceTensor) == (place.type == "cuda"):
            return self._compute(torch.Tensor.to, (tensor, dtype), {})
        if place.type == "cuda":
            self._note_upload(tensor, kwargs.get("non_blocking", False), "to")
            return self._held(self._run(torch.clone, (tensor.to(dtype),), {}))
        self._synchronous("to the host")
        return self._run(torch.clone, (tensor,), {}).as_subclass(torch.Tensor)

    def _copy(self, to, source, non_blocking=False):
        if isinstance(to, DeviceTensor):
            if isinstance(source, DeviceTensor):
                return self._compute(torch.Tensor.copy_, (to, source), {})
            self._note_upload(source, non_blocking, "copy_")
            return self._run(torch.Tensor.copy_, (to, source), {})
        if not isinstance(source, DeviceTensor):
            return self._run(torch.Tensor.copy_, (to, source), {})
        if not (non_blocking and getattr(to, "is_emulated_pinned", False)):
            self._synchronous("copy_ to the host")
            return self._run(torch.Tensor.copy_, (to, source), {})
        self._forbid_in_capture("copy_ to the host")
        self.activity.downloads += 1
        self.arriving.append((to, source.as_subclass(torch.Tensor).clone()))
        return self._run(torch.Tensor.fill_, (to, GARBAGE), {})

    def _note_upload(self, tensor, non_blocking, name):
        self._forbid_in_capture(name)
        if non_blocking and getattr(tensor, "is_emulated_pinned", False):
            self.activity.uploads += 1
        else:
            self._synchronous(f"{name} of {tuple(tensor.shape)} from memory that is not pinned")

    def _read(self, func, args, kwargs):
        if any(isinstance(arg, DeviceTensor) for arg in args):
            self._synchronous(func.__name__)
        result = self._run(func, args, kwargs)
        is_tensor = isinstance(result, DeviceTensor) and func.__name__ == "cpu"
        return result.as_subclass(torch.Tensor) if is_tensor else result

    def _with_index_on_device(self, name, args):
        """CUDA copies an index from the host; the caller waits."""
        parts = args[1] if isinstance(args[1], tuple) else (args[1],)
        parts = [self._part_on_device(name, part) for part in parts]
        if name == "__setitem__" and not isinstance(args[2], DeviceTensor):
            self._synchronous(f"{name} of a value of the host")
        return args[0], tuple(parts), *args[2:]

    def _part_on_device(self, name, part):
        if isinstance(part, DeviceTensor):
            if part.dtype == torch.bool:
                self._synchronous(f"{name} with a mask")
        elif isinstance(part, list | torch.Tensor):
            self._synchronous(f"{name} with an index of the host")
            return self._held(self._run(torch.as_tensor, (part,), {}))
        return part

    def _synchronous(self, name):
        self._forbid_in_capture(name)
        self.activity.synchronous.append(name)

    def _forbid_in_capture(self, name):
        if self.recording is not None:
            raise RuntimeError(
                f"CUDA error: operation not permitted when stream is capturing: {name}"
            )


@cache
def _held_model(model, dtype):
    """Made once, as engines leave the model of their checkpoint as it is."""
    model, held = copy.deepcopy(model), {}

    def moved(tensor):
        if tensor is None:
            return None
        if id(tensor) not in held:
            held[id(tensor)] = (tensor, _held_tensor(tensor, dtype))
        return held[id(tensor)][1]

    for module in model.modules():
        for kind in (module._parameters, module._buffers):
            kind.update({name: moved(tensor) for name, tensor in kind.items()})
    return model


def _held_tensor(tensor, dtype=None):
    data = tensor.detach()
    data = data.to(dtype) if dtype and data.is_floating_point() else data
    return data.as_subclass(DeviceTensor)


def _tensors_in(values):
    """Yield the tensors among arguments, which may be lists of them, but nothing deeper."""
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors_in(value)


class _Operators(TorchDispatchMode):
    """Sees the operators that the functions consist of."""

    @classmethod
    def _should_skip_dynamo(cls):
        return False  # nothing is compiled here, and to guard each call would take a tenth of it

    def __init__(self, emulation):
        super().__init__()
        self.is_on_device = False
        self._emulation = emulation

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs, (name, is_composite, is_view) = kwargs or {}, _facts_of(func)
        if is_composite:
            with self:
                return func.decompose(*args, **kwargs)
        result = func(*args, **kwargs)
        if self.is_on_device and not is_view:
            if name not in _NO_KERNELS:
                self._emulation.activity.kernels[name] += 1
            if self._emulation.recording is not None:
                self._emulation.recording.append((func, args, kwargs, result))
        return result


@cache
def _facts_of(func):
    """The name of an operator, whether it is taken apart, and whether it returns a view."""
    name = func._schema.name.removeprefix("aten::")
    is_composite = name != "scaled_dot_product_attention" and func._can_decompose()
    return name, is_composite, func.is_view


def _pinned(tensor):
    tensor.is_emulated_pinned = True
    return tensor


def _place_in(args, kwargs):
    """The device among the arguments of `Tensor.to`."""
    for value in (*args, kwargs.get("device")):
        if isinstance(value, torch.device | str):
            return torch.device(value)
    return None


# What torch.cuda has


def _stubs(emulation):
    class Event:
        def __init__(self, **_):
            self._arriving = None

        def record(self, stream=None):
            device = stream.device if stream else torch.device("cuda", emulation.current)
            # On another device's stream it comes behind nothing of ours.
            is_ours = device == emulation.device
            self._arriving = list(emulation.arriving) if is_ours else []

        def synchronize(self):
            emulation.activity.waits += 1
            for to, values in self._arriving:
                with torch._C.DisableTorchFunctionSubclass(), torch._C.DisableTorchFunction():
                    to.copy_(values)
            arrived = {id(to) for to, _ in self._arriving}
            emulation.arriving = [each for each in emulation.arriving if id(each[0]) not in arrived]

    class Device:
        def __init__(self, device):
            self._index = torch.device(device).index

        def __enter__(self):
            self._before = emulation.current
            emulation.current = self._before if self._index is None else self._index

        def __exit__(self, *_):
            emulation.current = self._before

    class Stream:
        def __init__(self, device=None, **_):
            index = emulation.current if device is None else torch.device(device).index
            self.device = torch.device("cuda", index)

        def wait_stream(self, other):
            assert other.device == self.device

    class Graph:
        def replay(self):
            assert emulation.current == self.index, "replayed on another device's stream"
            emulation.activity.replays += 1
            with torch.inference_mode(), torch._C.DisableTorchFunction():
                for func, args, kwargs, result in self.operators:
                    _compute_again(func, args, kwargs, result)

    class Capture:
        def __init__(self, graph, pool=None, stream=None, **_):
            self._graph, graph.pool, graph.stream = graph, pool, stream

        def __enter__(self):
            if emulation.is_capture_broken:
                raise RuntimeError("CUDA error: operation failed due to a previous error")
            assert emulation.current == emulation.device.index
            assert self._graph.stream.device == emulation.device
            self._graph.index = emulation.current
            emulation.recording = []

        def __exit__(self, *_):
            self._graph.operators, emulation.recording = emulation.recording, None
            emulation.activity.captures += 1

    @contextmanager
    def stream(_):
        yield

    return {
        "is_available": lambda: True,
        "current_device": lambda: emulation.current,
        "current_stream": Stream,
        "synchronize": lambda device=None: emulation._synchronous("synchronize"),
        "mem_get_info": lambda device=None: (64 << 30, 80 << 30),
        "graph_pool_handle": SimpleNamespace,
        "Event": Event,
        "device": Device,
        "Stream": Stream,
        "stream": stream,
        "CUDAGraph": Graph,
        "graph": Capture,
    }


def _compute_again(func, args, kwargs, result):
    again = func(*args, **kwargs)
    if func._schema.is_mutable:
        return
    for to, values in zip(_tensors_in([result]), _tensors_in([again]), strict=True):
        to.copy_(values)
