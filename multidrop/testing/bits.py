"""Two results, of any frameworks, compared bit by bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..dispatch import backend_of
from ..view import LayerMask

Array = npt.NDArray[Any]


def on_host(value: Any, name: str = "X") -> Array:
    """A tensor of any framework, a mask of `multidrop.last_mask`, or host data as an array; bfloat16 as float32 where
    its framework is not NumPy.

    Raises:
        TypeError: for what is none of these; it names the argument.
    """
    if isinstance(value, LayerMask):
        return value.keep()
    if isinstance(value, np.ndarray):
        return value
    backend = backend_of(value, name)
    return backend.to_numpy(value) if isinstance(value, tuple(backend.types)) else np.asarray(value)


def same_bits(a: Array, b: Array) -> bool:
    """Whether two arrays are equal in shape, type and every bit, but for the payload of a NaN, which the specification
    leaves open (a framework's conversion between types changes it)."""
    return a.shape == b.shape and a.dtype == b.dtype and not _differing(a, b, True).any()


def _differing(a: Array, b: Array, bits: bool) -> npt.NDArray[np.bool_]:
    """Where two arrays of one shape differ; with `bits`, of one type as well."""
    if a.dtype.kind in "biu" and b.dtype.kind in "biu":
        return a != b
    a_nan, b_nan = np.isnan(a), np.isnan(b)
    equal = _words(a) == _words(b) if bits else a == b
    return ~((a_nan & b_nan) | (equal & ~a_nan & ~b_nan))


def _words(a: Array) -> Array:
    native = np.ascontiguousarray(a, a.dtype.newbyteorder("="))
    return native.view(f"u{a.dtype.itemsize}").reshape(a.shape)  # NumPy makes a row of an array without dimensions


def assert_same_values(a: Any, b: Any, bits: bool = True) -> None:
    """That two tensors, of any frameworks, are equal: any two NaN are.

    Args:
        a: a tensor, an array, or a list.
        b: another.
        bits: whether shape, type and every bit must be equal, so that −0 is not 0. (bfloat16 comes from a framework as
            float32.) False compares shape and numbers alone.

    Raises:
        AssertionError: where they differ; it tells how many elements do, and shows the first.
        TypeError: for what is of no known framework.
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
    """That two results of dropout, of any frameworks, dropped the same elements.

    Args:
        a: a bool mask, True where an element is kept; a mask of `multidrop.last_mask`; or an output, in which an
            element counts as dropped where it is 0: give the layer an X without zeros.
        b: another.

    Raises:
        AssertionError: where the masks differ; it tells how many elements do, and shows the first.
        TypeError: for what is of no known framework.
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
    """A number with its bits."""
    array = np.asarray(value)
    return f"{array} ({array.dtype} 0x{int(_words(array)):0{2 * array.dtype.itemsize}x})"
