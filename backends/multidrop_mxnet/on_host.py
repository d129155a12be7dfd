"""Runs dropout on the memory of an array, by address: for arrays on the CPU context."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from typing import Any

import mxnet as mx
import numpy as np
import numpy.typing as npt

from multidrop import host
from multidrop.host import memory
from multidrop.spec.keys import Key
from multidrop.spec.masks import Mask

from .internals import Array, address_of, empty, name_of, wait_to_write


def dropped(
    kind: type[Array], X: Array, shape: tuple[int, ...], place: tuple[int, int], mask: Mask, relu: bool
) -> Array:
    """Applies a mask to X, or to max(X, 0), in a new array of a kind."""
    name = name_of(X)
    Y = _new(kind, shape, name, place)
    drop(X, Y, math.prod(shape), name, mask, relu)
    return Y


def drop(X: Array, Y: Array, size: int, name: str, mask: Mask, relu: bool = False) -> None:
    """Applies a mask to X, or to max(X, 0), and writes the result to Y."""
    X.wait_to_read()
    p, key, start, axes = mask
    if axes:
        host.dropout(_view(X), p, key, start, _view(Y), axes=axes, relu=relu)
        return
    host.drop(address_of(X), address_of(Y), size, name, p, key, start, relu=relu)


def computed(
    kind: type[Array],
    X: Array,
    shape: tuple[int, ...],
    place: tuple[int, int],
    function: Callable[[npt.NDArray[Any]], npt.NDArray[Any]],
) -> Array:
    """Applies a NumPy function that keeps shape and type to X, in a new array of a kind."""
    X.wait_to_read()
    Y = _new(kind, shape, name_of(X), place)
    np.copyto(_view(Y), function(_view(X)))
    return Y


def relu_gradient(dY: Array, Y: Array, p: float, target: Array) -> None:
    """Writes the gradient of a `drop` with ReLU, whose output is Y, to `target`."""
    dY.wait_to_read()
    host.gate(address_of(dY), address_of(target), Y.size, name_of(Y), p, address_of(Y))


def take(stream: Array) -> Key:
    """Reads the key at a stream's position, and moves the stream on by one call."""
    wait_to_write(stream)
    return host.take(address_of(stream))


def _new(kind: type[Array], shape: tuple[int, ...], name: str, place: tuple[int, int]) -> Array:
    dtype = np.dtype(name)
    if math.prod(shape) * dtype.itemsize >= memory.LARGE:
        Y = mx.nd.from_numpy(memory.empty(shape, dtype), zero_copy=True)
        return Y if kind is mx.nd.NDArray else Y.as_np_ndarray()
    return empty(kind, shape, name, place)


def _view(X: Array) -> npt.NDArray[Any]:
    """A NumPy array on an array's memory."""
    dtype = np.dtype(X.dtype)
    memory = (ctypes.c_byte * (X.size * dtype.itemsize)).from_address(address_of(X))
    return np.frombuffer(memory, dtype).reshape(X.shape)
