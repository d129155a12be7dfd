"""A layer as a comparison runs it: see `multidrop.comparison`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, ClassVar

import numpy as np

from multidrop.comparison import parts
from multidrop.comparison.parts import Part, Point
from multidrop.comparison.watch import Watcher, watched
from multidrop.spec.keys import Key
from multidrop.streams import keyless_position

from .functional import NAME
from .layers import Array, Layer, Linear, Random, named_layers
from .net import Net


class Probe:
    """Runs a layer, and has those within tell what goes through them. As a context it leaves the layer as it was, but
    for its weights."""

    def __init__(self, model: Layer) -> None:
        self.model = model
        self.layers = dict(named_layers(model))
        self.channels_last = None  # no layer here is of images
        dtypes = [w.dtype for w in self.read().values()]
        self.dtype = dtypes[0].name if dtypes else "float32"
        self._points: list[Point] = []

    def parts(self) -> list[Part]:
        """The layers with weights, in the order of their definition."""
        found: dict[str, dict[str, tuple[int, ...]]] = {}
        for (path, name), w in self.read().items():
            found.setdefault(path, {})[name] = tuple(range(w.ndim))
        return [Part(path, parts.DENSE, weights) for path, weights in found.items()]

    def dropouts(self) -> dict[str, Random]:
        """The dropout layers by path, in the order of their definition."""
        return {path: layer for path, layer in self.layers.items() if isinstance(layer, Random)}

    def key(self, path: str, key: Key | None) -> Key | None:
        """Has a dropout layer begin at a key, or follow NumPy's generator; gives where it stood."""
        layer = self.dropouts()[path]
        before = None if layer.stream is None else layer.stream.key
        layer._key_by(key)
        return before

    def __enter__(self) -> Probe:
        self._modes = {layer: layer.training for layer in self.layers.values()}
        self._stack = ExitStack()
        self._stack.enter_context(self.watch(self))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        for layer, mode in self._modes.items():
            layer.training = mode

    def watch(self, watcher: Watcher) -> AbstractContextManager[None]:
        """Reports each call of a layer to a watcher."""
        return watched(self.layers, ("forward", "after_relu"), watcher)

    def enter(self, path: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Changes nothing: see `Watcher.enter`."""
        return args, kwargs

    def leave(self, path: str, args: tuple[Any, ...], output: Any) -> Any:
        """Records the input and output of a layer: see `Watcher.leave`."""
        layer = self.layers[path]
        if path and isinstance(self.model, Net):  # which is compared as a whole
            return output
        kind = parts.DROPOUT if isinstance(layer, Random) else parts.DENSE if isinstance(layer, Linear) else None
        self._points.append(Point(path, kind or type(layer).__name__, args[0].copy(), output.copy()))
        return output

    def batch(self, X: Array) -> Array:
        """A NumPy array as the model takes it."""
        return X.astype(self.dtype)

    def forward(self, X: Array, training: bool) -> tuple[Array, list[Point]]:
        """The output for a batch, and what went through the layers, in the order in which they ran."""
        self._points.clear()
        self.model.train(training)
        return self.model(self.batch(X)), list(self._points)

    def backward(self, dY: Array) -> dict[tuple[str, str], Array]:
        """The gradients of the weights, by path and name, for that of the last output."""
        self.model.backward(dY.astype(self.dtype))
        return {name: layer.gradients[own] for name, layer, own in self._weights()}

    def read(self) -> dict[tuple[str, str], Array]:
        """Copies of the weights, by path and name."""
        return {name: layer.parameters[own].copy() for name, layer, own in self._weights()}

    def write(self, values: Mapping[tuple[str, str], Array]) -> None:
        """Gives weights new values."""
        for name, layer, own in self._weights():
            if name in values:
                layer.parameters[own][...] = values[name]

    # The methods below serve `multidrop.audit`; see `multidrop.protocol.Auditing`.

    tensors: ClassVar = (np.ndarray,)
    weights: ClassVar[tuple[type, ...]] = ()

    def built(self) -> bool:
        """Whether all weights have a shape."""
        return True

    def run(self, path: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Calls a layer in training mode."""
        return self.layers[path].train()(*args, **kwargs)

    def seed(self, number: int) -> None:
        """Seeds nothing: NumPy's generator is everyone's."""

    def drew(self) -> bool:
        """Whether anything was drawn from other generators since."""
        return False

    def symbolic(self, tensor: Array) -> bool:
        """Whether an array has no values."""
        return False

    def copy(self, tensor: Array) -> Array:
        """An array with memory of its own."""
        return tensor.copy()

    def same(self, a: Array, b: Array) -> bool:
        """Whether two arrays have equal values; NaN is equal to NaN."""
        return parts.equal(a, b)

    def assign(self, tensor: Array, values: Array) -> None:
        """Writes values into an array."""
        tensor[...] = values

    def generators(self) -> Callable[[], None]:
        """Puts other generators back to where they are now."""
        return lambda: None

    def state(self) -> Callable[[], None]:
        """Puts the stream of calls without a key back to where it is now."""
        calls = keyless_position(NAME)

        def back() -> None:
            keyless_position(NAME, calls)

        return back

    # The methods below serve `multidrop.mc_dropout`; see `multidrop.protocol.Sampling`.

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Puts the layers in evaluation mode; at the end, back in their own."""
        modes = {layer: layer.training for layer in self.layers.values()}
        self.model.eval()
        try:
            yield
        finally:
            for layer, mode in modes.items():
                layer.training = mode

    def evaluate(self, *inputs: Array) -> Array:
        """The output in evaluation mode."""
        return self.model(*inputs)

    def trains(self, path: str, kwargs: Mapping[str, Any]) -> bool:
        """Whether a call of a layer is in training mode."""
        return self.layers[path].training

    def _weights(self) -> Iterator[tuple[tuple[str, str], Layer, str]]:
        """Each weight's path and common name, the layer that holds it and its name there. Those of a `Net` are W1, b1
        and so on, as if it had layers."""
        for path, layer in self.layers.items():
            for own in layer.parameters:
                part = f"lin{own[1:]}" if isinstance(layer, Net) else path
                yield (part, {"W": parts.KERNEL, "b": parts.BIAS}.get(own[0], own)), layer, own
