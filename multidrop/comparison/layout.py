"""In which order the elements of a model's tensors come: of images with the channels first or last, and of what was
flattened likewise.

A model does not tell, for it may join, pool and flatten images by functions of its own. So it is run once with weights
that tell the channels apart and are the same at all places: each layer then gives a number of its own for each channel.
Where a tensor changes its value is where its channels change.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from .parts import BIAS, CONVOLUTION, DENSE, EMBEDDING, KERNEL, NORM, NORM_WEIGHTS, Array, Part, Point

GOLDEN = (5**0.5 - 1) / 2
TOLERANCE = 1e-2  # of a value, below which it did not change but for rounding


def codes(count: int, number: int) -> Array:
    """Numbers for the channels of the layer of that number, in [0.25, 0.75), each far from the next one."""
    return 0.25 + 0.5 * ((np.arange(count) + 7 * number) * GOLDEN % 1)


def coded(parts: Iterable[Part], weights: dict[tuple[str, str], Array]) -> dict[tuple[str, str], Array]:
    """Weights by which each layer gives codes: from its biases alone, or without those, from the mean of what it gets.

    Args:
        parts: the layers with weights.
        weights: their weights, in the model's own layout.

    Returns:
        Those that change.
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
    """A batch like X with codes for its channels, where the model takes images with the channels first or last; of
    integers, X itself."""
    if X.dtype.kind != "f":
        return X
    if X.ndim < 3 or channels_last is None:
        return np.ones_like(X)
    axis = -1 if channels_last else 1
    shape = [1] * X.ndim
    shape[axis] = X.shape[axis]
    return np.broadcast_to(codes(X.shape[axis], 0).astype(X.dtype).reshape(shape), X.shape).copy()


class Layout:
    """Brings a model's tensors into the common layout.

    Args:
        points: what went through the layers of a run with `coded` weights.
        output: what the model gave.
        channels_first: how many dimensions images with the channels first have in the model; 0 where it takes none.
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
        """How many channels come before the places; 0 where they do not."""
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
        # All the same, or of something that tells the places apart too: as another tensor of that shape.
        return self._seen.get(x.shape, x.shape[1] if x.ndim == self._images and not varies else 0)

    def flattened(self, path: str) -> int:
        """How many channels come first in each example that a layer gets, flattened; 0 where they do not."""
        return self._first.get((path, 0), (0, 0))[0]

    def input(self, path: str, call: int, x: Array) -> Array:
        """What a layer got, in the common layout; or what has the same order, as its mask."""
        return channels_last(x, self._first.get((path, call), (0, 0))[0])

    def output(self, path: str, call: int, x: Array) -> Array:
        """What a layer gave, in the common layout."""
        return channels_last(x, self._first.get((path, call), (0, 0))[1])

    def result(self, x: Array) -> Array:
        """What the model gave, in the common layout."""
        return channels_last(x, self._output)


def channels_last(x: Array, first: int) -> Array:
    """A batch of images, or of flattened ones, of which so many channels come first, with the channels last."""
    if not first:
        return x
    if x.ndim > 2:
        return np.moveaxis(x, 1, -1)
    return x.reshape(len(x), first, -1).swapaxes(1, 2).reshape(x.shape)


def common(part: Part, name: str, value: Array, flattened: int) -> Array:
    """A weight in the common layout, of a layer that gets so many channels first."""
    value = value.transpose(part.weights[name])
    if part.kind == DENSE and name == KERNEL and flattened:
        size, outputs = value.shape
        value = value.reshape(flattened, -1, outputs).swapaxes(0, 1).reshape(size, outputs)
    return value


def own(part: Part, name: str, value: Array, flattened: int) -> Array:
    """A weight of the common layout in the model's own."""
    if part.kind == DENSE and name == KERNEL and flattened:
        size, outputs = value.shape
        value = value.reshape(size // flattened, flattened, outputs).swapaxes(0, 1).reshape(size, outputs)
    return value.transpose(np.argsort(part.weights[name]))
