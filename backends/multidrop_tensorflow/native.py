"""The fused kernel as an operator of TensorFlow's graphs, `MultidropDropout`.

TensorFlow takes operators by its C interface, and so from Python: the kernel's functions are called back, as those of
`tf.numpy_function` are, but with the tensors' own memory. For a tensor that one thread computes to call Python takes
longer than the rest: once the kernel is compiled, such a tensor goes without (see `compiled`). A program that contains
the operator runs where this module has been imported.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from contextlib import suppress
from ctypes import CFUNCTYPE, POINTER, byref, c_char_p, c_int, c_int64, c_void_p, cast
from functools import cache
from typing import Any

import numpy as np
import tensorflow as tf

from multidrop import kernel, masks
from multidrop.masks import Mask

from .ops import key_of

OP = "MultidropDropout"


@cache
def available() -> bool:
    """Whether graphs may hold the operator: it is registered, and all devices are hosts, as its kernel is."""
    others = tf.config.list_physical_devices("GPU") or tf.config.list_physical_devices("TPU")
    return bool(_registered) and not others


def dropout(X: tf.Tensor, mask: Mask) -> tf.Tensor:
    """A node of the graph that is being traced.

    Args:
        X: float16, bfloat16, float32 or float64, of any shape.
        mask: its mask, with a position for its key, and not shared along axes.
    """
    _compiled_kernel()
    value = tf.compat.v1.AttrValue
    node = tf.compat.v1.get_default_graph().create_op(
        OP,
        [X, mask.key],
        [X.dtype],
        attrs={
            "T": value(type=X.dtype.as_datatype_enum),
            "p": value(i=int(np.float64(mask.p).view(np.int64))),
            "start": value(i=int(np.uint64(mask.start).view(np.int64))),
        },
    )
    return node.outputs[0]


@tf.RegisterGradient(OP)
def _gradient(node: tf.Operation, dY: tf.Tensor) -> list[tf.Tensor | None]:
    """The same dropout of the gradient."""
    p, start = np.int64(node.get_attr("p")).view(np.float64), np.int64(node.get_attr("start")).view(np.uint64)
    return [dropout(dY, Mask(float(p), node.inputs[1], int(start))), None]


# Below: TensorFlow's C interface (tensorflow/c/ops.h, kernels.h). Handles are pointers to what it does not tell.

_CREATE = CFUNCTYPE(c_void_p, c_void_p)
_COMPUTE = CFUNCTYPE(None, c_void_p, c_void_p)
_DELETE = CFUNCTYPE(None, c_void_p)
_INFER = CFUNCTYPE(None, c_void_p, c_void_p)
_INVALID_ARGUMENT = 3


class _Library:
    """The functions that are used, each with its types."""

    def __init__(self) -> None:
        name = next(flag[3:] for flag in tf.sysconfig.get_link_flags() if flag.startswith("-l:"))
        library = self._library = ctypes.CDLL(os.path.join(tf.sysconfig.get_lib(), name))

        def function(name: str, result: Any, *arguments: Any) -> Callable[..., Any]:
            found = getattr(library, "TF_" + name)
            found.restype, found.argtypes = result, arguments
            return found

        pointer, out = c_void_p, POINTER(c_void_p)
        self.new_status = function("NewStatus", pointer)
        self.code = function("GetCode", c_int, pointer)
        self.message = function("Message", c_char_p, pointer)
        self.set_status = function("SetStatus", None, pointer, c_int, c_char_p)
        self.delete_status = function("DeleteStatus", None, pointer)
        self.new_op = function("NewOpDefinitionBuilder", pointer, c_char_p)
        self.add_attr = function("OpDefinitionBuilderAddAttr", None, pointer, c_char_p)
        self.add_input = function("OpDefinitionBuilderAddInput", None, pointer, c_char_p)
        self.add_output = function("OpDefinitionBuilderAddOutput", None, pointer, c_char_p)
        self.set_shape_function = function("OpDefinitionBuilderSetShapeInferenceFunction", None, pointer, _INFER)
        self.register_op = function("RegisterOpDefinition", None, pointer, pointer)
        self.new_shape = function("NewShapeHandle", pointer)
        self.delete_shape = function("DeleteShapeHandle", None, pointer)
        self.input_shape = function("ShapeInferenceContextGetInput", None, pointer, c_int, pointer, pointer)
        self.set_output_shape = function("ShapeInferenceContextSetOutput", None, pointer, c_int, pointer, pointer)
        self.new_kernel = function("NewKernelBuilder", pointer, c_char_p, c_char_p, _CREATE, _COMPUTE, _DELETE)
        self.register_kernel = function("RegisterKernelBuilder", None, c_char_p, pointer, pointer)
        self.attr_int = function(
            "OpKernelConstruction_GetAttrInt64", None, pointer, c_char_p, POINTER(c_int64), pointer
        )
        self.attr_type = function("OpKernelConstruction_GetAttrType", None, pointer, c_char_p, POINTER(c_int), pointer)
        self.input = function("GetInput", None, pointer, c_int, out, pointer)
        self.output = function(
            "ForwardInputOrAllocateOutput",
            *(pointer, pointer, POINTER(c_int), c_int, c_int, POINTER(c_int64), c_int, POINTER(c_int), pointer),
        )
        self.data = function("TensorData", pointer, pointer)
        self.count = function("TensorElementCount", c_int64, pointer)
        self.num_dims = function("NumDims", c_int, pointer)
        self.dim = function("Dim", c_int64, pointer, c_int)
        self.delete_tensor = function("DeleteTensor", None, pointer)
        self.priority = function("KernelBuilder_Priority", None, pointer, c_int)
        self.fail = function("OpKernelContext_Failure", None, pointer, pointer)

    def address(self, name: str) -> int:
        """Where a function is."""
        return cast(getattr(self._library, "TF_" + name), c_void_p).value or 0

    def check(self, status: int) -> None:
        """ValueError with what a call said, where it failed."""
        if self.code(status):
            raise ValueError(self.message(status).decode())


_registered: list[Any] = []  # what C holds on to, and Python must not let go of


def _register() -> None:
    """The operator, and its kernel in Python."""
    tfc = _Library()
    settings: dict[int, _Settings] = {}  # of each kernel, by its name for TensorFlow

    @_INFER
    def infer_shape(context: int, status: int) -> None:
        shape = tfc.new_shape()
        tfc.input_shape(context, 0, shape, status)
        tfc.set_output_shape(context, 0, shape, status)
        tfc.delete_shape(shape)

    @_CREATE
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

    @_COMPUTE
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
            # Over X, where nothing else reads it.
            tensors.append(tfc.output(context, (c_int * 1)(0), 1, 0, shape, rank, byref(c_int()), status))
            tfc.check(status)
            if size := tfc.count(X):
                of = settings[number]
                key = key_of(np.ctypeslib.as_array((c_int64 * 3).from_address(tfc.data(position))))
                kernel.drop(tfc.data(X), tfc.data(tensors[2]), size, of.dtype, of.p, key, of.start)
        except Exception as error:  # C cannot hear it; TensorFlow raises it where the program was run
            tfc.set_status(status, _INVALID_ARGUMENT, f"{type(error).__name__}: {error}".encode())
            tfc.fail(context, status)
        finally:
            for tensor in tensors:
                tfc.delete_tensor(tensor)
            tfc.delete_status(status)

    @_DELETE
    def delete(number: int) -> None:
        settings.pop(number, None)

    def register_kernel(compute: Any, priority: int) -> None:
        status = tfc.new_status()
        builder = tfc.new_kernel(OP.encode(), b"CPU", create, compute, delete)
        tfc.priority(builder, priority)
        tfc.register_kernel(OP.encode(), builder, status)
        tfc.check(status)
        tfc.delete_status(status)

    status = tfc.new_status()
    op = tfc.new_op(OP.encode())
    tfc.add_attr(op, b"T: {half, bfloat16, float, double}")
    tfc.add_attr(op, b"p: int")  # the bits of a float64, which attributes are not
    tfc.add_attr(op, b"start: int")
    tfc.add_input(op, b"x: T")
    tfc.add_input(op, b"position: int64")
    tfc.add_output(op, b"y: T")
    tfc.set_shape_function(op, infer_shape)
    tfc.register_op(op, status)
    tfc.check(status)
    tfc.delete_status(status)
    register_kernel(compute, 0)
    _registered.extend((infer_shape, create, compute, delete, register_kernel))


class _Settings:
    """What a kernel computes with, and the table of it for the compiled function."""

    def __init__(self, dtype: str, p: float, start: int, tfc: _Library, rest: Any) -> None:
        from . import compiled

        self.dtype, self.p, self.start = dtype, p, start
        self.table = np.zeros(compiled.WORDS, np.int64)
        self.address = self.table.ctypes.data
        words, numbers = self.table.view(np.uint64), self.table.view(np.float64)
        words[compiled.LOOP] = kernel.drop_entry(dtype).address
        words[compiled.KIND] = {"float32": compiled.FLOAT, "float64": compiled.DOUBLE}.get(dtype, compiled.BITS)
        words[compiled.THRESHOLD], words[compiled.START] = masks.threshold(p), start
        numbers[compiled.SCALE], numbers[compiled.FLOOR] = masks.scale(p, dtype), -np.inf
        words[compiled.LIMIT] = 2 * kernel.GRAIN
        words[compiled.REST], words[compiled.NUMBER] = cast(rest, c_void_p).value, self.address
        words[9:] = [tfc.address(name) for name in compiled.FUNCTIONS]


@cache
def _compiled_kernel() -> None:
    """Has TensorFlow prefer the compiled function from here on: not on import, which is to leave Numba alone."""
    from . import compiled

    *_, register_kernel = _registered
    register_kernel(_COMPUTE(compiled.compute.address), 1)


with suppress(AttributeError, OSError, StopIteration):  # of a TensorFlow that keeps its interface elsewhere
    _register()
