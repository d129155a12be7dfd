"""Finds the order of the elements in a model's tensors: channels first or last, in images and after flattening.

A model does not declare its layout, because it may join, pool and flatten images with its own functions. So it is run
once with weights that are constant over positions and give each channel a code, a different number. Wherever the values
of a tensor change along an axis, its channels change.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from .parts import BIAS, CONVOLUTION, DENSE, EMBEDDING, KERNEL, NORM, NORM_WEIGHTS, Array, Part, Point

GOLDEN = (5**0.5 - 1) / 2
TOLERANCE = 1e-2  # smaller changes, relative to the largest value, are rounding


def codes(count: int, number: int) -> Array:
    """Codes for the channels of layer `number`: values in [0.25, 0.75), with neighbours far apart."""
    return 0.25 + 0.5 * ((np.arange(count) + 7 * number) * GOLDEN % 1)


def coded(parts: Iterable[Part], weights: dict[tuple[str, str], Array]) -> dict[tuple[str, str], Array]:
    """Weights with which each layer outputs codes: by its biases alone, or if it has none, by a multiple of the mean of
    its input.

    Args:
        parts: the layers with weights.
        weights: their weights, in the model's own layout.

    Returns:
        The weights to replace.
    """
    found = {}
    for number, part in enumerate(parts):
        gamma, beta = NORM_WEIGHTS[:2]
        factor, shift = (gamma, beta) if part.kind == NORM else (KERNEL, BIAS)
        factors, shifts = (weights.get((part.path, name)) for name in (factor, shift))
        if part.kind not in (DENSE, CONVOLUTION, EMBEDDING, NORM):
            continue
        if shifts is not None and shifts.ndim == 1:
            found[part.path, shift] = codes(shifts.size, number).astype(shifts.dtype)
            if factors is not None:
                found[part.path, factor] = np.zeros_like(factors)
        elif shifts is None and factors is not None and part.kind != NORM:
            axes = part.weights[factor]
            *window, inputs, outputs = (factors.shape[axis] for axis in axes)
            kernel = np.zeros((*window, inputs, outputs), factors.dtype)
            centre = tuple(size // 2 for size in window)
            kernel[centre] = codes(outputs, number) / (1 if part.kind == EMBEDDING else inputs)
            found[part.path, factor] = kernel.transpose(np.argsort(axes))
    return found


def coded_input(X: Array, channels_last: bool | None) -> Array:
    """A batch like X that holds the code of each channel. Ones, if X is not a batch of images; X itself, if it holds
    integers."""
    if X.dtype.kind != "f":
        return X
    if X.ndim < 3 or channels_last is None:
        return np.ones_like(X)
    axis = -1 if channels_last else 1
    shape = [1] * X.ndim
    shape[axis] = X.shape[axis]
    return np.broadcast_to(codes(X.shape[axis], 0).astype(X.dtype).reshape(shape), X.shape).copy()


class Layout:
    """Converts a model's tensors to the common layout.

    Args:
        points: the inputs and outputs of the layers in a run with `coded` weights.
        output: the model's output in that run.
        channels_first: the number of dimensions of channels-first images in the model; 0 if it takes none.
    """

    def __init__(self, points: Sequence[Point], output: Array, channels_first: int) -> None:
        self._images = channels_first
        self._seen: dict[tuple[int, ...], int] = {}
        self._first: dict[tuple[str, int], tuple[int, int]] = {}
        calls = Counter[str]()
        for point in points:
            known = point.kind in (CONVOLUTION, NORM) and point.input.ndim > 2
            first = tuple(
                (0 if point.channels_last else x.shape[1]) if known else self._channels_first(x)
                for x in (point.input, point.output)
            )
            self._seen |= {point.input.shape: first[0], point.output.shape: first[1]}
            self._first[point.path, calls[point.path]] = (first[0], first[1])
            calls[point.path] += 1
        self._output = self._channels_first(output)

    def _channels_first(self, x: Array) -> int:
        """The number of channels, if they come before the positions; else 0."""
        if x.ndim < 2 or x.dtype.kind != "f" or not x.size or not np.isfinite(x).all():
            return 0
        step = TOLERANCE * float(np.abs(x).max())
        if x.ndim == 2:
            edges = np.flatnonzero(np.abs(np.diff(x[0])) > step) + 1
            places = math.gcd(x.shape[1], *map(int, edges))
            return x.shape[1] // places if len(edges) and places > 1 else 0
        varies = [axis for axis in range(1, x.ndim) if (np.ptp(x, axis) > step).any()]
        if varies == [x.ndim - 1]:
            return 0
        if varies == [1]:
            return x.shape[1]
        # The tensor is constant, or varies over positions too: assume the layout of a tensor of the same shape.
        return self._seen.get(x.shape, x.shape[1] if x.ndim == self._images and not varies else 0)

    def flattened(self, path: str) -> int:
        """The number of channels in the flattened input of a layer, if they come before the positions; else 0."""
        return self._first.get((path, 0), (0, 0))[0]

    def input(self, path: str, call: int, x: Array) -> Array:
        """Converts a layer's input, or an array in the same order such as its mask, to the common layout."""
        return channels_last(x, self._first.get((path, call), (0, 0))[0])

    def output(self, path: str, call: int, x: Array) -> Array:
        """Converts a layer's output to the common layout."""
        return channels_last(x, self._first.get((path, call), (0, 0))[1])

    def result(self, x: Array) -> Array:
        """Converts the model's output to the common layout."""
        return channels_last(x, self._output)


def channels_last(x: Array, first: int) -> Array:
    """Moves the channels of a batch of images, flattened or not, to the end. `first` is the number of channels, or 0 if
    they come last already."""
    if not first:
        return x
    if x.ndim > 2:
        return np.moveaxis(x, 1, -1)
    return x.reshape(len(x), first, -1).swapaxes(1, 2).reshape(x.shape)


def common(part: Part, name: str, value: Array, flattened: int) -> Array:
    """Converts a weight to the common layout. `flattened` is `Layout.flattened` of its layer."""
    value = value.transpose(part.weights[name])
    if part.kind == DENSE and name == KERNEL and flattened:
        size, outputs = value.shape
        value = value.reshape(flattened, -1, outputs).swapaxes(0, 1).reshape(size, outputs)
    return value


def own(part: Part, name: str, value: Array, flattened: int) -> Array:
    """Converts a weight from the common layout to the model's own: the inverse of `common`."""
    if part.kind == DENSE and name == KERNEL and flattened:
        size, outputs = value.shape
        value = value.reshape(size // flattened, flattened, outputs).swapaxes(0, 1).reshape(size, outputs)
    return value.transpose(np.argsort(part.weights[name]))
