"""The numbers of a key as TensorFlow tensors, for members of the dropout family: drawn by TensorFlow's own integer
Philox, in eager calls, traces and programs of XLA alike."""

from __future__ import annotations

import tensorflow as tf

from multidrop.family import extent
from multidrop.spec.keys import Key
from multidrop.spec.masks import Mask

from . import ops
from .functional import dropped


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
        first, position = first_of(X, self.start, axes, margin), self.key
        if isinstance(position, Key):
            position = ops.position_of(position)
        if X.shape.is_fully_defined():
            shape, _ = extent(tuple(X.shape), self.start, axes, margin)
            return ops.keep_mask(shape, p, position, first)
        sizes, wider = tf.shape(X, tf.int64), margin or (0,) * X.shape.rank
        one = tf.constant(1, tf.int64)
        drawn = [one if axis in axes else sizes[axis] + more for axis, more in enumerate(wider)]
        return ops.keep_mask(tf.stack(drawn), p, position, first)

    def normal(self, X: tf.Tensor, mean: float, stddev: float) -> tf.Tensor:
        return self.wide(mean + stddev * ops.normals(_shape(X), self.key, self.start), X)

    def uniform(self, X: tf.Tensor) -> tf.Tensor:
        return ops.uniforms(_shape(X), self.key, self.start)

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
    """The index in what is drawn of a part that begins at `start`; in a trace, sizes may be unknown.

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
