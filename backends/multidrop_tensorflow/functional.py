"""Functions on TensorFlow tensors.

Eager tensors of the host, and programs that run there, traced or compiled by XLA, go through the fused kernel. On other
devices the mask is drawn by TensorFlow's own integer Philox.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import keras
import numpy.typing as npt
import tensorflow as tf

from multidrop import checks
from multidrop.spec import masks
from multidrop.spec.keys import Key, as_key
from multidrop.spec.masks import Mask
from multidrop.streams import Stream, on_manual_seed

from . import native, ops, xla
from .recomputation import taken

try:
    # What `tf.custom_gradient` is made of, and takes 70 µs more for, and a tensor that it keeps.
    from tensorflow.python.eager.record import record_operation, stop_recording
except ImportError:  # it is not TensorFlow's public interface
    record_operation, stop_recording = None, nullcontext

NAME = "tensorflow"


def tensor(data: Any, dtype: str | None = None, name: str = "X") -> tf.Tensor:
    """A tensor of host data, or of a variable's value, the argument of that name: of `dtype`, or else of the type that
    `tf.convert_to_tensor` gives it."""
    if tf.is_tensor(data) or isinstance(data, keras.Variable | keras.KerasTensor) or _holds_tensors(data):
        return tf.convert_to_tensor(data, dtype)
    return checks.host_tensor(tf.convert_to_tensor, data, dtype, name)


def _holds_tensors(data: Any) -> bool:
    """Whether a list, or the lists in it, begins with a tensor: TensorFlow packs such, with their gradients."""
    while isinstance(data, list | tuple) and data:
        data = data[0]
    return tf.is_tensor(data)


def to_numpy(tensor: tf.Tensor) -> npt.NDArray[Any]:
    """A tensor's values on the host; bfloat16 comes as float32. Eager only, as values are."""
    tensor = tf.convert_to_tensor(tensor)
    return (tf.cast(tensor, tf.float32) if tensor.dtype == tf.bfloat16 else tensor).numpy()


def draw_key() -> Key:
    """A key from TensorFlow's global generator, the one that `tf.random.set_seed` seeds. Eager only."""
    return ops.draw_position()


@tf.autograph.experimental.do_not_convert
def dropout_layer(
    X: Any, dropout: float, key: int | Key | None = None, *, start: int = 0, axes: int | Sequence[int] = ()
) -> tf.Tensor:
    """`multidrop.dropout_layer` for tensors, differentiable any number of times; eager, in a `tf.function` or under
    XLA.

    A `tf.function` keeps the key that it was traced with as a constant. Traced without one, it takes a new mask in each
    run: the next after `multidrop.manual_seed`, in one sequence with the eager calls, or, where that is not in force
    at the run, one whose seed `tf.random` draws. Under XLA that is XLA's own generator, which `tf.random.set_seed` does
    not make repeatable.

    Args:
        X: tensor of any shape (in a trace, dimensions may be unknown), or what `tensor` takes; float16, bfloat16,
            float32 or float64.
        dropout: p, in [0, 1].
        key: what names the mask; without one, the next after `multidrop.manual_seed`, or one from `tf.random`.
        start: the index of X's first element.
        axes: along which one decision holds for all elements.

    Returns:
        A tensor of X's shape and type; X itself at p = 0.

    Raises:
        ValueError: for a bad probability, key, start or axes.
        TypeError: for a tensor that is not floating.
        RuntimeError: without a key in a function that `tf.recompute_grad` runs again for its gradient; see
            `recompute_grad`.
    """
    return _dropout(X, dropout, key, start, axes, relu=False)


@tf.autograph.experimental.do_not_convert
def relu_dropout(X: Any, dropout: float, key: int | Key | None = None, *, start: int = 0) -> tf.Tensor:
    """`multidrop.relu_dropout` for tensors; args, result and errors are those of `dropout_layer`. In a traced program
    it is a ReLU and a dropout, which writes over what the ReLU gave it."""
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
    position = _calls.next() if key is None else as_key(key)
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
    """TypeError where X, the argument of that name, is not of a floating type, with TensorFlow's remedy."""
    checks.floating(X.dtype.name, f"tf.cast({name}, tf.float32)", name)


@tf.autograph.experimental.do_not_convert
def keep_mask(shape: int | Sequence[int] | tf.Tensor, dropout: float, key: int | Key, start: int = 0) -> tf.Tensor:
    """`multidrop.keep_mask` as a bool tensor, drawn by TensorFlow.

    Args and errors are those of `multidrop.keep_mask`; the shape may be an integer tensor too, as `tf.shape` gives.
    """
    p, start = checks.probability("dropout", dropout), checks.word64("start", start)
    position = ops.position_of(as_key(key))
    if tf.is_tensor(shape):
        return ops.keep_mask(tf.cast(shape, tf.int64), p, position, start)
    sizes = checks.shape(shape)
    return ops.keep_mask(sizes, p, position, checks.span(start, math.prod(sizes)))


def masked(X: tf.Tensor, mask: Mask) -> tf.Tensor:
    """X through a mask: `dropout_layer` after its checks.

    The gradient of a dropout is the same dropout of the gradient, so that the backward pass keeps the position and
    nothing else, and can be differentiated again.
    """
    if mask.p == 0.0:
        return X
    return with_gradient(X, lambda X: dropped(X, mask), lambda dY: masked(dY, mask))


def dropped(X: tf.Tensor, mask: Mask) -> tf.Tensor:
    """X through a mask, without a gradient: by the fused kernel, where there is one."""
    drop: Callable[..., tf.Tensor] = ops.drop
    if not (tf.executing_eagerly() or mask.axes):
        if ops.under_xla():
            drop = xla.dropout if xla.available(X) else drop
        elif native.available():
            drop = native.dropout
        if isinstance(mask.key, Key):
            mask = mask._replace(key=ops.position_of(mask.key))
    return drop(X, mask)


def masked_relu(X: tf.Tensor, mask: Mask) -> tf.Tensor:
    """max(X, 0) through a mask. The backward pass keeps the output, which what follows mostly keeps anyway."""
    if mask.p == 0.0 or not (tf.executing_eagerly() and ops.on_host(X)):
        return masked(ops.rectified(X), mask)
    Y = ops.drop(X, mask, relu=True)
    return with_gradient(X, lambda X: Y, lambda dY: _gated(dY, Y, mask.p))


def _gated(dY: tf.Tensor, Y: tf.Tensor, p: float) -> tf.Tensor:
    """The gradient of `masked_relu` with the output Y, which is linear in dY and so its own gradient."""
    return with_gradient(dY, lambda dY: ops.relu_gradient(dY, Y, p), lambda ddX: _gated(ddX, Y, p))


def with_gradient(X: tf.Tensor, function: Callable[..., tf.Tensor], gradient: Callable[..., tf.Tensor]) -> tf.Tensor:
    """`function(X)`, which has that gradient."""
    if record_operation is None:
        return tf.custom_gradient(lambda X: (function(X), gradient))(X)
    Y = function(X)
    record_operation(native.OP, [Y], [X], lambda dY: [gradient(dY)])
    return Y


class _Calls:
    """The positions of calls without a key: after `manual_seed` a stream of their own, else drawn from `tf.random`.

    A traced program outlives the `manual_seed` that it was traced under. So it asks variables in each run: whether a
    stream is in force, and for its position. From the first trace on, eager calls go by the variables too, so that all
    calls are one sequence.
    """

    def __init__(self) -> None:
        self._stream: Stream | None = None
        self._variables: tuple[tf.Variable, tf.Variable] | None = None
        self._lock, self._process = threading.Lock(), os.getpid()

    def restart(self, root: Key | None) -> None:
        """Go on from where `manual_seed` with that root key begins; None: from `tf.random`."""
        if self._process != os.getpid():  # a forked child, where the lock may be held, and variables can not be used
            self._lock, self._process, self._variables = threading.Lock(), os.getpid(), None
        with self._lock:
            self._stream = None if root is None else Stream(root.fold_in("calls"))
            if self._variables is not None:
                with tf.init_scope():
                    for variable, value in zip(self._variables, self._values(), strict=True):
                        variable.assign(value)

    def _values(self) -> tuple[npt.NDArray[Any], bool]:
        """What the variables start with."""
        return ops.words_of(self._stream.key if self._stream else Key(0)), self._stream is not None

    def position(self) -> Any:
        """Where the calls stand that this process counts."""
        return self._stream and self._stream.key, [variable.numpy() for variable in self._variables or ()]

    def go_on_from(self, position: Any) -> None:
        """Go on from where `position` was taken."""
        key, values = position
        if self._stream is not None and key is not None:
            self._stream.key = key
        for variable, value in zip(self._variables or (), values, strict=False):
            variable.assign(value)

    def next(self) -> Key | tf.Tensor:
        """The position of this call."""
        with self._lock:
            if tf.executing_eagerly():
                if self._stream is None:
                    return ops.draw_position()
                if self._variables is None:
                    return taken(self._stream.next)
                return ops.next_position(self._variables[0])
            if self._variables is None:
                # Here and not on import, which is to leave the devices alone; and so as to outlive a trace.
                with tf.init_scope():
                    stream, seeded = self._values()
                    self._variables = (
                        tf.Variable(stream, trainable=False, name="multidrop_calls"),
                        tf.Variable(seeded, trainable=False, name="multidrop_seeded"),
                    )
            stream, seeded = self._variables
            # Both, and not the one that is in force: a branch in a graph takes longer than either.
            return tf.where(seeded, ops.next_position(stream), ops.draw_position())


_calls = _Calls()
on_manual_seed(_calls.restart)
