"""Checks numbers and sequences of numbers: probabilities, 64-bit words, sizes, shapes and axes."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence, Set
from typing import Any

import numpy as np

from ..shown import shown

MOST_DIMENSIONS = 64
"""The largest number of dimensions in NumPy and torch. Longer sequences are rejected unread."""


def _single(value: Any, *kinds: str) -> bool:
    """Whether the type of `value` is that of a single number: not a bool, and if it has a `dtype`, 0-dimensional and
    of one of `kinds` ("int", "float"). Checked here because frameworks also convert bools, lists of one number and
    masked values."""
    dtype = getattr(value, "dtype", None)
    if dtype is None:
        return not isinstance(value, bool)
    kind = any(kind in str(dtype) for kind in kinds)
    # Converting a tensor that requires a gradient would silently cut the gradient.
    constant = not (isinstance(value, np.ma.MaskedArray) or getattr(value, "requires_grad", False))
    return kind and constant and tuple(value.shape) == ()


def _real(value: Any) -> float | None:
    """Converts a real number of any type to a float: Python's, NumPy's, a fraction, a decimal, a 0-dimensional array
    or tensor. Returns None if `value` is not a real number or exceeds the range of a float."""
    if type(value) is float:
        return value
    try:
        number = hasattr(type(value), "__float__") or hasattr(type(value), "__index__")
        return float(value) if number and _single(value, "int", "float") else None
    except Exception:  # a user's type may raise anything
        return None


def probability(name: str, value: object) -> float:
    """Returns a probability as a float.

    Raises:
        ValueError: if it is not a number (a string, None, a bool), is NaN, or is outside [0, 1].
    """
    p = value if type(value) is float else _real(value)
    if p is not None and 0.0 <= p <= 1.0:
        return p + 0.0  # -0.0 becomes 0.0
    raise ValueError(f"{name}: expected a probability, a number in [0, 1]; got {shown(value)}")


def probability_below_one(name: str, value: object) -> float:
    """Returns a probability as a float, for formulas that divide by 1 − p.

    Raises:
        ValueError: if it is not a number in [0, 1).
    """
    p = probability(name, value)
    if p == 1.0:
        raise ValueError(f"{name}: expected a probability below 1; got {shown(value)}")
    return p


def _integer(value: Any) -> int | None:
    """Converts an integer of any type to an int: Python's, NumPy's, a 0-dimensional array or tensor, or an object with
    `__index__`. Returns None if `value` is not an integer."""
    if type(value) is int:
        return value
    try:
        typed = hasattr(value, "dtype")  # of these MXNet's have no `__index__`
        # What has neither is not tried: torch.compile of torch 2.11 stops at the error.
        if not (typed or hasattr(type(value), "__index__")) or not _single(value, "int"):
            return None
        return int(value if typed else operator.index(value))
    except Exception:  # a user's type may raise anything; TensorFlow's tensors raise an AttributeError
        return None


def word64(name: str, value: object) -> int:
    """Returns an unsigned 64-bit word as an int.

    Raises:
        ValueError: if it is not an integer in [0, 2^64).
    """
    number = value if type(value) is int else _integer(value)
    if number is None or not 0 <= number < 2**64:
        raise ValueError(f"{name}: expected an integer in [0, 2^64); got {shown(value)}")
    return number


def span(start: object, count: int) -> int:
    """Returns the index of the first of `count` elements, as an int.

    Raises:
        ValueError: if the index of the first or of the last element is not an integer in [0, 2^64).
    """
    number = word64("start", start)
    if number + count > 2**64:
        raise ValueError(f"start: expected start + count of at most 2^64; got {number} + {count}")
    return number


def _items(value: Any) -> tuple[Any, ...] | None:
    """The items of a sequence, or of a 1-dimensional array or tensor. Returns None for anything else: a set has no
    order, an iterator is consumed by reading, and bytes have integer items only by accident."""
    try:
        if isinstance(value, (str, bytes, bytearray, memoryview, Mapping, Set, np.ma.MaskedArray)):
            return None
        indexed = hasattr(type(value), "__len__") and hasattr(type(value), "__getitem__")
        if not indexed or len(value) > MOST_DIMENSIONS:
            return None
        # Iterating over an MXNet array gives arrays of one dimension and one element.
        row = hasattr(value, "dtype") and hasattr(value, "tolist") and len(value.shape) == 1
        return tuple(value.tolist() if row else value)
    except Exception:  # a user's type may raise anything
        return None


def _integers(value: object) -> tuple[int, ...] | None:
    """Converts an integer, or a sequence of integers, to a tuple of ints. Returns None if any item is not an
    integer."""
    single = _integer(value)
    items = _items(value) if single is None else (single,)
    if items is None:
        return None
    found = tuple(number for number in map(_integer, items) if number is not None)
    return found if len(found) == len(items) else None


def shape(value: int | Sequence[int]) -> tuple[int, ...]:
    """Returns a shape as a tuple. An integer n means the shape (n,).

    Raises:
        ValueError: if a dimension is not an integer of at least 0, or if NumPy cannot make an array of this shape.
    """
    sizes = _integers(value)
    if sizes is None or any(size < 0 for size in sizes):
        raise ValueError(f"shape: expected integers of at least 0; got {shown(value)}")
    try:
        np.empty(sizes, np.dtype([]))  # elements of 0 bytes: allocates nothing
        possible = math.prod(sizes) < 2**63
    except (ValueError, OverflowError):
        possible = False
    if not possible:
        raise ValueError(f"shape: expected a shape that a NumPy array can have; got {shown(value)}")
    return sizes


def dimensions(name: str, value: object) -> tuple[int | None, ...]:
    """Returns the sizes of an input's dimensions: each is an int above 0, or None for any size.

    Raises:
        ValueError: if a size is neither, or if there are no sizes.
    """
    items = _items(value) or (0,)
    sizes = tuple(None if item is None else _integer(item) or 0 for item in items)
    if any(size is not None and size < 1 for size in sizes):
        raise ValueError(f"{name}: expected an integer above 0 or None for each dimension; got {shown(value)}")
    return sizes


def axis_numbers(value: int | Sequence[int]) -> tuple[int, ...]:
    """Returns axes as a tuple, when the tensor's number of dimensions is not yet known. An integer means one axis.

    Raises:
        ValueError: if an axis is not an integer, or is given twice.
    """
    numbers = _integers(value)
    if numbers is None or len(set(numbers)) < len(numbers):
        raise ValueError(f"axes: expected integers, each axis once; got {shown(value)}")
    return numbers


def axes(value: int | Sequence[int], ndim: int) -> tuple[int, ...]:
    """Returns the axes of a tensor of `ndim` dimensions as a sorted tuple of nonnegative ints. An integer means one
    axis.

    Raises:
        ValueError: if an axis is not an integer in [-ndim, ndim), or is given twice.
    """
    if isinstance(value, tuple) and not value:
        return value
    numbers = _integers(value)
    found = {axis % ndim for axis in numbers or () if -ndim <= axis < ndim}
    if numbers is None or len(found) < len(numbers):
        raise ValueError(f"axes: expected integers in [{-ndim}, {ndim}), each axis once; got {shown(value)}")
    return tuple(sorted(found))


def positive(name: str, value: object) -> int:
    """Returns a size or a count as an int.

    Raises:
        ValueError: if it is not an integer in [1, 2^63).
    """
    number = _integer(value)
    if number is None or number < 1:
        raise ValueError(f"{name}: expected an integer above 0; got {shown(value)}")
    if number >= 2**63:
        raise ValueError(f"{name}: expected an integer below 2^63; got {shown(value)}")
    return number


def at_least_zero(name: str, value: object) -> float:
    """Returns a nonnegative number, such as a learning rate, as a float.

    Raises:
        ValueError: if it is not a finite number of at least 0.
    """
    number = _real(value)
    if number is not None and 0.0 <= number < math.inf:
        return number + 0.0  # -0.0 becomes 0.0
    raise ValueError(f"{name}: expected a finite number of at least 0; got {shown(value)}")
