"""Runs a module for a comparison: see `multidrop.comparison`."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils.hooks import RemovableHandle

from multidrop.comparison import parts
from multidrop.comparison.parts import Part, Point, first_tensor
from multidrop.spec.keys import Key

from . import internals
from .functional import to_numpy
from .keyed import Keyed
from .position import key_at


class Probe:
    """Runs a module, and records what goes through its layers. On leaving the context the module is as it was, except
    for its weights."""

    def __init__(self, model: nn.Module) -> None:
        self.model = internals.uncompiled(model)
        self._layers = dict(self.model.named_modules())
        self._tensors = {
            (path, name): tensor for path, layer in self._layers.items() for name, tensor in _weights(layer).items()
        }
        floating = [tensor for tensor in self._tensors.values() if tensor.is_floating_point()]
        self._like = floating[0] if floating else torch.empty(0)
        self.dtype = str(self._like.dtype).removeprefix("torch.")
        convolutions = any(_kind(layer) == parts.CONVOLUTION for layer in self._layers.values())
        self.channels_last = False if convolutions else None
        self._points: list[Point] = []

    def parts(self) -> list[Part]:
        """The layers with weights, in the order of their definition."""
        found = []
        for path, layer in self._layers.items():
            if tensors := _weights(layer):
                kind = _kind(layer)
                found.append(Part(path, kind, {name: _axes(kind, name, x) for name, x in tensors.items()}))
        return found

    def dropouts(self) -> dict[str, Keyed]:
        """The dropout layers by path, in the order of their definition."""
        return {path: layer for path, layer in self._layers.items() if isinstance(layer, Keyed)}

    def key(self, path: str, key: Key | None) -> Key | None:
        """Makes a dropout layer begin at a key, or follow torch's generator; returns where it stood."""
        layer = self.dropouts()[path]
        before = None if layer.stream is None else key_at(layer.stream)
        layer._key_by(key)
        return before

    def __enter__(self) -> Probe:
        self._handles = [self._watch(path, layer) for path, layer in self._layers.items()]
        self._modes = {layer: layer.training for layer in self._layers.values()}
        # A lazy norm's buffers have no values yet; `read` and `write` keep what the first run gives them.
        buffers = {name: buffer for name, buffer in self.model.named_buffers() if not is_lazy(buffer)}
        self._buffers = copy.deepcopy(buffers)
        self._keys = {layer: key_at(layer.stream) for layer in self.dropouts().values() if layer.stream is not None}
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()
        for layer, mode in self._modes.items():
            layer.training = mode
        buffers = dict(self.model.named_buffers())
        for name, values in self._buffers.items():
            buffers[name].copy_(values)
        for layer, key in self._keys.items():
            layer._key_by(key)

    def _watch(self, path: str, layer: nn.Module) -> RemovableHandle:
        kind = parts.DROPOUT if isinstance(layer, Keyed) else _kind(layer)
        first = isinstance(layer, _CHANNELS_FIRST)

        def record(layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            if inputs and isinstance(inputs[0], Tensor) and isinstance(output, Tensor):
                self._points.append(Point(path, kind, to_numpy(inputs[0]), to_numpy(output), not first))

        return layer.register_forward_hook(record)

    def forward(self, X: npt.NDArray[Any], training: bool) -> tuple[npt.NDArray[Any], list[Point]]:
        """The output for a batch, and the layers' inputs and outputs in the order in which they ran."""
        self._points.clear()
        self.model.train(training)
        batch = torch.from_numpy(X)
        batch = batch.to(self._like) if batch.is_floating_point() else batch.to(self._like.device)
        with torch.enable_grad():
            self._Y = first_tensor(self.model(batch), (Tensor,))
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
            self._tensors[name].copy_(torch.from_numpy(np.ascontiguousarray(value)))


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
