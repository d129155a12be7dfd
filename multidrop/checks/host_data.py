"""Checks the types of tensors, and host data (arrays, lists and numbers) that is to become a tensor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from ..shown import shown
from .numeric import MOST_DIMENSIONS
from .strings import choice

FLOATING = ("float16", "bfloat16", "float32", "float64")
TENSOR_TYPES = (*FLOATING, "bool", "uint8", "int8", "int16", "int32", "int64")

Converted = TypeVar("Converted")


def floating(dtype: str, remedy: str, name: str = "X") -> None:
    """Checks that dropout is defined for a tensor's type.

    Args:
        dtype: the type's plain name, such as "float32".
        remedy: the framework's call that makes a floating tensor of it.
        name: the argument's name.

    Raises:
        TypeError: if the type is not floating.
    """
    if dtype not in FLOATING:
        raise not_floating(dtype, remedy, name)


def not_floating(came: str, remedy: str, name: str = "X") -> TypeError:
    """The error for an argument that is not a floating tensor. `came` is its type's plain name, or, if it is not a
    tensor, its `shown` form."""
    return TypeError(f"{name}: expected a tensor of type {', '.join(FLOATING)}; got {came}: convert it with {remedy}")


def integers(dtype: str, remedy: str, name: str) -> None:
    """Checks that a tensor's type is an integer type. Args are those of `floating`.

    Raises:
        TypeError: if it is not.
    """
    if dtype.removeprefix("u").removeprefix("int") not in ("8", "16", "32", "64"):
        raise TypeError(f"{name}: expected a tensor of integers; got {dtype}: convert it with {remedy}")


def same_type(first: str, dtype: str, name: str, remedy: str) -> None:
    """Checks that a tensor has the type of another one, both given by their plain names.

    Raises:
        TypeError: if it has not.
    """
    if dtype != first:
        raise TypeError(f"{name}: expected a tensor of type {first}; got {dtype}: convert it with {remedy}")


def labels(values: npt.NDArray[Any], classes: int) -> None:
    """Checks that each label names a class.

    Raises:
        ValueError: if one is not in [0, classes); the message shows the first.
    """
    outside = values[(values < 0) | (values >= classes)]
    if outside.size:
        raise ValueError(f"labels: expected integers in [0, {classes}); got {outside.flat[0]}")


def host_array(data: Any, name: str = "X", *, portable: bool = True) -> npt.NDArray[Any]:
    """Returns host data as a plain NumPy array of real numbers.

    Args:
        data: anything that NumPy can make an array of.
        name: the argument's name.
        portable: whether a framework is to read the array in place. Frameworks cannot read arrays that are
            byte-swapped, read-only, unaligned or have negative strides, so these are copied.

    Returns:
        A `numpy.ndarray`, not of a subclass. It shares the data's memory unless a copy is needed.

    Raises:
        TypeError: for a masked array, and for data that is not real numbers.
    """
    if isinstance(data, np.ma.MaskedArray) or (isinstance(data, (list, tuple)) and _holds_masked(data)):
        raise TypeError(f"{name}: expected an array without a mask; got {shown(data)}: fill it with {name}.filled(0)")
    try:
        array = np.asarray(data)
    except Exception as error:  # rows of unequal length; and a user's type may raise anything
        raise not_floating(shown(data), f'np.asarray({name}, "float32")', name) from error
    if array.dtype.kind not in "biuf" and array.dtype.name not in FLOATING:
        came = array.dtype.name if isinstance(data, np.ndarray | np.generic) else shown(data)
        raise not_floating(came, f'np.asarray({name}, "float32")', name)
    flags = array.flags
    readable = array.dtype.isnative and flags.aligned and flags.writeable and min(array.strides, default=0) >= 0
    if portable and not readable:
        array = np.array(array, array.dtype.newbyteorder("="), order="C")
    return array


def _holds_masked(data: Any, depth: int = 0) -> bool:
    """Whether a list, or a list within it, contains a masked array. NumPy would ignore the mask."""
    if isinstance(data, (list, tuple)):
        return depth <= MOST_DIMENSIONS and any(_holds_masked(item, depth + 1) for item in data)
    return isinstance(data, np.ma.MaskedArray)


def host_tensor(
    convert: Callable[[Any, str | None], Converted], data: Any, dtype: str | None = None, name: str = "X"
) -> Converted:
    """Makes a framework's tensor of host data.

    Args:
        convert: the framework's function of (data, dtype). It gets lists and numbers unchanged, so that the framework
            chooses their type, and anything else as an array from `host_array`.
        data: the data.
        dtype: one of `TENSOR_TYPES`, or None for the framework's own choice.
        name: the argument's name.

    Raises:
        ValueError: for an unknown dtype.
        TypeError: for data that `host_array` rejects, and for a type that the framework lacks.
    """
    dtype = None if dtype is None else choice("dtype", dtype, TENSOR_TYPES)
    array = host_array(data, name)
    plain = isinstance(data, (list, tuple)) or not hasattr(data, "__array__")
    try:
        return convert(data if plain else array, dtype)
    except Exception as error:  # each framework raises its own type; MXNet raises a KeyError
        if array.dtype.name not in FLOATING:
            raise not_floating(array.dtype.name, f'np.asarray({name}, "float32")', name) from error
        raise TypeError(
            f"{name}: expected data of a type and a shape that the framework supports; got {shown(array)}"
        ) from error
