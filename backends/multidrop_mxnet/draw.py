"""Applies masks and noise to arrays on any device. Only this file chooses by device: arrays on the CPU context are
computed in place, in their own memory; others are copied to the host and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mxnet as mx
import numpy as np
import numpy.typing as npt

from multidrop import host
from multidrop.spec.keys import Key
from multidrop.spec.masks import Mask

from . import on_host
from .internals import Array, name_of, place_of

_CPU = mx.Context.devstr2type["cpu"]

Function = Callable[[npt.NDArray[Any]], npt.NDArray[Any]]


def drop(X: Array, mask: Mask, relu: bool = False) -> Array:
    """Applies a mask to X, or to max(X, 0), without a gradient.

    Returns:
        A new array of X's kind, shape, type and context; X itself if it is empty.
    """
    kind = _kind(X)
    with mx.util.np_shape(True):  # without it, () means an unknown shape
        shape, place = X.shape, place_of(X)
        if 0 in shape:
            return X
        if place[0] == _CPU:
            return on_host.dropped(kind, X, shape, place, mask, relu)
        return _brought(_dropped(X, mask, relu), X, kind)


def computed(X: Array, function: Function) -> Array:
    """Applies a NumPy function that keeps shape and type to X. Returns as `drop`."""
    kind = _kind(X)
    with mx.util.np_shape(True):
        shape, place = X.shape, place_of(X)
        if 0 in shape:
            return X
        if place[0] == _CPU:
            return on_host.computed(kind, X, shape, place, function)
        return _brought(function(X.asnumpy()), X, kind)


def assign(target: Array, request: str, X: Array, mask: Mask) -> None:
    """Applies a mask to X, and writes or adds the result to `target`, as `request` says."""
    if request == "null" or X.size == 0:
        return
    if request == "add":
        target[:] = target + drop(X, mask)
    elif _in_host_memory(X):
        on_host.drop(X, target, X.size, name_of(X), mask)
    else:
        assign_values(target, request, _dropped(X, mask))


def assign_relu_gradient(target: Array, request: str, dY: Array, Y: Array, p: float) -> None:
    """Writes or adds the gradient of a `drop` with ReLU, whose output is Y."""
    if request == "null" or Y.size == 0:
        return
    if request != "add" and _in_host_memory(Y):
        on_host.relu_gradient(dY, Y, p, target)
    else:
        assign_values(target, request, host.relu_gradient(dY.asnumpy(), Y.asnumpy(), p))


def assign_values(target: Array, request: str, values: npt.NDArray[Any]) -> None:
    """Writes or adds a NumPy array."""
    if request != "null" and values.size:
        source = _brought(values, target)
        target[:] = target + source if request == "add" else source


def take(stream: Array) -> Key:
    """Reads the key at the position that an array holds, and moves the array on by one call."""
    if _in_host_memory(stream):
        return on_host.take(stream)
    words = stream.asnumpy().view(np.uint64)
    key = Key(*map(int, words))
    words[1:] += np.uint64(1)  # from 2^64 − 1 to 0
    assign_values(stream.as_nd_ndarray(), "write", words.view(np.int64))
    return key


def _in_host_memory(X: Array) -> bool:
    return place_of(X)[0] == _CPU


def _kind(X: Array) -> type[Array]:
    return mx.np.ndarray if isinstance(X, mx.np.ndarray) else mx.nd.NDArray


def _dropped(X: Array, mask: Mask, relu: bool = False) -> npt.NDArray[Any]:
    return host.dropout(X.asnumpy(), mask.p, mask.key, mask.start, axes=mask.axes, relu=relu)


def _brought(values: npt.NDArray[Any], X: Array, kind: type[Array] = mx.nd.NDArray) -> Array:
    """Copies a NumPy array to X's context, as an array of a kind."""
    Y = mx.nd.from_numpy(values, zero_copy=False).as_in_context(X.ctx)
    return Y if kind is mx.nd.NDArray else Y.as_np_ndarray()
