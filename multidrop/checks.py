"""Checks of arguments, in every backend with the same words. Each check converts: it returns a plain Python or NumPy
value, which the caller uses from there on in place of its argument, or raises an error that names the argument, what
was expected and what came."""

from __future__ import annotations

import math
import numbers
import operator
import os
from collections.abc import Callable, Mapping, Sequence, Set
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from .shown import shown as shown

FLOATING = ("float16", "bfloat16", "float32", "float64")
TENSOR_TYPES = (*FLOATING, "bool", "uint8", "int8", "int16", "int32", "int64")

Converted = TypeVar("Converted")


def _single(value: Any, *kinds: str) -> bool:
    """Whether `value` is one number, as far as its type tells: no bool, and where it has a `dtype`, without dimensions
    and of one of those kinds ("int", "float"). Frameworks convert bools, lists of one number and masked values too."""
    dtype = getattr(value, "dtype", None)
    if dtype is None:
        return not isinstance(value, bool)
    kind = any(kind in str(dtype) for kind in kinds)
    # torch does not take a number for a parameter's value either where that is to have a gradient.
    fixed = not (isinstance(value, np.ma.MaskedArray) or getattr(value, "requires_grad", False))
    return kind and fixed and tuple(value.shape) == ()


def _real(value: Any) -> float | None:
    """A real number of any type as a float: Python's, NumPy's, a fraction, a decimal, an array or a tensor without
    dimensions; None for what is none, or beyond all floats."""
    if type(value) is float:
        return value
    try:
        number = hasattr(type(value), "__float__") or hasattr(type(value), "__index__")
        return float(value) if number and _single(value, "int", "float") else None
    except Exception:  # a type of the caller's may raise anything
        return None


def probability(name: str, value: object) -> float:
    """A probability as a float.

    Raises:
        ValueError: where it is no number (a string, None, a bool), NaN, or outside [0, 1].
    """
    p = _real(value)
    if p is not None and 0.0 <= p <= 1.0:
        return p + 0.0  # -0.0 becomes 0.0
    raise ValueError(f"{name}: expected a probability, a number in [0, 1]; got {shown(value)}")


def probability_below_one(name: str, value: object) -> float:
    """A probability as a float, where 1 would mean a division by 0.

    Raises:
        ValueError: where it is no number in [0, 1).
    """
    p = probability(name, value)
    if p == 1.0:
        raise ValueError(f"{name}: expected a probability below 1; got {shown(value)}")
    return p


def flag(name: str, value: object) -> bool:
    """True or False.

    Raises:
        ValueError: where it is neither.
    """
    if isinstance(value, bool):
        return value
    raise ValueError(f"{name}: expected True or False; got {shown(value)}")


def _integer(value: Any) -> int | None:
    """An integer of any type as an int: Python's, NumPy's, an array or a tensor without dimensions, or an object with
    `__index__`; None for what is none."""
    if type(value) is int:
        return value
    try:
        if not _single(value, "int"):
            return None
        return int(value if hasattr(value, "dtype") else operator.index(value))  # MXNet's arrays have no `__index__`
    except Exception:  # a type of the caller's may raise anything; TensorFlow's raises an AttributeError
        return None


def word64(name: str, value: object) -> int:
    """A 64-bit word as an int.

    Raises:
        ValueError: where it is no integer in [0, 2^64).
    """
    number = _integer(value)
    if number is None or not 0 <= number < 2**64:
        raise ValueError(f"{name}: expected an integer in [0, 2^64); got {shown(value)}")
    return number


def span(start: object, count: int) -> int:
    """The index of a tensor's first element, as an int.

    Raises:
        ValueError: where it, or that of the last of `count` elements, is no integer in [0, 2^64).
    """
    number = word64("start", start)
    if number + count > 2**64:
        raise ValueError(f"start: expected start + count of at most 2^64; got {number} + {count}")
    return number


_MOST_DIMENSIONS = 64  # of NumPy and of torch; what is longer is not looked through


def _items(value: Any) -> tuple[Any, ...] | None:
    """The items of a sequence, an array or a tensor of one dimension; None for what has no order (a set), is used up
    (an iterator), or has more than any shape. Bytes are none: their items are integers only by accident."""
    try:
        if isinstance(value, (str, bytes, bytearray, memoryview, Mapping, Set, np.ma.MaskedArray)):
            return None
        indexed = hasattr(type(value), "__len__") and hasattr(type(value), "__getitem__")
        if not indexed or len(value) > _MOST_DIMENSIONS:
            return None
        # The items of an array of MXNet's are arrays with one dimension, which hold one number.
        row = hasattr(value, "dtype") and hasattr(value, "tolist") and len(value.shape) == 1
        return tuple(value.tolist() if row else value)
    except Exception:  # a type of the caller's may raise anything
        return None


def _integers(value: object) -> tuple[int, ...] | None:
    """An integer, or each of several; None where one is none."""
    single = _integer(value)
    items = _items(value) if single is None else (single,)
    if items is None:
        return None
    found = tuple(number for number in map(_integer, items) if number is not None)
    return found if len(found) == len(items) else None


def shape(value: int | Sequence[int]) -> tuple[int, ...]:
    """A shape as a tuple; an integer is that of a row.

    Raises:
        ValueError: where a dimension is no integer of at least 0, or NumPy can have no such array.
    """
    sizes = _integers(value)
    if sizes is None or any(size < 0 for size in sizes):
        raise ValueError(f"shape: expected integers of at least 0; got {shown(value)}")
    try:
        np.empty(sizes, np.dtype([]))  # which takes no memory
        possible = math.prod(sizes) < 2**63
    except (ValueError, OverflowError):
        possible = False
    if not possible:
        raise ValueError(f"shape: expected one that a NumPy array can have; got {shown(value)}")
    return sizes


def dimensions(name: str, value: object) -> tuple[int | None, ...]:
    """Sizes of an input's dimensions, each an int above 0, or None where it is left open.

    Raises:
        ValueError: where one is neither, or there is none.
    """
    items = _items(value) or (0,)
    sizes = tuple(None if item is None else _integer(item) or 0 for item in items)
    if any(size is not None and size < 1 for size in sizes):
        raise ValueError(f"{name}: expected integers above 0 or None, one a dimension; got {shown(value)}")
    return sizes


def axis_numbers(value: int | Sequence[int]) -> tuple[int, ...]:
    """Axes of a tensor that is not there yet, as a tuple; an integer is one of them.

    Raises:
        ValueError: where one is no integer, or comes twice.
    """
    numbers = _integers(value)
    if numbers is None or len(set(numbers)) < len(numbers):
        raise ValueError(f"axes: expected integers, each axis once; got {shown(value)}")
    return numbers


def axes(value: int | Sequence[int], ndim: int) -> tuple[int, ...]:
    """Axes of a tensor of `ndim` dimensions, each counted from the first; an integer is one of them.

    Raises:
        ValueError: where one is no integer in [-ndim, ndim), or comes twice.
    """
    if isinstance(value, tuple) and not value:
        return value
    numbers = _integers(value)
    found = {axis % ndim for axis in numbers or () if -ndim <= axis < ndim}
    if numbers is None or len(found) < len(numbers):
        raise ValueError(f"axes: expected integers in [{-ndim}, {ndim}), each axis once; got {shown(value)}")
    return tuple(sorted(found))


def positive(name: str, value: object) -> int:
    """A size or a count as an int.

    Raises:
        ValueError: where it is no integer in [1, 2^63).
    """
    number = _integer(value)
    if number is None or number < 1:
        raise ValueError(f"{name}: expected an integer above 0; got {shown(value)}")
    if number >= 2**63:
        raise ValueError(f"{name}: expected an integer below 2^63; got {shown(value)}")
    return number


def at_least_zero(name: str, value: object) -> float:
    """A rate as a float.

    Raises:
        ValueError: where it is no finite number of at least 0.
    """
    number = _real(value)
    if number is not None and 0.0 <= number < math.inf:
        return number + 0.0  # -0.0 becomes 0.0
    raise ValueError(f"{name}: expected a finite number of at least 0; got {shown(value)}")


def text(name: str, value: str) -> bytes:
    """A string as UTF-8.

    Raises:
        ValueError: where it holds half of a surrogate pair, which has no encoding.
    """
    try:
        return str.encode(value)
    except UnicodeEncodeError:
        raise ValueError(f"{name}: expected a string without unpaired surrogates; got {shown(value)}") from None


def choice(name: str, value: Any, choices: tuple[str, ...]) -> str:
    """One of `choices`.

    Raises:
        ValueError: where it is none of them.
    """
    if isinstance(value, str) and value in choices:
        return choices[choices.index(value)]  # and no subclass of str
    expected = ", ".join(map(repr, choices))
    raise ValueError(f"{name}: expected one of {expected}; got {shown(value)}")


def path(name: str, value: object, expected: str = "the path of a file, a string or a Path") -> Path:
    """A path that a file can have, whether one is there or not.

    Raises:
        ValueError: where it is no path of characters, or contains the character NUL.
    """
    text = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(text, str) or "\0" in text:
        raise ValueError(f"{name}: expected {expected}; got {shown(value)}")
    return Path(text)


def json_object(name: str, value: Any) -> dict[str, Any]:
    """A mapping of names to what JSON can hold, as JSON gives it back: tuples are lists, and a number that is not
    finite, which JSON cannot hold, is None.

    Raises:
        ValueError: where it is no such mapping.
    """
    if isinstance(value, Mapping):
        with suppress(TypeError, RecursionError):
            return {_text(key): _of_json(item) for key, item in value.items()}
    raise ValueError(f"{name}: expected names and values that JSON can hold; got {shown(value)}")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _of_json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {_text(key): _of_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_of_json(item) for item in value]
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value) if math.isfinite(value) else None
    raise TypeError


def labels(values: npt.NDArray[Any], classes: int) -> None:
    """That each label names a class.

    Raises:
        ValueError: where one is not in [0, classes); it shows the first.
    """
    outside = values[(values < 0) | (values >= classes)]
    if outside.size:
        raise ValueError(f"labels: expected integers in [0, {classes}); got {outside.flat[0]}")


def integers(dtype: str, remedy: str, name: str) -> None:
    """That a tensor's type is an integer's. Args are those of `floating`.

    Raises:
        TypeError: where it is not.
    """
    if dtype.removeprefix("u").removeprefix("int") not in ("8", "16", "32", "64"):
        raise TypeError(f"{name}: expected a tensor of integers; got {dtype}: convert it with {remedy}")


def same_type(first: str, dtype: str, name: str, remedy: str) -> None:
    """That a tensor's type is that of another, by their plain names.

    Raises:
        TypeError: where it is not.
    """
    if dtype != first:
        raise TypeError(f"{name}: expected a tensor of type {first}; got {dtype}: convert it with {remedy}")


def floating(dtype: str, remedy: str, name: str = "X") -> None:
    """That a tensor's type is one that dropout is defined for.

    Args:
        dtype: the type's plain name, such as "float32".
        remedy: how the user makes a floating tensor of it, in the framework's own terms.
        name: the argument's.

    Raises:
        TypeError: where it is not.
    """
    if dtype not in FLOATING:
        raise not_floating(dtype, remedy, name)


def not_floating(came: str, remedy: str, name: str = "X") -> TypeError:
    """The error for what is no floating tensor: `came` is its type's plain name, or what is `shown` of no tensor."""
    return TypeError(f"{name}: expected a tensor of type {', '.join(FLOATING)}; got {came}: convert it with {remedy}")


def host_array(data: Any, name: str = "X", *, portable: bool = True) -> npt.NDArray[Any]:
    """Host data as a plain NumPy array of real numbers.

    Args:
        data: anything that NumPy makes an array of.
        name: the argument's.
        portable: whether it is for a framework, which cannot read every array in place: a copy is made of what is
            byte-swapped, read-only, not aligned to its type, or runs backwards.

    Returns:
        A `numpy.ndarray` and no subclass, of the data's own memory where no copy is needed.

    Raises:
        TypeError: for a masked array, and for what holds no real numbers.
    """
    if isinstance(data, np.ma.MaskedArray) or (isinstance(data, (list, tuple)) and _holds_masked(data)):
        raise TypeError(f"{name}: expected an array without a mask; got {shown(data)}: fill it with {name}.filled(0)")
    try:
        array = np.asarray(data)
    except Exception as error:  # of rows of unequal length, and of what a type of the caller's raises
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
    """Whether a masked array is among the items of a list, or of the lists in it: NumPy would take its values."""
    if isinstance(data, (list, tuple)):
        return depth <= _MOST_DIMENSIONS and any(_holds_masked(item, depth + 1) for item in data)
    return isinstance(data, np.ma.MaskedArray)


def host_tensor(
    convert: Callable[[Any, str | None], Converted], data: Any, dtype: str | None = None, name: str = "X"
) -> Converted:
    """A framework's tensor of host data.

    Args:
        convert: the framework's function of (data, dtype). Lists and numbers come to it as they are, after they were
            checked, so that it decides on their type; anything else comes as an array of `host_array`.
        data: the data.
        dtype: one of `TENSOR_TYPES`, or None for the type that the framework gives such data.
        name: the argument's.

    Raises:
        ValueError: for another dtype.
        TypeError: for what `host_array` refuses, and for a type that the framework lacks.
    """
    dtype = None if dtype is None else choice("dtype", dtype, TENSOR_TYPES)
    array = host_array(data, name)
    plain = isinstance(data, (list, tuple)) or not hasattr(data, "__array__")
    try:
        return convert(data if plain else array, dtype)
    except Exception as error:  # each framework has its own, and MXNet a KeyError
        if array.dtype.name not in FLOATING:
            raise not_floating(array.dtype.name, f'np.asarray({name}, "float32")', name) from error
        raise TypeError(
            f"{name}: expected data of a type and a shape that the framework has; got {shown(array)}"
        ) from error
