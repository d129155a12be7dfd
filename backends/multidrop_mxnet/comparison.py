"""A Gluon block, or this library's own net, as a comparison runs it: see `multidrop.comparison`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mxnet as mx
import numpy as np
import numpy.typing as npt
from mxnet import gluon
from mxnet.gluon import nn

from multidrop.comparison import parts
from multidrop.comparison.parts import Part, Point, first_tensor
from multidrop.spec.keys import Key

from . import internals
from .conversion import blocks_of
from .functional import Array, tensor, to_numpy
from .layers import Random, parameters_of
from .net import Net
from .position import StreamParameter


class Probe:
    """Runs a block, not hybridized, and has its layers tell what goes through them. As a context it leaves the block as
    it was, but for its weights."""

    def __init__(self, model: gluon.Block | Net) -> None:
        self.model = model
        self._blocks = {} if isinstance(model, Net) else dict(blocks_of(model))
        layouts = [layout for block in self._blocks.values() if (layout := _layout(block))]
        self.channels_last = layouts[0].endswith("C") if layouts else None
        dtypes = [array.dtype for array in self._arrays().values()] or [
            param.dtype for block in self._blocks.values() for param in _weights(block).values()
        ]
        self.dtype = np.dtype(dtypes[0]).name if dtypes else "float32"
        self._points: list[Point] = []

    def parts(self) -> list[Part]:
        """The layers with weights, in the order of their definition; of a block that has run."""
        if isinstance(self.model, Net):
            return [Part(f"lin{n}", parts.DENSE, {parts.KERNEL: (0, 1), parts.BIAS: (0,)}) for n in (1, 2, 3)]
        found = []
        for path, block in self._blocks.items():
            if params := _weights(block):
                kind = _kind(block)
                axes = {name: _axes(block, name, len(param.shape)) for name, param in params.items()}
                found.append(Part(path, kind, axes, internals.activation_of(block)))
        return found

    def dropouts(self) -> dict[str, Random]:
        """The dropout layers by path, in the order of their definition."""
        if isinstance(self.model, Net):
            return {"dropout1": self.model.dropout1, "dropout2": self.model.dropout2}
        return {path: block for path, block in self._blocks.items() if isinstance(block, Random)}

    def key(self, path: str, key: Key | None) -> Key | None:
        """Has a dropout layer begin at a key, or follow MXNet's generator; gives where it stood."""
        layer = self.dropouts()[path]
        before = None if layer.stream is None else layer.stream.key
        layer._key_by(key)
        return before

    def __enter__(self) -> Probe:
        self._handles = [self._watch(path, block) for path, block in self._blocks.items()]
        hybrid = [block for block in self._blocks.values() if isinstance(block, gluon.HybridBlock)]
        self._programs = {block: internals.is_active(block) for block in hybrid}
        for block in hybrid:
            internals.set_active(block, False)  # a program's inner blocks are not called
        if isinstance(self.model, Net):
            self._mode = self.model.is_training
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.detach()
        for block, active in self._programs.items():
            internals.set_active(block, active)
        if isinstance(self.model, Net):
            self.model.is_training = self._mode

    def _watch(self, path: str, block: gluon.Block) -> Any:
        kind, last = parts.DROPOUT if isinstance(block, Random) else _kind(block), _channels_last(block)

        def record(block: gluon.Block, inputs: tuple[Any, ...], output: Any) -> None:
            if inputs and isinstance(inputs[0], mx.nd.NDArray) and isinstance(output, mx.nd.NDArray):
                given = to_numpy(inputs[0])
                if isinstance(block, nn.Dense) and internals.flattens(block):
                    given = given.reshape(len(given), -1)
                self._points.append(Point(path, kind, given, to_numpy(output), last))

        return block.register_forward_hook(record)

    def forward(self, X: npt.NDArray[Any], training: bool) -> tuple[npt.NDArray[Any], list[Point]]:
        """The output for a batch, and what went through the layers, in the order in which they ran."""
        self._points.clear()
        if isinstance(self.model, Net):
            self.model.is_training = training
        X = X.astype(self.dtype) if X.dtype.kind == "f" else X
        batch = mx.np.array(X, X.dtype) if mx.util.is_np_array() else mx.nd.array(X, dtype=X.dtype)
        with mx.autograd.record(train_mode=training):
            self._Y = first_tensor(self.model(batch), (mx.nd.NDArray,))
        return to_numpy(self._Y), list(self._points)

    def backward(self, dY: npt.NDArray[Any]) -> dict[tuple[str, str], npt.NDArray[Any]]:
        """The gradients of the weights, by path and name, for that of the last output."""
        trained = {name: array for name, array in self._arrays().items() if array.grad is not None}
        if not trained:  # of which MXNet makes an error
            return {}
        before = {name: array.grad.copy() for name, array in trained.items()}
        for array in trained.values():
            array.grad[:] = 0
        gradient = mx.nd.array(dY, dtype=self._Y.dtype)
        self._Y.backward(gradient.as_np_ndarray() if isinstance(self._Y, mx.np.ndarray) else gradient)
        gradients = {name: np.array(to_numpy(array.grad)) for name, array in trained.items()}
        for name, array in trained.items():
            array.grad[:] = before[name]
        return gradients

    def read(self) -> dict[tuple[str, str], npt.NDArray[Any]]:
        """Copies of the weights, by path and name, in the block's own layout."""
        return {name: np.array(to_numpy(array)) for name, array in self._arrays().items()}

    def write(self, values: Mapping[tuple[str, str], npt.NDArray[Any]]) -> None:
        """Gives weights new values."""
        arrays = self._arrays()
        for name, value in values.items():
            array = arrays[name]  # which may be in MKL-DNN's layout, that only an array is written into
            array.as_nd_ndarray()[:] = tensor(value, np.dtype(array.dtype).name).as_nd_ndarray()

    def _arrays(self) -> dict[tuple[str, str], Array]:
        if isinstance(self.model, Net):
            names = [(f"lin{n}", name) for n in (1, 2, 3) for name in (parts.KERNEL, parts.BIAS)]
            return dict(zip(names, self.model.params, strict=True))
        return {
            (path, name): param.data()
            for path, block in self._blocks.items()
            for name, param in _weights(block).items()
            if internals.initialized(param)
        }


_NORMS = (nn.BatchNorm, nn.LayerNorm, nn.GroupNorm, nn.InstanceNorm)
_KINDS: tuple[tuple[Any, str], ...] = (
    (nn.Dense, parts.DENSE),
    (internals.Convolution, parts.CONVOLUTION),
    (_NORMS, parts.NORM),
    (nn.Embedding, parts.EMBEDDING),
)


def _kind(block: gluon.Block) -> str:
    return next((kind for types, kind in _KINDS if isinstance(block, types)), type(block).__name__)


def _weights(block: gluon.Block) -> dict[str, gluon.Parameter]:
    """A block's own weights by their common names."""
    names = {"weight": parts.KERNEL, "bias": parts.BIAS}
    if isinstance(block, _NORMS):
        names = dict(zip(("gamma", "beta", "running_mean", "running_var"), parts.NORM_WEIGHTS, strict=True))
    params = parameters_of(block).items()
    return {names.get(name, name): param for name, param in params if not isinstance(param, StreamParameter)}


def _axes(block: gluon.Block, name: str, ndim: int) -> tuple[int, ...]:
    """Gluon's kernels are (outputs, inputs, *window), or where the channels come last, (outputs, *window, inputs)."""
    axes = tuple(range(ndim))
    if name != parts.KERNEL or _kind(block) not in (parts.DENSE, parts.CONVOLUTION):
        return axes
    return (*axes[2:], 1, 0) if _kind(block) == parts.DENSE or not _channels_last(block) else (*axes[1:], 0)


def _layout(block: gluon.Block) -> str:
    """How a convolution takes images, such as "NCHW"."""
    return internals.layout_of(block) if isinstance(block, internals.Convolution) else ""


def _channels_last(block: gluon.Block) -> bool:
    if isinstance(block, (nn.BatchNorm, nn.GroupNorm, nn.InstanceNorm)):
        return internals.channel_axis(block) != 1
    return not _layout(block) or _layout(block).endswith("C")
