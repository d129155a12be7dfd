"""The fused kernel as an operator of TensorFlow's graphs, `MultidropDropout`.

TensorFlow's C interface registers operators, from Python too: TensorFlow calls the kernel's Python function back, as
`tf.numpy_function` does, but with the tensors' own memory. For a tensor that one thread computes, that call would take
longer than the rest, so a compiled function computes those without Python (see `compiled`). A program that contains the
operator runs in any process that has imported this module.
"""

from __future__ import annotations

import atexit
import itertools
import os
import time
from ctypes import byref, c_int, c_int64, c_void_p, cast
from functools import cache
from typing import Any

import numpy as np
import tensorflow as tf

from multidrop import host, streams
from multidrop.host.objects import library
from multidrop.spec import masks
from multidrop.spec.masks import Mask

from . import internals
from .c_interface import COMPUTE, CREATE, DELETE, INFER, INVALID_ARGUMENT, Interface, words
from .compiled import layout
from .position import key_of

OP = "MultidropDropout"
_ENTRIES = "multidrop_tensorflow.compiled.entries"


@cache
def available() -> bool:
    """Whether graphs may hold the operator: it is registered, and there is no device but the CPU, which its kernel is
    for."""
    others = tf.config.list_physical_devices("GPU") or tf.config.list_physical_devices("TPU")
    return bool(_registered) and not others


def dropout(X: tf.Tensor, mask: Mask) -> tf.Tensor:
    """Adds the operator to the graph that is being traced; its output.

    Args:
        X: float16, bfloat16, float32 or float64, of any shape.
        mask: its mask, with a position for its key, and not shared along axes.
    """
    _compiled_kernel()
    value = tf.compat.v1.AttrValue
    p, start = numbers_of(mask)
    node = tf.compat.v1.get_default_graph().create_op(
        OP,
        [X, mask.key],
        [X.dtype],
        attrs={"T": value(type=X.dtype.as_datatype_enum), "p": value(i=p), "start": value(i=start)},
    )
    Y = node.outputs[0]
    Y.set_shape(X.shape)
    return Y


def numbers_of(mask: Mask) -> tuple[int, int]:
    """A mask's p and start as signed 64-bit integers, which attributes can hold."""
    return int(np.float64(mask.p).view(np.int64)), int(np.uint64(mask.start).view(np.int64))


def mask_of(p: int, position: tf.Tensor, start: int) -> Mask:
    """The mask of a position and of what `numbers_of` gave."""
    return Mask(float(np.int64(p).view(np.float64)), position, int(np.int64(start).view(np.uint64)))


@tf.RegisterGradient(OP)
def _gradient(node: tf.Operation, dY: tf.Tensor) -> list[tf.Tensor | None]:
    """The same dropout of the gradient."""
    return [dropout(dY, mask_of(node.get_attr("p"), node.inputs[1], node.get_attr("start"))), None]


_shared = np.array([2 * host.GRAIN, 0])  # shared by all kernels: LIMIT and AT_REST of `compiled`


@atexit.register
def _leave_python() -> None:
    """Lets the compiled function compute tensors of any size. A TensorFlow thread that calls Python after Python is
    gone never returns, and the end of a dataset's iterator would wait for it for ever."""
    _shared[0] = np.iinfo(np.int64).max
    time.sleep(1e-3)  # until all cores see it
    while _shared[1]:
        time.sleep(1e-3)


def _after_fork() -> None:
    """Forgets the counted threads, which do not exist in the child."""
    _shared[1] = 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class _Settings:
    """The settings of a kernel, and their table for the compiled function."""

    def __init__(self, dtype: str, p: float, start: int, tfc: Interface, rest: Any) -> None:
        self.dtype, self.p, self.start = dtype, p, start
        self.table = np.zeros(layout.WORDS, np.int64)
        self.address = self.table.ctypes.data
        words, numbers = self.table.view(np.uint64), self.table.view(np.float64)
        words[layout.LOOP] = host.drop_entry(dtype)
        words[layout.THRESHOLD], words[layout.START] = masks.threshold(p), start
        numbers[layout.SCALE], numbers[layout.FLOOR] = masks.scale(p, dtype), -np.inf
        words[layout.SHARED] = _shared.ctypes.data
        words[layout.REST], words[layout.NUMBER] = cast(rest, c_void_p).value, self.address
        words[layout.FUNCTIONS_AT :] = [tfc.address(name) for name in layout.FUNCTIONS]


_registered: list[Any] = []  # callbacks that C holds; Python must keep them


def _register() -> None:
    """Registers the operator, and its kernel in Python."""
    tfc = Interface()
    settings: dict[int, _Settings] = {}  # of each kernel, by the number that TensorFlow knows it by

    @CREATE
    def create(construction: int) -> int:
        status = tfc.new_status()
        p, start, kind = c_int64(), c_int64(), c_int()
        tfc.attr_int(construction, b"p", byref(p), status)
        tfc.attr_int(construction, b"start", byref(start), status)
        tfc.attr_type(construction, b"T", byref(kind), status)
        tfc.delete_status(status)
        dtype, probability = tf.as_dtype(kind.value).name, float(np.int64(p.value).view(np.float64))
        made = _Settings(dtype, probability, start.value % 2**64, tfc, compute)
        settings[made.address] = made
        return made.address

    @COMPUTE
    def compute(number: int, context: int) -> None:
        status, tensors = tfc.new_status(), []
        try:
            for index in range(2):
                tensor = c_void_p()
                tfc.input(context, index, byref(tensor), status)
                tfc.check(status)
                tensors.append(tensor)
            X, position = tensors
            if tfc.count(position) != 3:
                raise ValueError(f"position: expected int64 of shape (3,); got {tfc.count(position)} elements")
            rank = tfc.num_dims(X)
            shape = (c_int64 * max(rank, 1))(*(tfc.dim(X, axis) for axis in range(rank)))
            # Written over X, if nothing else reads X.
            Y = tfc.output(context, (c_int * 1)(0), 1, 0, shape, rank, byref(c_int()), status)
            tfc.check(status)
            tensors.append(Y)
            if size := tfc.count(X):
                of, key = settings[number], key_of(words(tfc.data(position), 3))
                host.drop(tfc.data(X), tfc.data(Y), size, of.dtype, of.p, key, of.start)
        except BaseException as error:  # C has no exceptions; TensorFlow raises it from the call of the program
            tfc.set_status(status, INVALID_ARGUMENT, f"{type(error).__name__}: {error}".encode())
            tfc.fail(context, status)
        finally:
            for tensor in tensors:
                tfc.delete_tensor(tensor)
            tfc.delete_status(status)

    @DELETE
    def delete(number: int) -> None:
        settings.pop(number, None)

    status = tfc.new_status()
    op = tfc.new_op(OP.encode())
    tfc.add_attr(op, b"T: {half, bfloat16, float, double}")
    tfc.add_attr(op, b"p: int")  # the bits of a float64, since attributes have no doubles
    tfc.add_attr(op, b"start: int")
    tfc.add_input(op, b"x: T")
    tfc.add_input(op, b"position: int64")
    tfc.add_output(op, b"y: T")
    # A C function of TensorFlow, not a Python callback: TensorFlow Lite's converter infers shapes in another thread
    # while it holds the GIL, and a callback would wait for ever. `dropout` sets the shape.
    tfc.set_shape_function(op, INFER(tfc.address("ShapeInferenceContextSetUnknownShape")))
    # A stateful operator is not folded into a constant, which that converter would do by the Python kernel.
    tfc.set_stateful(op, True)
    tfc.register_op(op, status)
    tfc.check(status)
    tfc.delete_status(status)
    tfc.register(OP, create, compute, delete)
    _registered.extend((compute, tfc, create, delete))


_compiled = False
_priorities = itertools.count(1)


def _compiled_kernel() -> None:
    """Registers the compiled function, which TensorFlow prefers from here on. Not on import, which loads and compiles
    nothing."""
    global _compiled
    if _compiled:
        return
    address = library(_ENTRIES).address("compute")  # before the lock, since this takes another lock
    with streams.lock:
        if not _compiled:
            *_, tfc, create, delete = _registered
            # A higher priority for each attempt, since TensorFlow runs neither of two kernels of equal priority: an
            # exception from a signal handler may come between the registration and its note.
            tfc.register(OP, create, COMPUTE(address), delete, priority=next(_priorities))
            _compiled = True


try:
    _register()
except (AttributeError, OSError, StopIteration) as error:  # from a TensorFlow that keeps its interface elsewhere
    internals.warn(f"the C interface of operators ({error})", "traced programs draw their masks slowly")
