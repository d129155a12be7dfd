"""Runs a module for a comparison: see `multidrop.comparison`."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from multidrop.comparison import parts
from multidrop.comparison.parts import Part, Point, first_tensor
from multidrop.comparison.watch import Watcher, watched
from multidrop.spec.keys import Key

from . import internals
from .conversion import NEEDS, is_keras, named_modules
from .functional import to_numpy
from .keyed import Keyed
from .position import calls, key_at


class Probe:
    """Runs a module, and records what goes through its layers. On leaving the context the module is as it was, except
    for its weights."""

    def __init__(self, model: nn.Module) -> None:
        self.model = internals.uncompiled(model)
        self.layers = dict(named_modules(self.model))
        for path, layer in self.layers.items():
            if is_keras(layer):
                raise TypeError(
                    f"model: expected one of torch modules; got a Keras layer, {path or 'the model itself'}: {NEEDS}"
                )
        self._tensors = {
            (path, name): tensor for path, layer in self.layers.items() for name, tensor in _weights(layer).items()
        }
        floating = [tensor for tensor in self._tensors.values() if tensor.is_floating_point()]
        self._like = floating[0] if floating else torch.empty(0)
        self.dtype = str(self._like.dtype).removeprefix("torch.")
        convolutions = any(_kind(layer) == parts.CONVOLUTION for layer in self.layers.values())
        self.channels_last = False if convolutions else None
        self._points: list[Point] = []

    def parts(self) -> list[Part]:
        """The layers with weights, in the order of their definition."""
        found = []
        for path, layer in self.layers.items():
            if tensors := _weights(layer):
                kind = _kind(layer)
                found.append(Part(path, kind, {name: _axes(kind, name, x) for name, x in tensors.items()}))
        return found

    def dropouts(self) -> dict[str, Keyed]:
        """The dropout layers by path, in the order of their definition."""
        return {path: layer for path, layer in self.layers.items() if isinstance(layer, Keyed)}

    def key(self, path: str, key: Key | None) -> Key | None:
        """Makes a dropout layer begin at a key, or follow torch's generator; returns where it stood."""
        layer = self.dropouts()[path]
        before = None if layer.stream is None else key_at(layer.stream)
        layer._key_by(key)
        return before

    def __enter__(self) -> Probe:
        self._modes = self._training()
        # A lazy norm's buffers have no values yet; `read` and `write` keep what the first run gives them.
        buffers = {name: buffer for name, buffer in self.model.named_buffers() if not is_lazy(buffer)}
        self._buffers = copy.deepcopy(buffers)
        self._keys = {layer: key_at(layer.stream) for layer in self.dropouts().values() if layer.stream is not None}
        self._stack = ExitStack()
        self._stack.enter_context(self.watch(self))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        _train(self._modes)
        buffers = dict(self.model.named_buffers())
        for name, values in self._buffers.items():
            buffers[name].copy_(values)
        for layer, key in self._keys.items():
            layer._key_by(key)

    @contextmanager
    def watch(self, watcher: Watcher) -> Iterator[None]:
        """Reports each call of a layer to a watcher. Nothing runs compiled, since a compiled program calls no hooks."""
        with ExitStack() as stack:
            stack.enter_context(internals.nothing_compiled())
            scripted = {path: layer for path, layer in self.layers.items() if isinstance(layer, torch.jit.ScriptModule)}
            stack.enter_context(watched(scripted, ("forward",), watcher))  # they take no hooks
            for path, layer in self.layers.items():
                if path in scripted:
                    continue
                stack.callback(
                    layer.register_forward_pre_hook(_entering(path, watcher), prepend=True, with_kwargs=True).remove
                )
                stack.callback(layer.register_forward_hook(_leaving(path, watcher)).remove)
            yield

    def enter(self, path: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Changes nothing: see `Watcher.enter`."""
        return args, kwargs

    def leave(self, path: str, args: tuple[Any, ...], output: Any) -> Any:
        """Records the input and output of a layer: see `Watcher.leave`."""
        layer = self.layers[path]
        if args and isinstance(args[0], Tensor) and isinstance(output, Tensor):
            kind = parts.DROPOUT if isinstance(layer, Keyed) else _kind(layer)
            last = not isinstance(layer, _CHANNELS_FIRST)
            self._points.append(Point(path, kind, to_numpy(args[0]), to_numpy(output), last))
        return output

    def batch(self, X: npt.NDArray[Any]) -> Tensor:
        """A NumPy array as the model takes it."""
        batch = torch.from_numpy(X)
        return batch.to(self._like) if batch.is_floating_point() else batch.to(self._like.device)

    def forward(self, X: npt.NDArray[Any], training: bool) -> tuple[npt.NDArray[Any], list[Point]]:
        """The output for a batch, and the layers' inputs and outputs in the order in which they ran."""
        self._points.clear()
        self.model.train(training)
        with torch.enable_grad():
            self._Y = first_tensor(self.model(self.batch(X)), (Tensor,))
        return to_numpy(self._Y), list(self._points)

    def backward(self, dY: npt.NDArray[Any]) -> dict[tuple[str, str], npt.NDArray[Any]]:
        """The gradients with respect to the weights, by path and name, from dY, the one with respect to the last
        output."""
        weights = {name: tensor for name, tensor in self._tensors.items() if tensor.requires_grad}
        if not weights:  # an error in torch
            return {}
        gradients = torch.autograd.grad(
            self._Y, list(weights.values()), torch.from_numpy(dY).to(self._Y), allow_unused=True
        )
        return {name: to_numpy(g) for name, g in zip(weights, gradients, strict=True) if g is not None}

    def read(self) -> dict[tuple[str, str], npt.NDArray[Any]]:
        """Copies the weights, by path and name, in the module's own layout."""
        return {name: np.array(to_numpy(tensor)) for name, tensor in self._tensors.items()}

    @torch.no_grad()
    def write(self, values: Mapping[tuple[str, str], npt.NDArray[Any]]) -> None:
        """Gives weights new values."""
        for name, value in values.items():
            self._tensors[name].copy_(torch.from_numpy(np.asarray(value, order="C")))

    # The methods below serve `multidrop.audit`; see `multidrop.protocol.Auditing`.

    tensors: ClassVar = (Tensor,)
    weights: ClassVar = (nn.Parameter,)

    def _training(self) -> dict[nn.Module, bool]:
        """The mode of each module, of wrappers too, which are no layers."""
        return {module: module.training for module in self.model.modules()}

    def built(self) -> bool:
        """Whether all weights have a shape."""
        return not any(is_lazy(weight) for weight in self.model.parameters())

    def run(self, path: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Calls a layer in training mode."""
        layer = self.layers[path] if path else self.model
        with torch.enable_grad():
            return layer.train()(*args, **kwargs)

    def seed(self, number: int) -> None:
        """Seeds torch's generators."""
        torch.default_generator.manual_seed(number)  # `torch.manual_seed` takes milliseconds where CUDA has not begun
        if torch.cuda.is_initialized():
            torch.cuda.manual_seed_all(number)
        self._seeded = _generators()

    def drew(self) -> bool:
        """Whether a number was drawn from them since `seed`."""
        return not all(map(torch.equal, self._seeded, _generators()))

    def generators(self) -> Callable[[], None]:
        """A function that restores the current state of all generators."""
        cpu, *devices = _generators()
        values = [value for layer in self.layers.values() for value in vars(layer).values()]
        own = [(value, value.get_state()) for value in values if isinstance(value, torch.Generator)]

        def back() -> None:
            torch.set_rng_state(cpu)
            if devices:
                torch.cuda.set_rng_state_all(devices)
            for generator, state in own:
                generator.set_state(state)

        return back

    def state(self) -> Callable[[], None]:
        """A function that restores the current positions, that of calls without a key too, and modes."""
        modes = self._training()
        streams = [calls.position, *(layer.stream for layer in self.dropouts().values())]
        before = [(stream, stream.clone()) for stream in streams if stream is not None]

        def back() -> None:
            _train(modes)
            for stream, position in before:
                stream.copy_(position)

        return back

    def symbolic(self, tensor: Tensor) -> bool:
        """Whether a tensor has no values."""
        return tensor.is_meta

    def copy(self, tensor: Tensor) -> Tensor:
        """A tensor with memory of its own."""
        new = tensor.detach().clone()
        return new.requires_grad_() if tensor.requires_grad and tensor.is_leaf else new

    def same(self, a: Tensor, b: Tensor) -> bool:
        """Whether two tensors have equal values; NaN is equal to NaN."""
        if (a.shape, a.dtype, a.layout, a.device) != (b.shape, b.dtype, b.layout, b.device):
            return False
        a, b = (_dense(x.detach()) for x in (a, b))
        return torch.equal(a, b) or bool(((a == b) | ((a != a) & (b != b))).all())

    def assign(self, tensor: Tensor, values: Tensor) -> None:
        """Gives a tensor other values."""
        with torch.no_grad():
            tensor.copy_(values)

    # The methods below serve `multidrop.mc_dropout`; see `multidrop.protocol.Sampling`.

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Puts all modules in evaluation mode; at the end, back in their own."""
        modes = self._training()
        self.model.eval()
        try:
            yield
        finally:
            _train(modes)

    @torch.no_grad()
    def evaluate(self, *inputs: Any, **named: Any) -> Tensor:
        """The output in evaluation mode."""
        return first_tensor(self.model(*inputs, **named), (Tensor,))

    def trains(self, path: str, kwargs: Mapping[str, Any]) -> bool:
        """Whether a call of a layer is in training mode."""
        return self.layers[path].training


def _train(modes: dict[nn.Module, bool]) -> None:
    for module, mode in modes.items():
        module.training = mode


def _entering(path: str, watcher: Watcher) -> Callable[..., Any]:
    return lambda _, args, kwargs: watcher.enter(path, args, kwargs)


def _leaving(path: str, watcher: Watcher) -> Callable[..., Any]:
    return lambda _, args, output: watcher.leave(path, args, output)


def _generators() -> list[Tensor]:
    """The states of torch's default generators; those of CUDA's devices where a program has used one."""
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else ())]


def _dense(x: Tensor) -> Tensor:
    """The values of a tensor as a plain one."""
    if x.is_nested:
        return torch.cat([part.reshape(-1) for part in x.unbind()])
    return x.dequantize() if x.is_quantized else x.to_dense() if x.layout is not torch.strided else x


_BATCH_NORMS = internals.BatchNorm
_NORMS = (_BATCH_NORMS, nn.LayerNorm, nn.GroupNorm)
_CHANNELS_FIRST = (internals.Convolution, _BATCH_NORMS, nn.GroupNorm)


_KINDS: tuple[tuple[Any, str], ...] = (
    (nn.Linear, parts.DENSE),
    (internals.Convolution, parts.CONVOLUTION),
    (_NORMS, parts.NORM),
    (nn.Embedding, parts.EMBEDDING),
)


def _kind(layer: nn.Module) -> str:
    return next((kind for types, kind in _KINDS if isinstance(layer, types)), type(layer).__name__)


def _weights(module: nn.Module) -> dict[str, Tensor]:
    """A module's own weights by their common names."""
    tensors: dict[str, Tensor] = dict(module.named_parameters(recurse=False))
    if isinstance(module, _NORMS):
        tensors |= dict(module.named_buffers(recurse=False))
        names = dict(zip(("weight", "bias", "running_mean", "running_var"), parts.NORM_WEIGHTS, strict=True))
    else:
        names = {"weight": parts.KERNEL, "bias": parts.BIAS}
    return {names.get(name, name): x for name, x in tensors.items() if name != "num_batches_tracked"}


def _axes(kind: str, name: str, x: Tensor) -> tuple[int, ...]:
    """torch's kernels are (outputs, inputs, *window), the transposed ones' (inputs, outputs, *window)."""
    axes = tuple(range(x.ndim))
    return (*axes[2:], 1, 0) if kind in (parts.DENSE, parts.CONVOLUTION) and name == parts.KERNEL else axes
