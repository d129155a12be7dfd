"""The fused kernel in programs that XLA compiles for the host, as one of XLA's custom calls.

XLA's foreign function interface (xla/ffi/api/c_api.h) registers functions, from Python too. If a TensorFlow does not
export it, masks are drawn by TensorFlow's operators. A node of the program holds the call as a StableHLO module, in
which sizes may be unknown until XLA compiles.
"""

from __future__ import annotations

import ctypes
import logging
import math
from ctypes import CFUNCTYPE, POINTER, c_char_p, c_int, c_int64, c_size_t, c_uint32, c_void_p
from typing import Any

import numpy as np
import tensorflow as tf

from multidrop import host
from multidrop.spec.masks import Mask

from . import internals, native
from .c_interface import words
from .position import key_of

OP = "XlaCallModule"
_GRADIENT = "MultidropXla"  # the name under which the gradient of such a node is registered
P = "_multidrop_p"  # an attribute that only these nodes have
_VERSION = 5  # the oldest calling convention that TensorFlow accepts
TARGET = "multidrop_dropout"
_TYPES = {"float16": "f16", "bfloat16": "bf16", "float32": "f32", "float64": "f64"}
_TYPE_CODES = {10: "float16", 16: "bfloat16", 11: "float32", 12: "float64"}


def available(X: tf.Tensor) -> bool:
    """Whether a program for XLA may hold the call: it is registered, there is no device but the CPU, and X has
    dimensions."""
    return _registered and native.available() and bool(X.shape.rank) and not internals.in_vectorized_map()


def dropout(X: tf.Tensor, mask: Mask) -> tf.Tensor:
    """Adds the call to the program that is being traced; its output.

    Args:
        X: float16, bfloat16, float32 or float64, of a known number of dimensions above 0.
        mask: its mask, with a position for its key, and not shared along axes.
    """
    value, graph = tf.compat.v1.AttrValue, tf.compat.v1.get_default_graph()
    p, start = native.numbers_of(mask)
    with graph.gradient_override_map({OP: _GRADIENT}):
        node = graph.create_op(
            OP,
            [X, mask.key],
            [X.dtype],
            attrs={
                "version": value(i=_VERSION),
                "module": value(s=_module(X.shape.as_list(), X.dtype.name, p, start).encode()),
                "Sout": value(list=value.ListValue(shape=[X.shape.as_proto()])),
                "Tout": value(list=value.ListValue(type=[X.dtype.as_datatype_enum])),
                "Tin": value(list=value.ListValue(type=[X.dtype.as_datatype_enum, tf.int64.as_datatype_enum])),
                "platforms": value(list=value.ListValue(s=[b"CPU"])),
                P: value(i=p),
                "_multidrop_start": value(i=start),
            },
        )
    return node.outputs[0]


@tf.RegisterGradient(_GRADIENT)
def _gradient(node: tf.Operation | None, dY: tf.Tensor, *_: tf.Tensor) -> list[tf.Tensor | None]:
    """The same dropout of the gradient, as a call too: nothing shows here that the trace is for XLA."""
    if node is None:  # TensorFlow's saving traces the gradient by the inputs alone
        raise ValueError(
            "program: expected one without jit_compile=True; got one that drops, whose gradient tf.saved_model.save "
            "cannot save: save a function without jit_compile=True, or with "
            "tf.saved_model.SaveOptions(experimental_custom_gradients=False)"
        )
    dY.set_shape(node.inputs[0].shape)
    p, start = node.get_attr(P), node.get_attr("_multidrop_start")
    return [dropout(dY, native.mask_of(p, node.inputs[1], start)), None]


def _module(sizes: list[int | None], dtype: str, p: int, start: int) -> str:
    """The call as StableHLO, for a tensor of those sizes; None stands for a size that is not known yet. The operands
    are X, the position, the bits of p with the index of the first element, and the sizes, which tell XLA the result's
    shape."""
    X = "tensor<" + "".join(f"{'?' if size is None else size}x" for size in sizes) + _TYPES[dtype] + ">"
    lines = []
    for axis, size in enumerate(sizes):
        if size is None:
            lines += [
                f"%d{axis} = stablehlo.get_dimension_size %X, dim = {axis} : ({X}) -> tensor<i32>",
                f"%w{axis} = stablehlo.convert %d{axis} : (tensor<i32>) -> tensor<i64>",
                f"%s{axis} = stablehlo.reshape %w{axis} : (tensor<i64>) -> tensor<1xi64>",
            ]
        else:
            lines.append(f"%s{axis} = stablehlo.constant dense<{size}> : tensor<1xi64>")
    rank, newline = len(sizes), "\n    "
    shape, ones = f"tensor<{rank}xi64>", ", ".join(["tensor<1xi64>"] * rank)
    return f"""
module @multidrop {{
  func.func public @main(%X: {X}, %position: tensor<3xi64>) -> {X} {{
    {newline.join(lines)}
    %shape = stablehlo.concatenate {", ".join(f"%s{axis}" for axis in range(rank))}, dim = 0 : ({ones}) -> {shape}
    %settings = stablehlo.constant dense<[{p}, {start}]> : tensor<2xi64>
    %Y = stablehlo.custom_call @{TARGET}(%X, %position, %settings, %shape) {{
      api_version = 4 : i32, has_side_effect = false, indices_of_shape_operands = dense<3> : tensor<1xi64>
    }} : ({X}, tensor<3xi64>, tensor<2xi64>, {shape}) -> {X}
    return %Y : {X}
  }}
}}
"""


# Below: XLA's interface. Each structure begins with its size and a pointer to extensions.


def _structure(name: str, *fields: tuple[str, Any], head: tuple[tuple[str, Any], ...] | None = None) -> Any:
    head = (("struct_size", c_size_t), ("extension", c_void_p)) if head is None else head
    return type(name, (ctypes.Structure,), {"_fields_": [*head, *fields]})


_VERSION_OF_API = _structure("_Version", ("major", c_int), ("minor", c_int))
_METADATA = _structure("_Metadata", ("version", _VERSION_OF_API), head=(("struct_size", c_size_t),))
_EXTENSION = _structure(
    "_Extension",
    *(("kind", c_int), ("following", c_void_p), ("metadata", POINTER(_METADATA))),
    head=(("struct_size", c_size_t),),
)
_BUFFER = _structure("_Buffer", ("dtype", c_int), ("data", c_void_p), ("rank", c_int64), ("sizes", POINTER(c_int64)))
_BUFFERS = _structure("_Buffers", ("count", c_int64), ("kinds", c_void_p), ("items", POINTER(POINTER(_BUFFER))))
_ERROR = _structure("_Error", ("message", c_char_p), ("code", c_int))
_TEXT = _structure("_Text", ("text", c_char_p), ("size", c_size_t), head=())
_REGISTRATION = _structure(
    "_Registration",
    *(("name", _TEXT), ("platform", _TEXT)),
    *((stage, c_void_p) for stage in ("instantiate", "prepare", "initialize", "execute")),
    ("traits", c_uint32),
)
_API = _structure(
    "_Api",
    *(("version", _VERSION_OF_API), ("internal", c_void_p)),
    ("create_error", CFUNCTYPE(c_void_p, POINTER(_ERROR))),
    *(("message_of_error", c_void_p), ("destroy_error", c_void_p)),
    ("register", CFUNCTYPE(c_void_p, POINTER(_REGISTRATION))),
)
_CALL = _structure(
    "_Call",
    *(("api", POINTER(_API)), ("context", c_void_p), ("stage", c_int)),
    *(("arguments", _BUFFERS), ("results", _BUFFERS)),
)
_METADATA_IS_WANTED, _INTERNAL = 1, 13
KNOWN_VERSIONS = ((0, 0), (0, 1), (0, 2))  # major and minor, of the structures above


def _sized(structure: Any, **values: Any) -> Any:
    return structure(struct_size=ctypes.sizeof(structure), **values)


def answered(version: tuple[int, int]) -> tuple[int, int]:
    """The version that the handler reports: XLA's own if it is a known one, else the last known one, so that XLA
    refuses a handler that would misread its structures."""
    return version if version in KNOWN_VERSIONS else KNOWN_VERSIONS[-1]


@CFUNCTYPE(c_void_p, POINTER(_CALL))
def _handler(given: Any) -> int | None:
    """Handles a call from XLA, to run the dropout or to learn the interface's version; returns an error or None."""
    call = given.contents
    api = call.api.contents
    try:
        if call.extension:
            extension = _EXTENSION.from_address(call.extension)
            if extension.kind == _METADATA_IS_WANTED:
                version = extension.metadata.contents.version
                version.major, version.minor = answered((api.version.major, api.version.minor))
                return None
        # The sizes follow only if XLA needed them to learn the result's shape.
        X, position, settings = (call.arguments.items[number].contents for number in range(3))
        p, start = words(settings.data, 2)
        size, target = math.prod(X.sizes[: X.rank]), call.results.items[0].contents.data
        key, dtype = key_of(words(position.data, 3)), _TYPE_CODES[X.dtype]
        host.drop(X.data, target, size, dtype, float(p.view(np.float64)), key, int(start.view(np.uint64)))
    except BaseException as error:  # C has no exceptions; XLA raises it from the call of the program
        message = f"{type(error).__name__}: {error}".encode()
        return api.create_error(_sized(_ERROR, message=message, code=_INTERNAL))
    return None


_registered = False


def _register() -> None:
    global _registered
    api = internals.xla_interface(_API)
    if api is None:
        return
    name, platform = (_TEXT(text, len(text)) for text in (TARGET.encode(), b"Host"))
    handler = ctypes.cast(_handler, c_void_p)
    _registered = not api.register(_sized(_REGISTRATION, name=name, platform=platform, execute=handler))
    if not _registered:
        version = f"{api.version.major}.{api.version.minor}"
        logging.getLogger("multidrop").warning(
            f"multidrop_tensorflow: XLA's calls are of version {version}, which is not known; dropout under XLA uses "
            "TensorFlow's own operators, with the same masks, slowly"
        )


_register()
