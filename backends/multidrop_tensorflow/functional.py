"""Functions on TensorFlow tensors.

Eager tensors of the host go through the fused kernel. In a traced program, under XLA and on other devices the mask is
drawn by TensorFlow's own integer Philox. What names a mask is a *position* here, a uint64 tensor (seed, call): in a
traced program a Python key is a constant of the trace, where a position can be read from a variable that each run
advances.
"""

from __future__ import annotations

import math
import sys
import threading
import traceback
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from multidrop import checks, kernel, masks
from multidrop.keys import Key, as_key, on_manual_seed
from multidrop.philox import MULTIPLIERS, ROUNDS, WEYL

NAME = "tensorflow"

PHILOX = 1  # the op's code for Philox4x32-10


def tensor(data: Any, dtype: str | None = None) -> tf.Tensor:
    """A tensor of host data, or of a variable's value: of `dtype`, or else of the type that `tf.convert_to_tensor`
    gives it."""
    return tf.convert_to_tensor(data, dtype)


def to_numpy(tensor: tf.Tensor) -> npt.NDArray[Any]:
    """A tensor's values on the host; bfloat16 comes as float32. Eager only, as values are."""
    tensor = tf.convert_to_tensor(tensor)
    return (tf.cast(tensor, tf.float32) if tensor.dtype == tf.bfloat16 else tensor).numpy()


def draw_key() -> Key:
    """A key from TensorFlow's global generator, the one that `tf.random.set_seed` seeds. Eager only."""
    return Key(int(_draw_seed()))


def dropout_layer(X: Any, dropout: float, key: int | Key | None = None, *, start: int = 0) -> tf.Tensor:
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

    Returns:
        A tensor of X's shape and type; X itself at p = 0.

    Raises:
        ValueError: for a bad probability, key or start.
        TypeError: for a tensor that is not floating.
        RuntimeError: without a key in a function that `tf.recompute_grad` runs again for its gradient.
    """
    X = tensor(X)
    check_floating(X)
    p = checks.probability("dropout", dropout)
    position = _calls.next() if key is None else as_key(key)
    return masked(X, p, position, checks.span(start, X.shape.num_elements() or 0))


def check_floating(X: tf.Tensor) -> None:
    """TypeError where X is not of a floating type, with TensorFlow's remedy."""
    checks.floating(X.dtype.name, "tf.cast(X, tf.float32)")


def keep_mask(shape: int | Sequence[int] | tf.Tensor, dropout: float, key: int | Key, start: int = 0) -> tf.Tensor:
    """`multidrop.keep_mask` as a bool tensor, drawn by TensorFlow.

    Args and errors are those of `multidrop.keep_mask`; the shape may be an integer tensor too, as `tf.shape` gives.
    """
    p, position, start = checks.probability("dropout", dropout), _constant(as_key(key)), checks.word64("start", start)
    if tf.is_tensor(shape):
        return _keep_mask(tf.cast(shape, tf.int64), p, position, start)
    sizes = checks.shape(shape)
    return _keep_mask(sizes, p, position, checks.span(start, math.prod(sizes)))


def _keep_mask(shape: tuple[int, ...] | tf.Tensor, p: float, position: tf.Tensor, start: int) -> tf.Tensor:
    """The mask of a static shape, which XLA needs, or of an int64 tensor that holds a shape known at the run."""
    static = isinstance(shape, tuple)
    count = math.prod(shape) if static else tf.reduce_prod(shape)
    high, low = divmod(masks.threshold(p), 2**16)
    if high == 2**16:  # no uint16, and above every lane
        return tf.ones(shape, tf.bool)
    first, skipped = divmod(start, 8)
    blocks = (skipped + count + 7) // 8
    lanes = _lanes(first, blocks, position)
    kept = lanes < tf.constant(np.uint16(high))
    if low:  # else plane 1 decides nothing
        ties = lanes == tf.constant(np.uint16(high))
        # XLA's shapes are static, and it fuses all of this into one pass; and a small plane is drawn sooner than the
        # many operators begin that draw a part of it.
        if _under_xla() or (static and count <= SMALL):
            kept |= ties & (_lanes(first + PLANE1, blocks, position) < tf.constant(np.uint16(low)))
        else:
            kept = _settle_ties(kept, tf.where(ties), first, position, low)
    return tf.reshape(kept[skipped : skipped + count], shape)


SMALL = 2**19  # elements

PLANE1 = 2**63  # plane 1 is bit 31 of the counter's second word: of the 64-bit block, the highest


def _lanes(first: int, blocks: int | tf.Tensor, position: tf.Tensor) -> tf.Tensor:
    """The lanes of consecutive blocks, in order; uint16 of shape (8·blocks,).

    The op takes the four counter words as two of 64 bits, block and call, and counts in the first. A Python number of
    64 bits would lose its low ones in a trace; a NumPy one does not. A word's low half comes first in the bitcast:
    by definition under XLA, and elsewhere on little-endian machines, which all of TensorFlow's are.
    """
    words = tf.raw_ops.StatelessRandomUniformFullIntV2(
        shape=tf.convert_to_tensor([4 * blocks], tf.int64),
        key=position[:1],
        counter=tf.stack([tf.constant(np.uint64(first)), position[1]]),
        alg=PHILOX,
        dtype=tf.uint32,
    )
    return tf.reshape(tf.bitcast(words, tf.uint16), [-1])


def _settle_ties(kept: tf.Tensor, ties: tf.Tensor, first: int, position: tf.Tensor, low: int) -> tf.Tensor:
    """`kept`, corrected at the indices `ties`, int64 of shape (k, 1), by their lanes in plane 1. One element in 65,536
    is such, so that drawing these alone costs next to nothing, where drawing the plane would cost as much again."""
    index = ties[:, 0]
    block = tf.cast(index // 8, tf.uint64) + tf.constant(np.uint64(first + PLANE1))
    words = tf.stack(_philox(block, position), axis=1)
    word = tf.gather(words, index % 8 // 2, axis=1, batch_dims=1)
    lane = tf.bitwise.right_shift(word, tf.cast(index % 2 * 16, tf.uint64)) & tf.constant(np.uint64(0xFFFF))
    return tf.tensor_scatter_nd_update(kept, ties, lane < tf.constant(np.uint64(low)))


def _philox(block: tf.Tensor, position: tf.Tensor) -> list[tf.Tensor]:
    """`multidrop.philox` for counters that do not follow one another: four words for each of `block`, uint64."""

    def split(number: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return number & tf.constant(np.uint64(0xFFFFFFFF)), tf.bitwise.right_shift(number, tf.constant(np.uint64(32)))

    (x0, x1), (x2, x3), (k0, k1) = split(block), split(position[1]), split(position[0])
    for _ in range(ROUNDS):
        (low0, high0), (low1, high1) = (split(x * np.uint64(m)) for x, m in zip((x0, x2), MULTIPLIERS, strict=True))
        x0, x1, x2, x3 = high1 ^ x1 ^ k0, low1, high0 ^ x3 ^ k1, low0
        k0, k1 = (split(k + np.uint64(weyl))[0] for k, weyl in zip((k0, k1), WEYL, strict=True))
    return [x0, x1, x2, x3]


def _under_xla() -> bool:
    """Whether this is a trace for XLA. TensorFlow does not tell a trace what it is for, but its callers do; where that
    is missed, the program is right and somewhat slower."""
    frame = sys._getframe()
    while frame := frame.f_back:  # type: ignore[assignment]  # None ends it
        if getattr(frame.f_locals.get("self"), "_jit_compile", None) is True:
            return True
    return False


def masked(X: tf.Tensor, p: float, position: Key | tf.Tensor, start: int = 0) -> tf.Tensor:
    """X through the mask at `position`: `dropout_layer` after its checks.

    The gradient of a dropout is the same dropout of the gradient, so that the backward pass keeps the position and
    nothing else, and can be differentiated again.
    """
    if p == 0.0:
        return X

    @tf.custom_gradient
    def dropped(X: tf.Tensor) -> tuple[tf.Tensor, Any]:
        def gradient(dY: tf.Tensor) -> tf.Tensor:
            return masked(dY, p, position, start)

        return _select(X, p, position, start), gradient

    return dropped(X)


def _select(X: tf.Tensor, p: float, position: Key | tf.Tensor, start: int) -> tf.Tensor:
    if tf.executing_eagerly() and "CPU" in X.device and X.shape.num_elements():
        return _drop_on_host(X, p, position, start)
    if isinstance(position, Key):
        position = _constant(position)
    compute = tf.float64 if X.dtype == tf.float64 else tf.float32
    scaled = tf.cast(tf.cast(X, compute) * tf.constant(masks.scale(p, compute.name), compute), X.dtype)
    shape = tuple(X.shape) if X.shape.is_fully_defined() else tf.shape(X, tf.int64)
    return tf.where(_keep_mask(shape, p, position, start), scaled, tf.zeros((), X.dtype))


def _drop_on_host(X: tf.Tensor, p: float, position: Key | tf.Tensor, start: int) -> tf.Tensor:
    """By the fused kernel, from address to address, for an eager tensor. The room for the result is TensorFlow's own,
    whose allocator keeps what it had: of fresh memory the page faults would take longer than what is computed."""
    key = position if isinstance(position, Key) else Key(*position.numpy().tolist())
    with tf.device(X.device):
        Y = tf.raw_ops.Empty(shape=X.shape, dtype=X.dtype)
    kernel.drop(_address(X), _address(Y), X.shape.num_elements(), X.dtype.name, p, key, start)
    return Y


def _address(X: tf.Tensor) -> int:
    """Where an eager tensor of the host begins. NumPy has no bfloat16 for it to come as; its bits come as integers."""
    view = np.from_dlpack(tf.bitcast(X, tf.int16) if X.dtype == tf.bfloat16 else X)
    return view.__array_interface__["data"][0]


def signed(key: Key) -> npt.NDArray[np.int64]:
    """A key as a stream variable holds it: int64 (seed, call) in two's complement, since variables of unsigned types
    have few operations."""
    return np.array([key.seed, key.call], np.uint64).view(np.int64)


def next_position(stream: tf.Variable | keras.Variable | None) -> tf.Tensor:
    """The position that a stream variable holds, and moves it on; without a stream, one whose seed `tf.random` draws,
    anew in each run of a trace.

    Raises:
        RuntimeError: in the backward pass of `tf.recompute_grad`.
    """
    _refuse_recomputation()
    if stream is None:
        seed = _draw_seed()
        return tf.stack([seed, tf.zeros_like(seed)])
    position = tf.bitcast(tf.identity(stream), tf.uint64)
    stream.assign_add([0, 1])  # wraps from 2^63 − 1 to −2^63, as two's complement is to
    return position


def _refuse_recomputation() -> None:
    """A function that is recomputed for its gradient would take another mask than it took in the forward pass, and
    give a wrong gradient in silence. TensorFlow tells it by nothing but the name of the function that calls it."""
    if any(frame.f_code.co_name == "inner_recompute_grad" for frame, _ in traceback.walk_stack(sys._getframe())):
        raise RuntimeError(
            "tf.recompute_grad (keras.remat): expected a function whose masks are named by a key; got a dropout that "
            "takes the next mask, and would take another one when it is recomputed: use dropout_layer with a key, or "
            "leave the dropout out of the function"
        )


def _constant(key: Key) -> tf.Tensor:
    return tf.constant(np.array([key.seed, key.call], np.uint64))


def _draw_seed() -> tf.Tensor:
    return tf.bitcast(tf.random.uniform((), tf.int64.min, tf.int64.max, tf.int64), tf.uint64)


class _Calls:
    """The positions of calls without a key: after `manual_seed` a stream of their own, else drawn from `tf.random`.

    A traced program outlives the `manual_seed` that it was traced under. So it asks variables in each run: whether a
    stream is in force, and for its position, which eager and traced calls advance in one sequence.
    """

    def __init__(self) -> None:
        self._start: Key | None = None
        self._stream: tf.Variable | None = None
        self._seeded: tf.Variable | None = None
        self._lock = threading.Lock()

    def restart(self, root: Key | None) -> None:
        """Go on from where `manual_seed` with that root key begins; None: from `tf.random`."""
        with self._lock:
            self._start = None if root is None else root.fold_in("calls")
            if self._stream is not None and self._seeded is not None:
                with tf.init_scope():
                    self._stream.assign(signed(self._start or Key(0)))
                    self._seeded.assign(self._start is not None)

    def next(self) -> tf.Tensor:
        """The position of this call."""
        with self._lock:
            if tf.executing_eagerly() and self._start is None:
                return next_position(None)
            if self._stream is None:
                # Here and not on import, which is to leave the devices alone; and so as to outlive a trace.
                with tf.init_scope():
                    self._stream = tf.Variable(signed(self._start or Key(0)), trainable=False, name="multidrop_calls")
                    self._seeded = tf.Variable(self._start is not None, trainable=False, name="multidrop_seeded")
            if tf.executing_eagerly():
                return next_position(self._stream)
            return tf.cond(self._seeded, lambda: next_position(self._stream), lambda: next_position(None))


_calls = _Calls()
on_manual_seed(_calls.restart)
