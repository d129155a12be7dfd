"""What is checked of arguments, in every backend with the same words: each check gives the value back, or raises an
error that names the argument, what was expected and what came."""

from __future__ import annotations

import math
import numbers
import operator
from collections.abc import Iterable, Sequence
from typing import Any

FLOATING = ("float16", "bfloat16", "float32", "float64")


def shown(value: object) -> str:
    """`value` as an error message shows it: short, with its type."""
    text = repr(value)
    text = text if len(text) <= 60 else text[:57] + "..."
    return f"{text} ({type(value).__name__})"


def probability(name: str, value: object) -> float:
    """A probability as a float.

    Raises:
        ValueError: where it is no number (a string, None, a bool), NaN, or outside [0, 1].
    """
    # A float is not asked whether it is a number, for that takes longer than the rest.
    if type(value) is float or (isinstance(value, numbers.Real) and not isinstance(value, bool)):
        p = float(value)
        if 0.0 <= p <= 1.0:
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


def _integer(value: object) -> int | None:
    if type(value) is int:
        return value
    if isinstance(value, bool):
        return None
    try:
        return operator.index(value)  # type: ignore[arg-type]  # whether it can is what is asked
    except TypeError:
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


def _integers(value: object) -> list[int | None]:
    """An integer, or each of several; None in the place of what is none."""
    single = _integer(value)
    if single is None and isinstance(value, Iterable):
        return [*map(_integer, value)]
    return [single]


def shape(value: int | Sequence[int]) -> tuple[int, ...]:
    """A shape as a tuple; an integer is that of a row.

    Raises:
        ValueError: where a dimension is no integer of at least 0.
    """
    dimensions = _integers(value)
    sizes = tuple(size for size in dimensions if size is not None and size >= 0)
    if len(sizes) < len(dimensions):
        raise ValueError(f"shape: expected integers of at least 0; got {shown(value)}")
    return sizes


def axis_numbers(value: int | Sequence[int]) -> tuple[int, ...]:
    """Axes of a tensor that is not there yet, as a tuple; an integer is one of them.

    Raises:
        ValueError: where one is no integer, or comes twice.
    """
    numbers = _integers(value)
    found = tuple(axis for axis in numbers if axis is not None)
    if len(set(found)) < len(numbers):
        raise ValueError(f"axes: expected integers, each axis once; got {shown(value)}")
    return found


def axes(value: int | Sequence[int], ndim: int) -> tuple[int, ...]:
    """Axes of a tensor of `ndim` dimensions, each counted from the first; an integer is one of them.

    Raises:
        ValueError: where one is no integer in [-ndim, ndim), or comes twice.
    """
    if isinstance(value, tuple) and not value:
        return value
    numbers = [_integer(axis) for axis in (value if isinstance(value, Sequence) else (value,))]
    found = {axis % ndim for axis in numbers if axis is not None and -ndim <= axis < ndim}
    if len(found) < len(numbers):
        raise ValueError(f"axes: expected integers in [{-ndim}, {ndim}), each axis once; got {shown(value)}")
    return tuple(sorted(found))


def positive(name: str, value: object) -> int:
    """A size or a count as an int.

    Raises:
        ValueError: where it is no integer above 0.
    """
    number = _integer(value)
    if number is None or number < 1:
        raise ValueError(f"{name}: expected an integer above 0; got {shown(value)}")
    return number


def at_least_zero(name: str, value: object) -> float:
    """A rate as a float.

    Raises:
        ValueError: where it is no finite number of at least 0.
    """
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        number = float(value)
        if math.isfinite(number) and number >= 0.0:
            return number
    raise ValueError(f"{name}: expected a finite number of at least 0; got {shown(value)}")


def choice(name: str, value: Any, choices: tuple[str, ...]) -> str:
    """One of `choices`.

    Raises:
        ValueError: where it is none of them.
    """
    if isinstance(value, str) and value in choices:
        return value
    expected = ", ".join(map(repr, choices))
    raise ValueError(f"{name}: expected one of {expected}; got {shown(value)}")


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
