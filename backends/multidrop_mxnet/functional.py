"""Functions on MXNet arrays, of its NumPy interface (`mx.np`) and of its classic one (`mx.nd`)."""

from __future__ import annotations

import atexit
import ctypes
from collections.abc import Sequence
from typing import Any, TypeAlias

import mxnet as mx
import numpy as np
import numpy.typing as npt
from mxnet.base import _LIB, check_call

from multidrop import checks, kernel
from multidrop.kernel import memory
from multidrop.keys import Key, as_key, call_key

NAME = "mxnet"

# At exit MXNet ends the threads that run a Function's backward, and then waits, forever, for those still queued.
atexit.register(mx.nd.waitall)

Array: TypeAlias = mx.nd.NDArray
"""Either kind of array: `mx.np.ndarray` is a subclass."""


def tensor(data: Any, dtype: str | None = None) -> Array:
    """An array of host data: of `dtype`, or else of the type that `mx.np.array` gives it (a NumPy array's own; float32
    for lists and numbers). An array of MXNet that is of that type already is given back."""
    if isinstance(data, mx.nd.NDArray):
        return data if dtype is None else data.astype(dtype, copy=False)
    return mx.np.array(data, dtype)


def to_numpy(tensor: Array) -> npt.NDArray[Any]:
    """An array's values on the host."""
    return tensor.asnumpy()


def draw_key() -> Key:
    """A key from MXNet's generator, the one that `mx.random.seed` seeds."""
    low, high = mx.np.random.randint(0, 2**32, size=2, dtype="int64").tolist()
    return Key(low | high << 32)


def dropout_layer(X: Array, dropout: float, key: int | Key | None = None, *, start: int = 0) -> Array:
    """`multidrop.dropout_layer` for arrays, differentiable once.

    Args:
        X: array of either kind, any shape and context; float16, float32 or float64.
        dropout: p, in [0, 1].
        key: what names the mask; without one, the next after `multidrop.manual_seed`, or one from MXNet's generator.
        start: the index of X's first element.

    Returns:
        An array of X's kind, shape, type and context; X itself at p = 0, or where it is empty.

    Raises:
        ValueError: for a bad probability, key or start.
        TypeError: for an array that is not floating.
    """
    X = tensor(X)
    check_floating(X)
    p = checks.probability("dropout", dropout)
    key = (call_key(NAME) or draw_key()) if key is None else as_key(key)
    return masked(X, p, key, checks.span(start, X.size))


def check_floating(X: Array) -> None:
    """TypeError where X is not of a floating type, with MXNet's remedy."""
    checks.floating(np.dtype(X.dtype).name, 'X.astype("float32")')


def keep_mask(
    shape: int | Sequence[int], dropout: float, key: int | Key, start: int = 0, ctx: mx.Context | None = None
) -> mx.np.ndarray:
    """`multidrop.keep_mask` as a bool array on `ctx`, by default MXNet's current context."""
    return mx.np.array(kernel.keep_mask(shape, dropout, key, start), "bool", ctx=ctx)


def masked(X: Array, p: float, key: Key, start: int = 0) -> Array:
    """X through the mask of `key`: `dropout_layer` after its checks."""
    if p == 0.0 or X.size == 0:
        return X
    if not mx.autograd.is_recording():
        return _drop(X, p, key, start)
    recording = mx.autograd.is_recording()
    try:
        with mx.util.np_shape(True):  # without it, () means an unknown shape
            return _Masked(p, key, start)(X.reshape((-1,))).reshape(X.shape)
    finally:
        mx.autograd.set_recording(recording)  # which a Function whose forward raises leaves switched off


class _Masked(mx.autograd.Function):
    """The gradient of a dropout is the same dropout of the gradient, so that the backward pass keeps p and the key
    and nothing else.

    It takes and gives flat arrays. The reshapes around it, which copy nothing, keep from it what a Function gets wrong:
    it cannot write the gradient of a scalar, and forgets one that is to be added to what is there (`grad_req="add"`).
    """

    def __init__(self, p: float, key: Key, start: int) -> None:
        super().__init__()
        self.arguments = p, key, start

    def forward(self, X: Array) -> Array:
        return _drop(X, *self.arguments)

    backward = forward


def _drop(X: Array, p: float, key: Key, start: int) -> Array:
    """X through the mask of `key`, without a gradient; of X's kind."""
    with mx.util.np_shape(True):  # without it, () means an unknown shape
        drop = _drop_on_host if X.ctx.device_type == "cpu" else _drop_on_device
        Y = drop(X, p, key, start)
        return Y.as_np_ndarray() if isinstance(X, mx.np.ndarray) else Y


def _drop_on_host(X: Array, p: float, key: Key, start: int) -> mx.nd.NDArray:
    """The fused kernel on the array's own memory."""
    X.wait_to_read()
    if X.size * np.dtype(X.dtype).itemsize < memory.LARGE:
        Y = mx.nd.empty(X.shape, X.ctx, X.dtype)
    else:
        Y = mx.nd.from_numpy(memory.empty(X.shape, X.dtype), zero_copy=True)
    kernel.drop(_address(X), _address(Y), X.size, np.dtype(X.dtype).name, p, key, start)
    return Y


def _address(array: Array) -> int:
    pointer = ctypes.c_void_p()
    check_call(_LIB.MXNDArrayGetData(array.handle, ctypes.byref(pointer)))
    return pointer.value or 0


def _drop_on_device(X: Array, p: float, key: Key, start: int) -> mx.nd.NDArray:
    """By way of the host."""
    return mx.nd.from_numpy(kernel.dropout(X.asnumpy(), p, key, start), zero_copy=False).as_in_context(X.ctx)
