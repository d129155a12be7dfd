"""Dropout of an eager tensor's own memory, by the fused kernel."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from multidrop import host
from multidrop.host import memory
from multidrop.host.memory import address_of
from multidrop.spec.masks import Mask

from .position import key_at


def readable(X: tf.Tensor) -> bool:
    """Whether an eager tensor has memory that the kernel can read."""
    return "CPU" in X.device and X.shape.num_elements() > 0


def drop(X: tf.Tensor, mask: Mask, relu: bool = False) -> tf.Tensor:
    """X, or max(X, 0), through a mask, without a gradient."""
    (p, position, start, axes), name = mask, X.dtype.name
    key = key_at(position)
    Y = _empty_like(X)
    if axes:
        host.dropout(_view(X), p, key, start, Y, axes=axes, dtype=name, relu=relu)
    else:
        host.drop(_address(X), address_of(Y), Y.size, name, p, key, start, relu=relu)
    return _tensor(Y, X.dtype)


def gate(dY: tf.Tensor, Y: tf.Tensor, p: float) -> tf.Tensor:
    """The gradient of `drop` with ReLU whose output is Y, from dY, the gradient with respect to Y."""
    dX = _empty_like(dY)
    host.gate(_address(dY), address_of(dX), dX.size, dY.dtype.name, p, _address(Y))
    return _tensor(dX, dY.dtype)


def _empty_like(X: tf.Tensor) -> npt.NDArray[Any]:
    """Memory for a tensor like X. NumPy has no bfloat16: its bits pass as integers."""
    return memory.empty(X.shape.as_list(), np.int16 if X.dtype == tf.bfloat16 else X.dtype.name)


def _tensor(room: npt.NDArray[Any], dtype: tf.DType) -> tf.Tensor:
    """The tensor in memory that `_empty_like` gave."""
    tensor = tf.experimental.dlpack.from_dlpack(room.__dlpack__())
    return tf.bitcast(tensor, tf.bfloat16) if dtype == tf.bfloat16 else tensor


def _address(X: tf.Tensor) -> int:
    return address_of(_view(X))


def _view(X: tf.Tensor) -> npt.NDArray[Any]:
    return np.from_dlpack(tf.bitcast(X, tf.int16) if X.dtype == tf.bfloat16 else X)
