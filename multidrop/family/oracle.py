"""Runs members on NumPy arrays: the oracle of the family, and its implementation in NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .. import host
from ..spec import masks
from ..spec.keys import Key
from ._member import Member, extent, run

Array = npt.NDArray[Any]


class Draw:
    """`multidrop.family.Draw` for NumPy arrays.

    Args:
        key: the key.
        start: the index of the first element.
    """

    xp = np

    def __init__(self, key: Key, start: int = 0) -> None:
        self.key, self.start = key, start

    def dropout(self, X: Array, p: float, axes: tuple[int, ...] = ()) -> Array:
        _, first = extent(X.shape, self.start, axes)
        return host.dropout(X, p, self.key, first, axes=axes)

    def keep(self, X: Array, p: float, axes: tuple[int, ...] = (), margin: tuple[int, ...] = ()) -> Array:
        shape, first = extent(X.shape, self.start, axes, margin)
        return host.keep_mask(shape, p, self.key, first)

    def normal(self, X: Array, mean: float, stddev: float) -> Array:
        return self.wide(mean + stddev * masks.normals(X.shape, self.key, self.start), X)

    def uniform(self, X: Array) -> Array:
        return masks.open_uniforms(X.shape, self.key, self.start)

    def select(self, X: Array, keep: Array, scale: float) -> Array:
        wide = self.wide(X, X)
        return np.where(keep, (wide * wide.dtype.type(scale)).astype(X.dtype), np.zeros((), X.dtype))

    def wide(self, values: Array, X: Array) -> Array:
        return values.astype(np.float64 if X.dtype == np.float64 else np.float32, copy=False)

    def narrow(self, values: Array, X: Array) -> Array:
        return values.astype(X.dtype, copy=False)


def apply(
    member: Member, X: Array, key: Key, start: int = 0, *, gradient: bool = False, learned: Array | None = None
) -> Array:
    """`multidrop.family.run` for an array. Returns a new array like X, or X itself if the member is idle."""
    # NumPy 1 treats an array without dimensions as a Python number, and computes in float64.
    flat = X.reshape(1) if X.ndim == 0 else X
    if learned is not None:
        learned = np.asarray(learned)
    with np.errstate(over="ignore", invalid="ignore"):  # no warnings, as in the other frameworks
        Y = run(member, flat, Draw(key, start), gradient, learned)
    return X if Y is flat else Y.reshape(X.shape)


def learned_gradient(member: Any, dY: Array, X: Array, learned: Array, key: Key, start: int = 0) -> Array:
    """The gradient of `apply` with respect to `learned`, of its shape and type.

    Args:
        dY: the gradient with respect to the output.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        each = member.learned_gradient(np.atleast_1d(dY), np.atleast_1d(X), Draw(key, start), learned)
    shape = np.shape(learned)
    padded = (1,) * (each.ndim - len(shape)) + shape
    summed = each.sum(axis=tuple(axis for axis, n in enumerate(padded) if n == 1), keepdims=True)
    return summed.reshape(shape).astype(learned.dtype)
