"""The fused kernel in programs that XLA compiles for the host, as one of XLA's custom calls.

XLA finds what it is to call in a registry, by name, which its C++ interface fills: it is called from Python by the
names that its compiler gave it. A TensorFlow that keeps it elsewhere does without, and draws masks by operators.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from contextlib import suppress
from ctypes import CFUNCTYPE, POINTER, c_char_p, c_size_t, c_void_p
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf

from multidrop import checks, kernel
from multidrop.kernel import pool
from multidrop.masks import Mask

from . import native
from .c_interface import CREATE, DELETE, INVALID_ARGUMENT, Interface, words
from .ops import key_of

OP = "XlaCustomCallV2"
_NAME = "multidrop_dropout_"


def available(X: tf.Tensor) -> bool:
    """Whether a program for XLA may hold the call: it is registered, all devices are hosts, and X has the known shape
    that XLA's custom calls want."""
    return bool(_registered) and native.available() and X.shape.is_fully_defined()


def dropout(X: tf.Tensor, mask: Mask) -> tf.Tensor:
    """A call in the program that is being traced.

    Args:
        X: float16, bfloat16, float32 or float64, of a known shape.
        mask: its mask, with a position for its key, and not shared along axes.
    """
    pool.num_threads()  # an error of which is to show here, where there is somebody to see it
    settings = np.array(
        [np.float64(mask.p).view(np.int64), np.uint64(mask.start).view(np.int64), X.shape.num_elements()]
    )
    value = tf.compat.v1.AttrValue
    types = {"operand": [X.dtype, tf.int64, tf.int64], "result": [X.dtype]}
    node = tf.compat.v1.get_default_graph().create_op(
        OP,
        [X, mask.key, tf.constant(settings)],
        [X.dtype],
        attrs={
            "call_target_name": value(s=(_NAME + X.dtype.name).encode()),
            "backend_config": value(s=b""),
            "has_side_effect": value(b=False),
            "result_shapes": value(list=value.ListValue(shape=[X.shape.as_proto()])),
            **{
                f"{name}_dtypes": value(list=value.ListValue(type=[dtype.as_datatype_enum for dtype in dtypes]))
                for name, dtypes in types.items()
            },
        },
    )
    return node.outputs[0]


_CALL = CFUNCTYPE(None, c_void_p, POINTER(c_void_p), c_void_p, c_size_t, c_void_p)
_registered: list[Any] = []  # what XLA holds on to, and Python must not let go of


def _call(dtype: str, target: int, sources: Any, *_: Any) -> None:
    """XLA's call for a run: the result's address and those of the operands."""
    p, start, size = _settings_at(sources[2])
    kernel.drop(sources[0], target, size, dtype, p, key_of(words(sources[1])), start)


def _settings_at(address: int) -> tuple[float, int, int]:
    settings = words(address)
    return float(settings.view(np.float64)[0]), int(settings.view(np.uint64)[1]), int(settings[2])


class _String(ctypes.Structure):
    """A `std::string` as GCC's library lays it out."""

    _fields_ = [("data", c_char_p), ("size", c_size_t), ("room", c_size_t * 2)]


def _register() -> None:
    library = ctypes.CDLL(os.path.join(tf.sysconfig.get_lib(), "libtensorflow_cc.so.2"))
    registry, string = "_ZN3xla24CustomCallTargetRegistry", "NSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEE"
    registry_of_all: Callable[[], int] = library[f"{registry}6GlobalEv"]
    registry_of_all.restype, registry_of_all.argtypes = c_void_p, ()  # type: ignore[attr-defined]  # ctypes' own
    register = library[f"{registry}8RegisterERK{string}PvS8_"]
    register.restype, register.argtypes = None, (c_void_p, POINTER(_String), c_void_p, POINTER(_String))
    for dtype in checks.FLOATING:
        call = _CALL(partial(_call, dtype))
        name, platform = (_String(text, len(text)) for text in ((_NAME + dtype).encode(), b"Host"))
        register(registry_of_all(), name, ctypes.cast(call, c_void_p), platform)
        _registered.append(call)


def _register_for_hosts() -> None:
    """A kernel of the operator for programs that XLA does not compile, as TensorFlow has none: a function that was
    traced within a program for XLA may be called outside of it, and is not traced again."""
    tfc = Interface()

    @CREATE
    def create(construction: int) -> int:
        status, name = tfc.new_status(), ctypes.create_string_buffer(len(_NAME) + 16)
        tfc.attr_string(construction, b"call_target_name", name, len(name) - 1, status)
        dtype = name.value.decode().removeprefix(_NAME)
        number = checks.FLOATING.index(dtype) + 1 if dtype in checks.FLOATING else 0
        if not number:
            message = f"{OP}: expected a call of {_NAME}*, or a program that XLA compiles; got {name.value.decode()!r}"
            tfc.set_status(status, INVALID_ARGUMENT, message.encode())
            tfc.fail_to_create(construction, status)
        tfc.delete_status(status)
        return number

    def settings_of(number: int, tensors: list[c_void_p]) -> tuple[str, float, int]:
        p, start, _ = _settings_at(tfc.data(tensors[2]))
        return checks.FLOATING[number - 1], p, start

    compute, delete = tfc.dropout(3, settings_of), DELETE(lambda number: None)
    tfc.register(OP, create, compute, delete)
    _registered.extend((create, compute, delete))


with suppress(AttributeError, OSError, StopIteration):
    _register()
    _register_for_hosts()
