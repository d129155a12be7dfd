"""Functions on TensorFlow tensors."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy.typing as npt
import tensorflow as tf

from multidrop import checks
from multidrop.spec import masks
from multidrop.spec.keys import Key, as_key
from multidrop.spec.masks import Mask

from . import internals, native, on_host
from .draw import dropped, fuses_relu, rectified
from .draw import keep_mask as drawn_mask
from .position import calls, draw_position

NAME = "tensorflow"

if keras.config.backend() != "tensorflow":
    raise ImportError(
        f"multidrop_tensorflow: expected Keras to run on 'tensorflow'; got {keras.config.backend()!r}: set "
        "KERAS_BACKEND=tensorflow before Keras is first imported"
    )


def tensor(data: Any, dtype: str | None = None, name: str = "X") -> tf.Tensor:
    """A tensor of host data or of a variable's value, of type `dtype` or else of the one that `tf.convert_to_tensor`
    chooses. Errors call the argument by `name`.

    Raises:
        TypeError: for a ragged or sparse tensor, which TensorFlow would not convert or would pack.
    """
    if isinstance(data, COMPOSITE):
        raise not_dense(data, name)
    if tf.is_tensor(data) or isinstance(data, keras.Variable | keras.KerasTensor) or _holds_tensors(data):
        return tf.convert_to_tensor(data, dtype)
    return checks.host_tensor(tf.convert_to_tensor, data, dtype, name)


def _holds_tensors(data: Any) -> bool:
    """Whether a list, or a list in it, begins with a tensor: TensorFlow packs such lists and keeps their gradients."""
    while isinstance(data, list | tuple) and data:
        data = data[0]
    return tf.is_tensor(data)


COMPOSITE = (tf.RaggedTensor, tf.SparseTensor, tf.IndexedSlices)


def not_dense(came: Any, name: str = "X") -> TypeError:
    """The error for what is no dense tensor, with TensorFlow's remedies."""
    return checks.not_floating(checks.shown(came), "tf.convert_to_tensor, its to_tensor() or tf.sparse.to_dense", name)


def to_numpy(tensor: tf.Tensor) -> npt.NDArray[Any]:
    """A tensor's values as a NumPy array; bfloat16 becomes float32. Eager only."""
    tensor = tf.convert_to_tensor(tensor)
    return (tf.cast(tensor, tf.float32) if tensor.dtype == tf.bfloat16 else tensor).numpy()


def draw_key() -> Key:
    """A key from TensorFlow's global generator, the one that `tf.random.set_seed` seeds. Eager only."""
    return draw_position()


@tf.autograph.experimental.do_not_convert
def dropout_layer(
    X: Any, dropout: float, key: int | Key | None = None, *, start: int = 0, axes: int | Sequence[int] = ()
) -> tf.Tensor:
    """`multidrop.dropout_layer` for tensors, differentiable any number of times; eager, in a `tf.function` or under
    XLA.

    A `tf.function` keeps the key that it was traced with as a constant. Traced without a key, it draws a new mask in
    each run: with the next key after `multidrop.manual_seed`, in one sequence with the eager calls, or, if no seed is
    in force at the run, with a key that `tf.random` draws. Under XLA that is XLA's own generator, which
    `tf.random.set_seed` does not make repeatable. At dropout = 0 `tf.random` draws nothing.

    Args:
        X: tensor of any shape (in a trace, dimensions may be unknown), or what `tensor` takes; float16, bfloat16,
            float32 or float64.
        dropout: p, in [0, 1].
        key: names the mask; without one, the next key after `multidrop.manual_seed`, or one that `tf.random` draws.
        start: the index of X's first element.
        axes: the axes along which all elements share one decision.

    Returns:
        A tensor of X's shape and type; X itself at p = 0.

    Raises:
        ValueError: for a bad probability, key, start or axes.
        TypeError: for a tensor that is not floating, or is ragged or sparse.
        RuntimeError: without a key, in a function that `tf.recompute_grad` runs again for its gradient; see
            `recompute_grad`.
    """
    return _dropout(X, dropout, key, start, axes, relu=False)


@tf.autograph.experimental.do_not_convert
def relu_dropout(X: Any, dropout: float, key: int | Key | None = None, *, start: int = 0) -> tf.Tensor:
    """`multidrop.relu_dropout` for tensors; args, result and errors are those of `dropout_layer`. In a traced program
    it is a ReLU, and a dropout that overwrites the ReLU's output."""
    return _dropout(X, dropout, key, start, (), relu=True)


def _dropout(
    X: Any, dropout: float, key: int | Key | None, start: int, axes: int | Sequence[int], relu: bool
) -> tf.Tensor:
    X = tensor(X)
    check_floating(X)
    p, axes = checks.probability("dropout", dropout), axes_of(X, axes)
    shape = X.shape
    count = math.prod(masks.drawn_shape(tuple(shape), axes)) if shape.is_fully_defined() else 0
    start = checks.span(start, count)
    position = calls.next(p == 0.0) if key is None else as_key(key)
    return (masked_relu if relu else masked)(X, Mask(p, position, start, axes))


def axes_of(X: tf.Tensor, axes: int | Sequence[int]) -> tuple[int, ...]:
    """Axes of X, each counted from the first."""
    if X.shape.rank is None and not (isinstance(axes, tuple) and not axes):
        raise ValueError(
            f"axes: expected a tensor whose number of dimensions is known; got axes {checks.shown(axes)} of one that "
            "is not"
        )
    return checks.axes(axes, X.shape.rank or 0)


def check_floating(X: tf.Tensor, name: str = "X") -> None:
    """Raises a TypeError, with TensorFlow's remedy, if X is not of a floating type. `name` is the argument's."""
    checks.floating(X.dtype.name, f"tf.cast({name}, tf.float32)", name)


@tf.autograph.experimental.do_not_convert
def keep_mask(shape: int | Sequence[int] | tf.Tensor, dropout: float, key: int | Key, start: int = 0) -> tf.Tensor:
    """`multidrop.keep_mask` as a bool tensor, drawn by TensorFlow.

    Args and errors are those of `multidrop.keep_mask`; the shape may be an integer tensor too, as `tf.shape` gives.
    """
    p, start = checks.probability("dropout", dropout), checks.word64("start", start)
    key = as_key(key)
    if tf.is_tensor(shape):
        return drawn_mask(tf.cast(shape, tf.int64), p, key, start)
    sizes = checks.shape(shape)
    return drawn_mask(sizes, p, key, checks.span(start, math.prod(sizes)))


def masked(X: tf.Tensor, mask: Mask) -> tf.Tensor:
    """X through a mask: `dropout_layer` after its checks.

    The gradient of a dropout is the same dropout of the gradient, so the backward pass keeps only the position, and can
    be differentiated again.
    """
    if mask.p == 0.0:
        return X
    return with_gradient(X, lambda X: dropped(X, mask), lambda dY: masked(dY, mask))


def masked_relu(X: tf.Tensor, mask: Mask) -> tf.Tensor:
    """max(X, 0) through a mask. The backward pass keeps the output, which the next operation mostly keeps anyway."""
    if mask.p == 0.0 or not fuses_relu(X):
        return masked(rectified(X), mask)
    Y = on_host.drop(X, mask, relu=True)
    return with_gradient(X, lambda X: Y, lambda dY: _gated(dY, Y, mask.p))


def _gated(dY: tf.Tensor, Y: tf.Tensor, p: float) -> tf.Tensor:
    """The gradient of `masked_relu` for its output Y. It is linear in dY, and so its own gradient."""
    return with_gradient(dY, lambda dY: on_host.gate(dY, Y, p), lambda ddX: _gated(ddX, Y, p))


def with_gradient(X: tf.Tensor, function: Callable[..., tf.Tensor], gradient: Callable[..., tf.Tensor]) -> tf.Tensor:
    """`function(X)`, with `gradient` as its gradient."""
    if internals.record_operation is None:
        return tf.custom_gradient(lambda X: (function(X), gradient))(X)
    Y = function(X)
    internals.record_operation(native.OP, [Y], [X], lambda dY: [gradient(dY)])
    return Y
