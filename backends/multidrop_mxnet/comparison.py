"""A Gluon block, or this library's own net, as a comparison runs it: see `multidrop.comparison`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any, ClassVar

import mxnet as mx
import numpy as np
import numpy.typing as npt
from mxnet import gluon
from mxnet.gluon import nn

from multidrop.comparison import parts
from multidrop.comparison.parts import Part, Point, first_tensor
from multidrop.comparison.watch import Watcher, watched
from multidrop.spec.keys import Key
from multidrop.streams import keyless_position

from . import internals
from .conversion import blocks_of
from .functional import NAME, Array, tensor, to_numpy
from .layers import Random, parameters_of
from .net import Net
from .position import StreamParameter
from .weights import _WeightDropout


class Probe:
    """Runs a block, not hybridized, and has its layers tell what goes through them. As a context it leaves the block as
    it was, but for its weights."""

    def __init__(self, model: gluon.Block | Net) -> None:
        self.model = model
        self._blocks = {} if isinstance(model, Net) else dict(blocks_of(model))
        self.layers: dict[str, Any] = {"": model} | (self._blocks or self.dropouts())
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
        if isinstance(self.model, Net):
            self._mode = self.model.is_training
        self._stack = ExitStack()
        self._stack.enter_context(self.watch(self))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        if isinstance(self.model, Net):
            self.model.is_training = self._mode

    @contextmanager
    def watch(self, watcher: Watcher) -> Iterator[None]:
        """Reports each call of a layer to a watcher. Nothing runs hybridized, because a program calls no blocks."""
        hybrid = [block for block in self._blocks.values() if isinstance(block, gluon.HybridBlock)]
        active = {block: internals.is_active(block) for block in hybrid}
        wrappers = [block for block in hybrid if isinstance(block, _WeightDropout)]
        for block in hybrid:
            internals.set_active(block, False)
        for wrapper in wrappers:
            wrapper.watched = True
        try:
            with watched(self.layers, ("forward", "after_relu"), watcher):
                yield
        finally:
            for block in hybrid:
                internals.set_active(block, active[block])
            for wrapper in wrappers:
                wrapper.watched = False

    def enter(self, path: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Changes nothing: see `Watcher.enter`."""
        return args, kwargs

    def leave(self, path: str, args: tuple[Any, ...], output: Any) -> Any:
        """Records the input and output of a layer: see `Watcher.leave`."""
        block = self._blocks.get(path)  # none of a `Net`, which is compared as a whole
        if block is not None and args and isinstance(args[0], mx.nd.NDArray) and isinstance(output, mx.nd.NDArray):
            kind = parts.DROPOUT if isinstance(block, Random) else _kind(block)
            given = to_numpy(args[0])
            if isinstance(block, nn.Dense) and internals.flattens(block):
                given = given.reshape(len(given), -1)
            self._points.append(Point(path, kind, given, to_numpy(output), _channels_last(block)))
        return output

    def batch(self, X: npt.NDArray[Any]) -> Array:
        """A NumPy array as the model takes it."""
        X = X.astype(self.dtype) if X.dtype.kind == "f" else X
        return mx.np.array(X, X.dtype) if mx.util.is_np_array() else mx.nd.array(X, dtype=X.dtype)

    def forward(self, X: npt.NDArray[Any], training: bool) -> tuple[npt.NDArray[Any], list[Point]]:
        """The output for a batch, and what went through the layers, in the order in which they ran."""
        self._points.clear()
        if isinstance(self.model, Net):
            self.model.is_training = training
        with mx.autograd.record(train_mode=training):
            self._Y = first_tensor(self.model(self.batch(X)), (mx.nd.NDArray,))
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

    # The methods below serve `multidrop.audit`; see `multidrop.protocol.Auditing`.

    tensors: ClassVar = (mx.nd.NDArray, mx.sym.Symbol)
    weights: ClassVar[tuple[type, ...]] = ()

    def built(self) -> bool:
        """Whether all weights have a shape."""
        return all(internals.initialized(param) for param in self._parameters())

    def _parameters(self) -> list[gluon.Parameter]:
        params = [] if isinstance(self.model, Net) else self.model.collect_params().values()
        return [param for param in params if not isinstance(param, StreamParameter)]

    def run(self, path: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Calls a block in training mode."""
        if isinstance(self.model, Net):
            self.model.is_training = True
        with mx.autograd.record():
            return self.layers[path](*args, **kwargs)

    def seed(self, number: int) -> None:
        """Seeds MXNet's generators."""
        mx.random.seed(number)
        self._expected = _drawn()
        mx.random.seed(number)

    def drew(self) -> bool:
        """Whether a number was drawn from them since `seed`."""
        return _drawn() != self._expected

    def generators(self) -> Callable[[], None]:
        """A function that seeds MXNet's generators, whose state cannot be read, with a number that they drew now."""
        number = int(mx.nd.random.randint(0, 2**31 - 1).asscalar())
        return lambda: mx.random.seed(number)

    def state(self) -> Callable[[], None]:
        """A function that restores what is not trained, such as running statistics and positions, to its values now."""
        held = [param for param in self._parameters() if param.grad_req == "null" and internals.initialized(param)]
        before = [(array, array.copy()) for param in held for array in param.list_data()]
        positions = {layer.stream: layer.stream.key for layer in self.dropouts().values() if layer.stream is not None}
        calls = keyless_position(NAME)

        def back() -> None:
            for array, value in before:
                self.assign(array, value)
            for stream, key in positions.items():
                stream.key = key
            keyless_position(NAME, calls)

        return back

    def symbolic(self, tensor: Any) -> bool:
        """Whether a tensor has no values."""
        return isinstance(tensor, mx.sym.Symbol)

    def copy(self, tensor: Array) -> Array:
        """An array with memory of its own."""
        return tensor.copy()

    def same(self, a: Array, b: Array) -> bool:
        """Whether two arrays have equal values; NaN is equal to NaN."""
        if (a.shape, a.dtype, a.stype) != (b.shape, b.dtype, b.stype):
            return False
        return parts.equal(to_numpy(a), to_numpy(b))

    def assign(self, tensor: Array, values: Array) -> None:
        """Gives an array other values."""
        with mx.autograd.pause():
            tensor.as_nd_ndarray()[:] = values.as_nd_ndarray()

    # The methods below serve `multidrop.mc_dropout`; see `multidrop.protocol.Sampling`.

    def evaluating(self) -> AbstractContextManager[None]:
        """Changes nothing: outside of `autograd.record()` a block is in evaluation mode."""
        return nullcontext()

    def evaluate(self, *inputs: Any, **named: Any) -> Array:
        """The output in evaluation mode."""
        with mx.autograd.pause():
            return first_tensor(self.model(*inputs, **named), (mx.nd.NDArray,))

    def trains(self, path: str, kwargs: Mapping[str, Any]) -> bool:
        """Whether a call of a layer is in training mode."""
        return mx.autograd.is_training()


def _drawn() -> tuple[float, ...]:
    """What MXNet's generators give next: those of random operators, dropout among them, and of shuffling."""
    of_operators, shuffled = mx.nd.random.uniform(), mx.nd.random.shuffle(mx.nd.arange(16))
    return (*of_operators.asnumpy().tolist(), *shuffled.asnumpy().tolist())


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
