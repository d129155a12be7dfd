"""What runs below autograd: a dropout on an array's own memory, its gradient, and the positions of streams.

An array holds a mask's name as a *position*, int64 (seed, call) in two's complement, since MXNet has no uint64.
"""

from __future__ import annotations

import atexit
import ctypes
import itertools
import math
import traceback
from collections.abc import Callable, Sequence
from ctypes import CFUNCTYPE, POINTER, c_int, c_int64, c_void_p
from functools import partial
from typing import Any, TypeAlias

import mxnet as mx
import numpy as np
import numpy.typing as npt
from mxnet.base import _LIB, MXCallbackList, NDArrayHandle, c_handle_array, check_call

from multidrop import host
from multidrop.host import memory
from multidrop.spec.keys import Key
from multidrop.spec.masks import Mask

# At exit MXNet ends the threads that run custom operators, and then waits, forever, for those still queued.
atexit.register(mx.nd.waitall)

Array: TypeAlias = mx.nd.NDArray
"""Either kind of array: `mx.np.ndarray` is a subclass."""

_NAMES = {0: "float32", 1: "float64", 2: "float16"}  # by the numbers that C knows types by
_CODES = {name: code for code, name in _NAMES.items()}
_CPU = mx.Context.devstr2type["cpu"]

# An array is asked by C what it is: its own attributes take two to six times as long, and all of them longer than a
# small dropout.


def name_of(X: Array) -> str:
    """The name of an array's type, or "" for one that dropout is not defined for."""
    code = c_int()
    check_call(_LIB.MXNDArrayGetDType(X.handle, ctypes.byref(code)))
    return _NAMES.get(code.value, "")


def _place_of(X: Array) -> tuple[int, int]:
    """An array's context: its kind and its number."""
    kind, number = c_int(), c_int()
    check_call(_LIB.MXNDArrayGetContext(X.handle, ctypes.byref(kind), ctypes.byref(number)))
    return kind.value, number.value


def drop(X: Array, mask: Mask, relu: bool = False) -> Array:
    """X, or max(X, 0), through a mask, without a gradient: a new array of X's kind; X itself where it is empty."""
    kind = mx.np.ndarray if isinstance(X, mx.np.ndarray) else mx.nd.NDArray
    with mx.util.np_shape(True):  # without it, () means an unknown shape
        shape, place = X.shape, _place_of(X)
        if 0 in shape:
            return X
        if place[0] != _CPU:
            return _as(kind, _drop_on_device(X, mask, relu))
        name = name_of(X)
        Y = _empty(kind, shape, name, place)
        _fused(Y, X, math.prod(shape), name, mask, relu)
        return Y


def through_host(X: Array, function: Callable[[npt.NDArray[Any]], npt.NDArray[Any]]) -> Array:
    """What a function of NumPy arrays gives for X, of its shape and type: a new array of X's kind and context; X itself
    where it is empty."""
    kind = mx.np.ndarray if isinstance(X, mx.np.ndarray) else mx.nd.NDArray
    with mx.util.np_shape(True):
        shape, place = X.shape, _place_of(X)
        if 0 in shape:
            return X
        if place[0] != _CPU:
            return _as(kind, mx.nd.from_numpy(function(X.asnumpy()), zero_copy=False).as_in_context(X.ctx))
        X.wait_to_read()
        Y = _empty(kind, shape, name_of(X), place)
        np.copyto(_view(Y), function(_view(X)))
        return Y


def assign_values(target: Array, request: str, values: npt.NDArray[Any]) -> None:
    """Writes or adds an array of NumPy's to `target`, as `request` says."""
    if request != "null" and values.size:
        source = mx.nd.from_numpy(values, zero_copy=False).as_in_context(target.ctx)
        target[:] = target + source if request == "add" else source


def _fused(Y: Array, X: Array, size: int, name: str, mask: Mask, relu: bool = False) -> None:
    """By the fused kernel, from address to address."""
    X.wait_to_read()
    p, key, start, axes = mask
    if axes:
        host.dropout(_view(X), p, key, start, _view(Y), axes=axes, relu=relu)
        return
    host.drop(_address(X), _address(Y), size, name, p, key, start, relu=relu)


def _empty(kind: type[Array], shape: tuple[int, ...], name: str, place: tuple[int, int]) -> Array:
    dtype = np.dtype(name)
    if math.prod(shape) * dtype.itemsize >= memory.LARGE:
        return _as(kind, mx.nd.from_numpy(memory.empty(shape, dtype), zero_copy=True))
    # As `mx.nd.empty` does, in a fifth of its time, which is that of a small dropout itself.
    handle, ndim = NDArrayHandle(), len(shape)
    sizes, code = (c_int64 * ndim)(*shape), _CODES[name]
    check_call(_LIB.MXNDArrayCreateEx64(sizes, ndim, *place, 0, code, ctypes.byref(handle)))
    return kind(handle)


def _as(kind: type[Array], array: mx.nd.NDArray) -> Array:
    return array if kind is mx.nd.NDArray else array.as_np_ndarray()


def _address(array: Array) -> int:
    pointer = c_void_p()
    check_call(_LIB.MXNDArrayGetData(array.handle, ctypes.byref(pointer)))
    return pointer.value or 0


def _view(X: Array) -> npt.NDArray[Any]:
    """An array's memory as NumPy has it."""
    dtype = np.dtype(X.dtype)
    memory = (ctypes.c_byte * (X.size * dtype.itemsize)).from_address(_address(X))
    return np.frombuffer(memory, dtype).reshape(X.shape)


def _drop_on_device(X: Array, mask: Mask, relu: bool = False) -> mx.nd.NDArray:
    """By way of the host."""
    Y = host.dropout(X.asnumpy(), mask.p, mask.key, mask.start, axes=mask.axes, relu=relu)
    return mx.nd.from_numpy(Y, zero_copy=False).as_in_context(X.ctx)


def recorded(X: Array, mask: Mask, relu: bool = False) -> Array:
    """`drop`, recorded for autograd. The gradient of a dropout is the same dropout of the gradient, so that the
    backward pass keeps the mask's name and nothing else; after a ReLU, it keeps the output."""
    with mx.autograd.pause(train_mode=mx.autograd.is_training()):
        Y = drop(X, mask, relu)
    if relu:  # detached, for the output itself holds what is recorded here
        return record(Y, [(X, partial(_assign_relu_gradient, Y=Y.detach().as_nd_ndarray(), p=mask.p))])
    return record(Y, [(X, partial(assign, mask=mask))])


Gradient: TypeAlias = Callable[[Array, str, Array], None]
"""What writes a gradient: (where to, how, as `_REQUESTS` says, and the gradient of the output)."""


def record(Y: Array, inputs: Sequence[tuple[Array, Gradient]]) -> Array:
    """Y, recorded for autograd as computed of `inputs`, each with what writes its gradient.

    It does what `mx.autograd.Function` does, whose gradient goes through a new array and cannot be added to what is
    there (`grad_req="add"`).
    """
    arrays = [X for X, _ in inputs]
    if any(Y is X for X in arrays):  # empty, and nothing to record
        return Y
    number = next(_numbers)
    states = (c_void_p * 2)(number, number)
    record = MXCallbackList(2, _CALLBACKS, ctypes.cast(states, POINTER(c_void_p)))
    _recorded[number] = [gradient for _, gradient in inputs], record
    check_call(
        _LIB.MXCustomFunctionRecord(len(arrays), c_handle_array(arrays), 1, c_handle_array([Y]), ctypes.byref(record))
    )
    return Y


_numbers = itertools.count(1)
_recorded: dict[int, tuple[list[Gradient], Any]] = {}  # what MXNet knows by number, until it forgets it


@CFUNCTYPE(c_int, c_int, c_int, POINTER(c_void_p), POINTER(c_int), c_int, c_void_p)
def _backward(_: int, __: int, handles: Any, requests: Any, ___: int, number: int) -> bool:
    try:
        gradients, _record = _recorded[number]
        dY, *targets = (
            mx.nd.NDArray(ctypes.cast(handles[i], mx.base.NDArrayHandle)) for i in range(1 + len(gradients))
        )
        with mx.util.np_shape(True):
            for index, (gradient, target) in enumerate(zip(gradients, targets, strict=True)):
                gradient(target, _REQUESTS[requests[index]], dY)
    except Exception:  # which C cannot hear; MXNet raises when it is told that there was one
        traceback.print_exc()
        return False
    return True


@CFUNCTYPE(c_int, c_void_p)
def _forget(number: int) -> bool:
    _recorded.pop(number, None)
    return True


_Callback: Any = CFUNCTYPE(c_int)
_callbacks = (_Callback * 2)(ctypes.cast(_backward, _Callback), ctypes.cast(_forget, _Callback))
_CALLBACKS = ctypes.cast(_callbacks, POINTER(_Callback))

_REQUESTS = ("null", "write", "inplace", "add")


def assign(target: Array, request: str, X: Array, mask: Mask) -> None:
    """X through the mask, written or added to `target`, as `request` says."""
    if request == "null" or X.size == 0:
        return
    if request == "add":
        target[:] = target + drop(X, mask)
    elif X.ctx.device_type == "cpu":
        _fused(target, X, X.size, name_of(X), mask)
    else:
        target[:] = _drop_on_device(X, mask)


def _assign_relu_gradient(target: Array, request: str, dY: Array, Y: Array, p: float) -> None:
    """The gradient of a `drop` with ReLU whose output is Y, likewise."""
    if request == "null" or Y.size == 0:
        return
    if request == "add" or Y.ctx.device_type != "cpu":
        dX = mx.nd.from_numpy(host.relu_gradient(dY.asnumpy(), Y.asnumpy(), p), zero_copy=False).as_in_context(Y.ctx)
        target[:] = target + dX if request == "add" else dX
    else:
        dY.wait_to_read()
        host.gate(_address(dY), _address(target), Y.size, name_of(Y), p, _address(Y))


def position_of(key: Key) -> Array:
    """A key as a position; an array of the kind that Gluon's parameters have now."""
    packed = mx.np.array(_words(key))
    return packed if mx.util.is_np_array() else packed.as_nd_ndarray()


def key_at(position: Array) -> Key:
    """The key that a position holds."""
    return Key(*map(int, position.asnumpy().view(np.uint64)))


def move(stream: Array, key: Key) -> None:
    """Sets the position that an array holds."""
    stream.as_nd_ndarray()[:] = position_of(key).as_nd_ndarray()


def next_key(stream: Array) -> Key:
    """The key at the position that an array holds, and moves it on by one call."""
    if stream.ctx.device_type != "cpu":  # by way of the host
        key = key_at(stream)
        move(stream, Key(key.seed, (key.call + 1) % 2**64))
        return key
    check_call(_LIB.MXNDArrayWaitToWrite(stream.handle))
    return host.take(_address(stream))


def _words(key: Key) -> npt.NDArray[np.int64]:
    return np.array([key.seed, key.call], np.uint64).view(np.int64)
