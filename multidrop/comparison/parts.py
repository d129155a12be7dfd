"""What a model is made of, as a comparison sees it: layers with weights, the dropouts between them, and what went
through each, in one layout for all frameworks.

The common layout is that of channels last: weights are (inputs, outputs), of convolutions (*window, inputs, outputs),
activations (n, …, channels).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

DENSE, CONVOLUTION, NORM, EMBEDDING, DROPOUT = "dense", "convolution", "norm", "embedding", "dropout"

KERNEL, BIAS = "kernel", "bias"
NORM_WEIGHTS = ("gamma", "beta", "running mean", "running variance")


class Part(NamedTuple):
    """A layer with weights."""

    path: str
    kind: str
    """One of those above, or the name of its class."""
    weights: Mapping[str, tuple[int, ...]]
    """Its weights by their common names, each with the axes by which its transpose is in the common layout."""
    activation: str | None = None
    """What it applies itself to what it gives."""


class Point(NamedTuple):
    """A layer as it was called, in the framework's own layout."""

    path: str
    kind: str
    input: Array
    output: Array
    channels_last: bool = True


class Layout:
    """Brings activations and weights of one model into the common layout, layer by layer in the order in which it runs.

    Where a model holds the channels of images first, a tensor that was flattened has its elements in another order, and
    so have the weights of the dense layer that takes it. What is flattened is not seen, but its channels are: those of
    the last convolution.
    """

    def __init__(self) -> None:
        self._channels = 1  # of images that come with the channels first; 1 where none do

    def activations(self, point: Point) -> tuple[Array, Array]:
        """A point's input and output."""
        if point.kind in (CONVOLUTION, NORM) and point.input.ndim > 2:
            self._channels = 1 if point.channels_last else point.input.shape[1]
        elif point.kind in (DENSE, EMBEDDING) and point.input.ndim > 2:
            self._channels = 1  # of a sequence, whose features are last
        given = self.array(point.input)
        if point.kind in (DENSE, EMBEDDING):
            self._channels = 1
        elif point.kind == CONVOLUTION and not point.channels_last:
            self._channels = point.output.shape[1]
        return given, self.array(point.output)

    def array(self, x: Array) -> Array:
        """An array that lies as the activations of the last point do."""
        if self._channels == 1:
            return x
        if x.ndim > 2:
            return np.moveaxis(x, 1, -1) if x.shape[1] == self._channels else x
        return _channels_last(x, self.flattened(x.shape[-1]), axis=-1)

    def flattened(self, size: int) -> int:
        """How many channels come first in the `size` elements of an example; 1 where they are not flattened."""
        return self._channels if size % self._channels == 0 else 1


def common(part: Part, name: str, value: Array, flattened: int) -> Array:
    """A weight in the common layout."""
    value = value.transpose(part.weights[name])
    if part.kind == DENSE and name == KERNEL:
        value = _channels_last(value, flattened, axis=0)
    return value


def own(part: Part, name: str, value: Array, flattened: int) -> Array:
    """A weight of the common layout in the model's own."""
    if part.kind == DENSE and name == KERNEL and flattened > 1:
        size, outputs = value.shape
        value = value.reshape(size // flattened, flattened, outputs).swapaxes(0, 1).reshape(size, outputs)
    return value.transpose(np.argsort(part.weights[name]))


def _channels_last(x: Array, channels: int, axis: int) -> Array:
    """Elements along an axis, (channels, places) one after the other, as (places, channels)."""
    if channels == 1:
        return x
    x = np.moveaxis(x, axis, 0)
    rest = x.shape[1:]
    x = x.reshape(channels, -1, *rest).swapaxes(0, 1).reshape(-1, *rest)
    return np.moveaxis(x, 0, axis)


def first_tensor(output: Any, types: tuple[type, ...]) -> Any:
    """The first tensor of what a model gives: itself, or of a tuple, list or mapping.

    Raises:
        TypeError: where there is none.
    """
    found = next(_tensors(output, types), None)
    if found is None:
        raise TypeError(f"model: expected one that gives a tensor, or several; got {type(output).__name__}")
    return found


def _tensors(output: Any, types: tuple[type, ...]) -> Iterator[Any]:
    if isinstance(output, types):
        yield output
    elif isinstance(output, Mapping):
        yield from _tensors(list(output.values()), types)
    elif isinstance(output, Iterable) and not isinstance(output, str):
        for value in output:
            yield from _tensors(value, types)
