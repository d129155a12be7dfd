"""The numbers of a key as TensorFlow tensors, and the one place that chooses how a mask is applied: by the fused kernel
on a tensor's own memory, by the kernel as an operator of a graph or as a call of XLA's, or by TensorFlow's own integer
Philox."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import tensorflow as tf

from multidrop.family import extent
from multidrop.spec import masks
from multidrop.spec.keys import Key
from multidrop.spec.masks import Mask

from . import internals, native, on_host, xla
from .position import PHILOX, counter_of, position_of

PLANE1 = 2**63  # plane 1 is bit 31 of the counter's second word: of the 64-bit block, the highest


def dropped(X: tf.Tensor, mask: Mask) -> tf.Tensor:
    """X through a mask, without a gradient."""
    if tf.executing_eagerly():
        return on_host.drop(X, mask) if on_host.readable(X) else _dropped_by_operators(X, mask)
    if isinstance(mask.key, Key):
        mask = mask._replace(key=position_of(mask.key))
    for_xla = None if mask.axes else internals.in_trace_for_xla()
    if for_xla and xla.available(X):
        return xla.dropout(X, mask)
    if for_xla is False and native.available():
        return native.dropout(X, mask)
    return _dropped_by_operators(X, mask)


def fuses_relu(X: tf.Tensor) -> bool:
    """Whether one pass can compute a ReLU, a dropout and later their gradient."""
    return tf.executing_eagerly() and on_host.readable(X)


def rectified(X: tf.Tensor) -> tf.Tensor:
    """max(X, 0): +0 for what is not above 0, where `tf.nn.relu` keeps -0, and NaN for NaN."""
    zero = tf.zeros((), X.dtype)
    return tf.where(zero >= X, zero, X)


class Draw:
    """`multidrop.family.Draw` for tensors.

    Args:
        key: the key, or a position.
        start: the index of the first element.
    """

    xp = tf.math

    def __init__(self, key: Key | tf.Tensor, start: int = 0) -> None:
        self.key, self.start = key, start

    def dropout(self, X: tf.Tensor, p: float, axes: tuple[int, ...] = ()) -> tf.Tensor:
        return dropped(X, Mask(p, self.key, first_of(X, self.start, axes), axes))

    def keep(self, X: tf.Tensor, p: float, axes: tuple[int, ...] = (), margin: tuple[int, ...] = ()) -> tf.Tensor:
        first = first_of(X, self.start, axes, margin)
        if X.shape.is_fully_defined():
            shape, _ = extent(tuple(X.shape), self.start, axes, margin)
            return keep_mask(shape, p, self.key, first)
        sizes, wider = tf.shape(X, tf.int64), margin or (0,) * X.shape.rank
        one = tf.constant(1, tf.int64)
        drawn = [one if axis in axes else sizes[axis] + more for axis, more in enumerate(wider)]
        return keep_mask(tf.stack(drawn), p, self.key, first)

    def normal(self, X: tf.Tensor, mean: float, stddev: float) -> tf.Tensor:
        return self.wide(mean + stddev * normals(_shape(X), self.key, self.start), X)

    def uniform(self, X: tf.Tensor) -> tf.Tensor:
        return uniforms(_shape(X), self.key, self.start)

    def select(self, X: tf.Tensor, keep: tf.Tensor, scale: float) -> tf.Tensor:
        wide = self.wide(X, X)
        return tf.where(keep, self.narrow(wide * tf.constant(scale, wide.dtype), X), tf.zeros((), X.dtype))

    def wide(self, values: tf.Tensor, X: tf.Tensor) -> tf.Tensor:
        return tf.cast(values, tf.float64 if X.dtype == tf.float64 else tf.float32)

    def narrow(self, values: tf.Tensor, X: tf.Tensor) -> tf.Tensor:
        return tf.cast(values, X.dtype)


def _shape(X: tf.Tensor) -> tf.TensorShape | tf.Tensor:
    return X.shape if X.shape.is_fully_defined() else tf.shape(X, tf.int64)


def first_of(X: tf.Tensor, start: int, axes: tuple[int, ...] = (), margin: tuple[int, ...] = ()) -> int:
    """The index, among the decisions for a whole tensor, of the first one for the part X that begins at `start`; in a
    trace, sizes may be unknown.

    Raises:
        ValueError: as `multidrop.family.extent`, and where a size that decides is not known yet.
    """
    if not (axes or margin):
        _, first = extent([size or 0 for size in X.shape] if X.shape.rank else (), start)
        return first
    if start and None in X.shape[1:]:
        raise ValueError(f"start: expected 0, where the shape of X[0] is not known; got {start}")
    _, first = extent([size or 0 for size in X.shape], start, axes, margin)
    return first


def _dropped_by_operators(X: tf.Tensor, mask: Mask) -> tf.Tensor:
    p, position, start, axes = mask
    compute = tf.float64 if X.dtype == tf.float64 else tf.float32
    scaled = tf.cast(tf.cast(X, compute) * tf.constant(masks.scale(p, compute.name), compute), X.dtype)
    if X.shape.is_fully_defined():
        shape: tuple[int, ...] | tf.Tensor = masks.drawn_shape(tuple(X.shape), axes)
    else:
        shape = tf.shape(X, tf.int64)
        if axes:  # stacked anew, which XLA can follow; nothing is drawn for an empty tensor
            drawn = tf.stack([tf.constant(1, tf.int64) if n in axes else shape[n] for n in range(X.shape.rank)])
            shape = tf.where(tf.reduce_prod(shape) == 0, shape, drawn)
    return tf.where(keep_mask(shape, p, position, start), scaled, tf.zeros((), X.dtype))


def keep_mask(shape: tuple[int, ...] | tf.Tensor, p: float, position: Key | tf.Tensor, start: int) -> tf.Tensor:
    """The mask for a static shape, which XLA needs, or for an int64 tensor that holds a shape known at the run."""
    position = position_of(position) if isinstance(position, Key) else position
    count = math.prod(shape) if isinstance(shape, tuple) else tf.reduce_prod(shape)
    high, low = divmod(masks.threshold(p), 2**16)
    if high == 2**16:  # no uint16, and above every lane
        return tf.ones(shape, tf.bool)
    first, skipped = divmod(start, 8)
    blocks = (skipped + count + 7) // 8
    lanes = _lanes(first, blocks, position)
    kept = lanes < tf.constant(np.uint16(high))
    if low:  # else plane 1 decides nothing
        ties = lanes == tf.constant(np.uint16(high))
        kept |= ties & (_lanes(first + PLANE1, blocks, position) < tf.constant(np.uint16(low)))
    return tf.reshape(kept[skipped : skipped + count], shape)


def normals(shape: tf.TensorShape | tf.Tensor, position: Key | tf.Tensor, start: int = 0) -> tf.Tensor:
    """`multidrop.spec.masks.normals` for a shape that is known, or an int64 tensor that holds one; float64."""
    compute = _normals_at_once if tf.executing_eagerly() else _normals
    return tf.reshape(compute(*_places(shape, position, start)), shape)


def uniforms(shape: tf.TensorShape | tf.Tensor, position: Key | tf.Tensor, start: int = 0) -> tf.Tensor:
    """`multidrop.spec.masks.open_uniforms` for such a shape; float64."""
    return tf.reshape(_uniforms(*_places(shape, position, start)), shape)


def _places(shape: tf.TensorShape | tf.Tensor, position: Key | tf.Tensor, start: int) -> tuple[Any, ...]:
    """The number of elements, the block of the first one, how many elements of that block come before it, and the
    position."""
    position = position_of(position) if isinstance(position, Key) else position
    count = tf.reduce_prod(shape) if tf.is_tensor(shape) else shape.num_elements()
    first, skipped = divmod(start, 8)
    if tf.executing_eagerly():
        count, skipped = tf.constant(count, tf.int64), tf.constant(skipped, tf.int64)
    return count, tf.constant(np.uint64(first)), skipped, position


def _uniforms(count: Any, first: tf.Tensor, skipped: Any, position: tf.Tensor) -> tf.Tensor:
    blocks = (skipped + count + 7) // 8
    planes = first, tf.bitwise.bitwise_or(first, tf.constant(np.uint64(PLANE1)))
    coarse, fine = (tf.cast(_lanes(block, blocks, position), tf.float64) for block in planes)
    return ((coarse * 2.0**16 + fine + 0.5) * 2.0**-32)[skipped : skipped + count]


def _normals(*places: Any) -> tf.Tensor:
    """By the quantile's arithmetic and not `tf.math.ndtri`, whose version for XLA has ten correct digits."""
    return masks.normal_quantile(_uniforms(*places), _ARITHMETIC)


_ARITHMETIC = SimpleNamespace(log=tf.math.log, sqrt=tf.sqrt, minimum=tf.minimum, where=tf.where)
_PLACES = [tf.TensorSpec((), tf.int64), tf.TensorSpec((), tf.uint64), tf.TensorSpec((), tf.int64)]
# For eager calls: a traced program of some fifty operators runs in half the time of single calls.
_normals_at_once = tf.function(_normals, [*_PLACES, tf.TensorSpec((3,), tf.int64)], autograph=False)


def _lanes(first: int | tf.Tensor, blocks: int | tf.Tensor, position: tf.Tensor) -> tf.Tensor:
    """The lanes of consecutive blocks, in order; uint16 of shape (8·blocks,).

    The operator takes the four counter words as two of 64 bits, block and call, and counts in the first. In a trace, a
    Python integer of 64 bits would lose its low bits; a NumPy one does not. In the bitcast a word's low half comes
    first: by definition under XLA, and elsewhere on little-endian machines, which all of TensorFlow's are.
    """
    seed, call = counter_of(position)
    drawn = tf.raw_ops.StatelessRandomUniformFullIntV2(
        shape=tf.convert_to_tensor([4 * blocks], tf.int64),
        key=seed[tf.newaxis],
        counter=tf.stack([first if tf.is_tensor(first) else tf.constant(np.uint64(first)), call]),
        alg=PHILOX,
        dtype=tf.uint32,
    )
    return tf.reshape(tf.bitcast(drawn, tf.uint16), [-1])
