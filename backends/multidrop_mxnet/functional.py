"""Functions on MXNet arrays, of its NumPy interface (`mx.np`) and of its classic one (`mx.nd`)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import mxnet as mx
import numpy as np
import numpy.typing as npt

from multidrop import checks, host
from multidrop.spec import masks
from multidrop.spec.keys import Key, as_key
from multidrop.spec.masks import Mask
from multidrop.streams import call_key

from .autograd import masked
from .internals import Array as Array
from .internals import name_of
from .position import BITS, bits, key_of_bits

NAME = "mxnet"


def tensor(data: Any, dtype: str | None = None, name: str = "X") -> Array:
    """Makes an array of host data, the argument `name`. Its type is `dtype`, or else what `mx.np.array` gives (a NumPy
    array's own; float32 for lists and numbers). Returns MXNet's arrays that have that type as they are."""
    if isinstance(data, mx.nd.NDArray):
        return data if dtype is None else data.astype(dtype, copy=False)
    return checks.host_tensor(mx.np.array, data, dtype, name)


def to_numpy(tensor: Array) -> npt.NDArray[Any]:
    """An array's values on the host."""
    return tensor.asnumpy()


def draw_key() -> Key:
    """Draws a key from MXNet's generator, which `mx.random.seed` seeds."""
    key = key_of_bits(bits(mx.nd, _ones(mx.current_context()), always=True).asnumpy())
    assert key is not None  # drawn in any mode
    return key


@cache
def _ones(ctx: mx.Context) -> mx.nd.NDArray:
    return mx.nd.ones((BITS,), ctx, "float16")


def next_key(idle: bool) -> Key | None:
    """The key of a call that was given none: the next after `multidrop.manual_seed`, else one that MXNet's generator
    draws. For an `idle` call, which drops nothing, nothing is drawn: None."""
    return call_key(NAME) or (None if idle else draw_key())


def dropout_layer(
    X: Array, dropout: float, key: int | Key | None = None, *, start: int = 0, axes: int | Sequence[int] = ()
) -> Array:
    """`multidrop.dropout_layer` for arrays, differentiable once.

    Args:
        X: array of either kind, any shape and context; float16, float32 or float64.
        dropout: p, in [0, 1].
        key: names the mask; without one, the next key after `multidrop.manual_seed`, or one from MXNet's generator.
        start: the index of X's first element.
        axes: the axes along which all elements share one decision.

    Returns:
        An array of X's kind, shape, type and context; X itself at p = 0 or if it is empty.

    Raises:
        ValueError: for a bad probability, key, start or axes.
        TypeError: for an array that is not floating, or not dense.
    """
    return _dropout(X, dropout, key, start, axes, relu=False)


def relu_dropout(X: Array, dropout: float, key: int | Key | None = None, *, start: int = 0) -> Array:
    """`multidrop.relu_dropout` for arrays; args, result and errors are those of `dropout_layer`."""
    return _dropout(X, dropout, key, start, (), relu=True)


def _dropout(
    X: Array, dropout: float, key: int | Key | None, start: int, axes: int | Sequence[int], relu: bool
) -> Array:
    X = tensor(X)
    check_floating(X)
    p, shape = checks.probability("dropout", dropout), X.shape
    axes = checks.axes(axes, len(shape))
    start = checks.span(start, math.prod(masks.drawn_shape(shape, axes) if axes else shape))
    key = next_key(p == 0.0 or 0 in shape) if key is None else as_key(key)
    return masked(X, Mask(p, key, start, axes), relu)


def check_floating(X: Array, name: str = "X") -> None:
    """Raises TypeError with MXNet's remedy, unless X, the argument `name`, is a dense array of a floating type."""
    if type(X) is not mx.np.ndarray and type(X) is not mx.nd.NDArray:
        if not isinstance(X, mx.nd.NDArray):
            raise checks.not_floating(checks.shown(X), f"mx.np.array({name})", name)
        check_dense(X.stype, name)
    if not name_of(X):
        checks.floating(np.dtype(X.dtype).name, f'{name}.astype("float32")', name)


def check_dense(stype: str, name: str = "X") -> None:
    """Raises TypeError for a sparse storage type: the memory of such an array lacks some elements."""
    if stype != "default":
        raise TypeError(
            f'{name}: expected an array of dense storage; got {stype}: convert it with {name}.tostype("default")'
        )


def keep_mask(
    shape: int | Sequence[int], dropout: float, key: int | Key, start: int = 0, ctx: mx.Context | None = None
) -> mx.np.ndarray:
    """`multidrop.keep_mask` as a bool array on `ctx`, by default MXNet's current context."""
    return mx.np.array(host.keep_mask(shape, dropout, key, start), "bool", ctx=ctx)
