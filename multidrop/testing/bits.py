"""Compares two results, of any frameworks, bit by bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..dispatch import backend_of
from ..view import LayerMask

Array = npt.NDArray[Any]


def on_host(value: Any, name: str = "X") -> Array:
    """Converts a tensor of any framework, a mask of `multidrop.last_mask`, or host data to an array. A framework's
    bfloat16 becomes float32.

    Raises:
        TypeError: for anything else; names the argument.
    """
    if isinstance(value, LayerMask):
        return value.keep()
    if isinstance(value, np.ndarray):
        return value
    backend = backend_of(value, name)
    return backend.to_numpy(value) if isinstance(value, tuple(backend.types)) else np.asarray(value)


def same_bits(a: Array, b: Array) -> bool:
    """Whether two arrays are equal in shape, type and every bit. Any two NaN are equal: the specification leaves their
    payload open, because a framework's conversion between types changes it."""
    return a.shape == b.shape and a.dtype == b.dtype and not _differing(a, b, True).any()


def _differing(a: Array, b: Array, bits: bool) -> npt.NDArray[np.bool_]:
    """Where two arrays of one shape differ, in bits or in value. Comparing bits needs arrays of one type."""
    if a.dtype.kind in "biu" and b.dtype.kind in "biu":
        return a != b
    a_nan, b_nan = np.isnan(a), np.isnan(b)
    equal = _words(a) == _words(b) if bits else a == b
    return ~((a_nan & b_nan) | (equal & ~a_nan & ~b_nan))


def _words(a: Array) -> Array:
    native = np.ascontiguousarray(a, a.dtype.newbyteorder("="))
    return native.view(f"u{a.dtype.itemsize}").reshape(a.shape)  # ascontiguousarray turns 0 dimensions into 1


def assert_same_values(a: Any, b: Any, bits: bool = True) -> None:
    """Asserts that two tensors, of any frameworks, are equal. Any two NaN are equal.

    Args:
        a: a tensor, an array, or a list.
        b: another.
        bits: True compares shape, type and every bit, so that −0 differs from 0 (a framework's bfloat16 counts as
            float32). False compares shape and numbers only.

    Raises:
        AssertionError: if they differ; counts the differing elements and shows the first.
        TypeError: if one is of no known framework.
    """
    x, y = on_host(a, "a"), on_host(b, "b")
    if x.shape != y.shape:
        raise AssertionError(f"shapes differ: {x.shape} and {y.shape}")
    if bits and x.dtype != y.dtype:
        raise AssertionError(f"types differ: {x.dtype} and {y.dtype}")
    differing = _differing(x, y, bits)
    if differing.any():
        at = _first(differing)
        raise AssertionError(
            f"values differ in {_count(differing)}; the first at {at}: {_shown(x[at])} and {_shown(y[at])}"
        )


def assert_same_mask(a: Any, b: Any) -> None:
    """Asserts that two results of dropout, of any frameworks, dropped the same elements.

    Args:
        a: a bool mask, True where an element is kept; a mask of `multidrop.last_mask`; or an output, in which every 0
            counts as dropped, so give the layer an X without zeros.
        b: another.

    Raises:
        AssertionError: if the masks differ; counts the differing elements and shows the first.
        TypeError: if one is of no known framework.
    """
    x, y = (_kept(on_host(value, name)) for value, name in ((a, "a"), (b, "b")))
    if x.shape != y.shape:
        raise AssertionError(f"shapes differ: {x.shape} and {y.shape}")
    differing = x != y
    if differing.any():
        at = _first(differing)
        which = ("a drops it, b keeps it", "a keeps it, b drops it")[int(x[at])]
        raise AssertionError(
            f"masks differ in {_count(differing)}; the first at {at}: {which}. a keeps {x.sum()}, b keeps {y.sum()}"
        )


def _kept(values: Array) -> npt.NDArray[np.bool_]:
    return values if values.dtype == np.bool_ else values != 0


def _first(differing: npt.NDArray[np.bool_]) -> tuple[int, ...]:
    return tuple(int(place) for place in np.unravel_index(int(differing.argmax()), differing.shape))


def _count(differing: npt.NDArray[np.bool_]) -> str:
    return f"{differing.sum()} of {differing.size} elements"


def _shown(value: Any) -> str:
    """Formats a number with its type and bits."""
    array = np.asarray(value)
    return f"{array} ({array.dtype} 0x{int(_words(array)):0{2 * array.dtype.itemsize}x})"
