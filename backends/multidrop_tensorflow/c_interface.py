"""The part of TensorFlow's C interface (tensorflow/c/ops.h, kernels.h) that registers and runs an operator.

Handles are opaque pointers. Keep a reference to every callback: the C interface does not.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from ctypes import CFUNCTYPE, POINTER, c_bool, c_char_p, c_int, c_int64, c_void_p, cast
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

CREATE = CFUNCTYPE(c_void_p, c_void_p)
COMPUTE = CFUNCTYPE(None, c_void_p, c_void_p)
DELETE = CFUNCTYPE(None, c_void_p)
INFER = CFUNCTYPE(None, c_void_p, c_void_p)
INVALID_ARGUMENT = 3


class Interface:
    """The C functions that are used, with the types of their arguments and results.

    Raises:
        AttributeError, OSError, StopIteration: if this TensorFlow does not have them where they are expected.
    """

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
        self.set_shape_function = function("OpDefinitionBuilderSetShapeInferenceFunction", None, pointer, INFER)
        self.set_stateful = function("OpDefinitionBuilderSetIsStateful", None, pointer, c_bool)
        self.register_op = function("RegisterOpDefinition", None, pointer, pointer)
        self.new_kernel = function("NewKernelBuilder", pointer, c_char_p, c_char_p, CREATE, COMPUTE, DELETE)
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
        """The address of a function."""
        return cast(getattr(self._library, "TF_" + name), c_void_p).value or 0

    def check(self, status: int) -> None:
        """Raises a ValueError with the message of a failed call."""
        if self.code(status):
            raise ValueError(self.message(status).decode())

    def register(self, op: str, create: Any, compute: Any, delete: Any, priority: int = 0) -> None:
        """Registers a kernel for the CPU. TensorFlow prefers it to kernels of a lower priority."""
        status = self.new_status()
        builder = self.new_kernel(op.encode(), b"CPU", create, compute, delete)
        self.priority(builder, priority)
        self.register_kernel(op.encode(), builder, status)
        self.check(status)
        self.delete_status(status)


def words(address: int, count: int) -> npt.NDArray[np.int64]:
    """The 64-bit words at an address, as an array that shares the memory."""
    return np.ctypeslib.as_array((c_int64 * count).from_address(address))
