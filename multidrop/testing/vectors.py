"""Test vectors: the output of each member of the family, bit by bit, for inputs computed by a formula.

Any language can read `vectors.json`, beside this file. Its field "about" explains the format; `tools/make_vectors.py`
writes the file from the oracle.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .. import family
from ..family import Member, oracle
from ..spec.keys import Key
from .bits import _differing

Array = npt.NDArray[Any]

FILE = Path(__file__).with_name("vectors.json")
ABOUT = (
    "Each case: a member of the family with its settings, applied to a tensor X of `shape`, with `key` (seed, call) "
    "and `start`, the index of X's first element in the whole tensor. Integers of 64 bits are strings of decimal "
    "digits. Element i of X, in row-major order, from 0: NaN where i mod 16 is 3, +infinity where it is 7, -infinity "
    "where it is 11, -0 where it is 14, else (((37*i + 11) mod 64) - 32)/8, which each type holds exactly. `outputs`:"
    " by type, the output's elements in row-major order, each as the hexadecimal digits of its bits, most significant"
    " first (4 digits for float16 and bfloat16, 8 for float32, 16 for float64), without separators. Any NaN equals "
    "any other. Where `exact` is true, each other element is equal in every bit; else |got - expected| <= bound*(1 + "
    "|expected|), with the type's bound in `bounds`."
)
SPECIAL = {3: np.nan, 7: np.inf, 11: -np.inf, 14: -0.0}
BOUNDS = {"float16": 2.0**-10, "bfloat16": 2.0**-7, "float32": 2.0**-22, "float64": 2.0**-45}
"""The largest difference allowed, by type, in numbers computed with a logarithm. The specification promises 16 units in
the last place of float64, and a framework may round a product and a sum once (a fused multiply-add)."""


class Case(NamedTuple):
    """A test vector."""

    member: Member
    shape: tuple[int, ...]
    key: Key
    start: int
    exact: bool
    outputs: dict[str, str]
    """The output's hexadecimal digits, by type."""


def inputs(shape: Sequence[int]) -> npt.NDArray[np.float64]:
    """Returns X of a shape, by the formula in "about". Every type holds its values exactly."""
    i = np.arange(prod(shape))
    x = ((37 * i + 11) % 64 - 32) / 8.0
    for place, value in SPECIAL.items():
        x[i % 16 == place] = value
    return x.reshape(shape)


@cache
def cases() -> tuple[Case, ...]:
    """Returns all vectors."""
    return tuple(
        Case(
            getattr(family, case["member"])(**case["settings"]),
            tuple(case["shape"]),
            Key(*map(int, case["key"])),
            int(case["start"]),
            case["exact"],
            case["outputs"],
        )
        for case in json.loads(FILE.read_text())["cases"]
    )


def digits(values: Array) -> str:
    """Returns an array's bits as hexadecimal digits; every NaN is written as the quiet NaN without payload."""
    flat = values.astype(values.dtype.newbyteorder("=")).ravel()
    flat[np.isnan(flat)] = np.nan
    size = flat.dtype.itemsize
    sign = np.uint64(1 << (8 * size - 1))
    words = flat.view(f"u{size}").astype(np.uint64)
    words[np.isnan(flat)] &= ~sign
    return "".join(f"{int(word):0{2 * size}x}" for word in words)


def numbers(text: str, dtype: str, shape: Sequence[int]) -> Array:
    """Reads the array that `digits` wrote; bfloat16 is returned as float32."""
    size = 2 if dtype in ("float16", "bfloat16") else int(dtype.removeprefix("float")) // 8
    words = np.array([int(text[at : at + 2 * size], 16) for at in range(0, len(text), 2 * size)], f"u{size}")
    if dtype == "bfloat16":
        return (words.astype(np.uint32) << np.uint32(16)).view(np.float32).reshape(shape)
    return words.view(dtype).reshape(shape)


class _DecisionsAlone(oracle.Draw):
    """Raises LookupError if a member draws a real number."""

    def normal(self, X: Array, mean: float, stddev: float) -> Array:
        raise LookupError

    def uniform(self, X: Array) -> Array:
        raise LookupError


def draws_reals(member: Member) -> bool:
    """Whether a member draws normal or uniform numbers, which need a logarithm; otherwise its values are exact."""
    try:
        member(np.ones(member.example_shape, np.float32), _DecisionsAlone(Key(0)))
    except LookupError:
        return True
    return False


def differing(got: Array, expected: Array, bound: float) -> npt.NDArray[np.bool_]:
    """Where two arrays of one shape and type differ: in any bit if the bound is 0, else by more than the bound."""
    if bound == 0.0:
        return _differing(got, expected, True)
    a, b = got.astype(np.float64), expected.astype(np.float64)
    return ~np.isclose(a, b, rtol=bound, atol=bound, equal_nan=True)
