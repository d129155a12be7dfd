"""The vectors of the family: what each member gives, bit by bit, for inputs that a formula gives.

`vectors.json`, beside this file, is for any language. Its field "about" says how to read it; `tools/make_vectors.py`
writes it from the oracle.
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
"""What numbers that a logarithm gave may differ by: the specification promises 16 units of float64, and a framework may
round a product and a sum once."""


class Case(NamedTuple):
    """One vector."""

    member: Member
    shape: tuple[int, ...]
    key: Key
    start: int
    exact: bool
    outputs: dict[str, str]
    """Hexadecimal digits, by type."""


def inputs(shape: Sequence[int]) -> npt.NDArray[np.float64]:
    """X, as "about" gives it; every type holds it exactly."""
    i = np.arange(prod(shape))
    x = ((37 * i + 11) % 64 - 32) / 8.0
    for place, value in SPECIAL.items():
        x[i % 16 == place] = value
    return x.reshape(shape)


@cache
def cases() -> tuple[Case, ...]:
    """All vectors."""
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
    """An array's bits as hexadecimal digits; a NaN's are those of the quiet one that has no payload."""
    flat = values.astype(values.dtype.newbyteorder("=")).ravel()
    flat[np.isnan(flat)] = np.nan
    size = flat.dtype.itemsize
    sign = np.uint64(1 << (8 * size - 1))
    words = flat.view(f"u{size}").astype(np.uint64)
    words[np.isnan(flat)] &= ~sign
    return "".join(f"{int(word):0{2 * size}x}" for word in words)


def numbers(text: str, dtype: str, shape: Sequence[int]) -> Array:
    """The array that `digits` wrote; of bfloat16, as float32."""
    size = 2 if dtype in ("float16", "bfloat16") else int(dtype.removeprefix("float")) // 8
    words = np.array([int(text[at : at + 2 * size], 16) for at in range(0, len(text), 2 * size)], f"u{size}")
    if dtype == "bfloat16":
        return (words.astype(np.uint32) << np.uint32(16)).view(np.float32).reshape(shape)
    return words.view(dtype).reshape(shape)


class _DecisionsAlone(oracle.Draw):
    """Draws of which none may be a real number."""

    def normal(self, X: Array, mean: float, stddev: float) -> Array:
        raise LookupError

    def uniform(self, X: Array) -> Array:
        raise LookupError


def draws_reals(member: Member) -> bool:
    """Whether a member draws normal numbers or uniforms, which a logarithm goes into; else its values are exact."""
    try:
        member(np.ones(member.example_shape, np.float32), _DecisionsAlone(Key(0)))
    except LookupError:
        return True
    return False


def differing(got: Array, expected: Array, bound: float) -> npt.NDArray[np.bool_]:
    """Where two arrays of one shape and type differ: in a bit, or for a bound above 0, by more than it allows."""
    if bound == 0.0:
        return _differing(got, expected, True)
    a, b = got.astype(np.float64), expected.astype(np.float64)
    return ~np.isclose(a, b, rtol=bound, atol=bound, equal_nan=True)
