"""Arguments for `fuzzed`: Python text, and the plain value that the library should take it for, or `BAD`."""

from __future__ import annotations

import warnings
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
from hypothesis import strategies as st
from modes import DTYPES

import multidrop as md

BAD: Any = object()


class Index:
    """An integer by `__index__` alone."""

    def __index__(self) -> int:
        return 9


class Raising:
    """Raises whatever it is asked."""

    def __repr__(self) -> str:
        raise RuntimeError("repr")

    __float__ = __index__ = __len__ = __repr__  # type: ignore[assignment]  # all of them raise


class Long:
    """Has a long representation."""

    def __repr__(self) -> str:
        return "long " * 10**5


def array(dtype: str, shape: tuple[int, ...], layout: str) -> Any:
    """Values on both sides of 0, both zeros among them, in a NumPy array of that layout in memory."""
    values = np.resize(np.array([1.5, -0.0, 0.0, -2.0, np.nan, np.inf, 3.25, -0.5]), shape)
    with warnings.catch_warnings(action="ignore"):  # of NaN as an integer
        values = values.astype("O" if dtype == "record" else DTYPES.get(dtype, dtype))
    if dtype == "record":
        return np.zeros(shape, [("int", "<i4"), ("b", "<f4")])
    if layout == "reversed":
        return values[::-1].copy()[::-1] if values.ndim else values
    if layout == "strided":
        return np.repeat(values, 2, -1)[..., ::2] if values.ndim else values
    if layout == "unaligned":
        room = np.zeros(values.nbytes + 1, np.uint8)[1:]
        result = np.ndarray(shape, values.dtype, room) if dtype != "object" else values
        result[...] = values
        return result
    if layout == "read-only":
        values.flags.writeable = False
    change = {
        "Fortran": lambda: np.array(values, order="F"),
        "swapped": lambda: values.astype(values.dtype.newbyteorder(">")),
        "masked": lambda: np.ma.array(values, mask=False),
        "matrix": lambda: values.view(np.matrix) if values.ndim == 2 else values,
        "list": lambda: values.tolist(),
    }
    return change.get(layout, lambda: values)()


NUMBERS = [
    *[("0.5", 0.5), ("0", 0.0), ("1", 1.0), ("-0.0", 0.0), ("0.3", 0.3), ("5e-324", 5e-324)],
    *[(f"np.{kind}(0.25)", 0.25) for kind in ("float16", "float32", "float64", "longdouble")],
    *[("np.int64(1)", 1.0), ("np.uint8(0)", 0.0), ("np.array(0.5)", 0.5), ("np.array(1)", 1.0)],
    *[("Fraction(1, 4)", 0.25), ("Fraction(10**400, 2 * 10**400)", 0.5), ("Decimal('0.5')", 0.5)],
    *[("own(np.float32(0.25))", 0.25), ("own(np.int64(1))", 1.0)],
]
INTEGERS = [
    *[("0", 0), ("7", 7), ("2**31 - 5", 2**31 - 5), ("2**63", 2**63), ("2**64 - 70", 2**64 - 70)],
    *[("2**64 - 1", 2**64 - 1), ("Index()", 9), ("np.array(5)", 5), ("np.uint64(2**64 - 9)", 2**64 - 9)],
    *[(f"np.{kind}(np.iinfo('{kind}').max - 5)", np.iinfo(kind).max - 5) for kind in ("int8", "int32", "int64")],
    *[("own(np.int64(3))", 3), ("own(np.int32(2**31 - 5))", 2**31 - 5)],
]
NOTHING = [
    *["None", "True", "np.bool_(True)", "own(True)", "np.array(True)", "'0'", "b'0'", "nan", "-inf", "-1", "-0.5"],
    *[
        "1j",
        "np.complex64(1)",
        "10**400",
        "10**5000",
        "-10**5000",
        "Fraction(10**400)",
        "Decimal('NaN')",
        "[0]",
        "(0,)",
    ],
    *["Decimal('sNaN')", "{}", "{0}", "set()", "object()", "Raising()", "Long()", "np.array([0])", "own([0.0])", "..."],
    *["np.ma.masked", "np.ma.array(0.5)", "np.datetime64(0, 's')", "np.array(0, object)", "np.array('0')", "int"],
    *["np.zeros((), [('int', 'i4')])", "'\\ud800'", "(x for x in [0])", "range(10**9)", "[[0]]", "memoryview(b'0')"],
]
SHAPES = [
    *[((), ()), ((5,), (0,)), ((3, 4), (1,)), ((2, 3, 5), (1, 2)), ((4, 40), (0,)), ((0, 3), (1,)), ((3, 0), (0,))],
    *[((2, 3, 4, 5), (2, 3)), ((2**31, 0), (1,)), ((0, 2**31), (0, 1)), ((1, 1, 257), (2,)), ((64,), ())],
]
numbers, integers, nothing = (st.sampled_from(kind) for kind in (NUMBERS, INTEGERS, NOTHING))
bad = nothing.map(lambda text: (text, BAD))
bad_integers = st.one_of(
    bad, st.sampled_from(["1.0", "2**64", "Fraction(2)", "own(np.float32(1))"]).map(lambda x: (x, BAD))
)
probabilities = st.one_of(numbers, numbers, st.floats(0, 1).map(lambda p: (repr(p), p)), bad)
words = st.one_of(integers, integers, bad_integers)
seeds = words.filter(lambda word: word[0] != "None")  # which stands for no seed
keys = st.one_of(words, st.builds(lambda a, b: (f"md.Key({a}, {b})", md.Key(a, b)), *[st.integers(0, 2**64 - 1)] * 2))
starts = st.one_of(st.just(("0", 0)), words)
LAYOUTS = (
    "C",
    "Fortran",
    "reversed",
    "strided",
    "unaligned",
    "read-only",
    "swapped",
    "masked",
    "matrix",
    "list",
    "tensor",
)
OTHERS = (
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "bool",
    "complex64",
    "complex128",
    "object",
    "U3",
    "record",
)
SIZES = [
    *[
        ("5", (5,)),
        ("(2, 3)", (2, 3)),
        ("[4, 0]", (4, 0)),
        ("()", ()),
        ("np.int64(3)", (3,)),
        ("np.array([2, 2])", (2, 2)),
    ],
    *[
        ("range(1, 4)", (1, 2, 3)),
        ("(Index(), np.uint8(2))", (9, 2)),
        ("(2**31, 0)", (2**31, 0)),
        ("own([2, 3])", (2, 3)),
    ],
    *[
        (text, BAD)
        for text in ("{2, 3}", "{2: 3}", "b'23'", "'23'", "(1,) * 65", "(2**70,)", "(2**40, 2**40)", "(2**63, 0)")
    ],
    *[
        (text, BAD)
        for text in ("(-1, 0)", "(2.0,)", "(True,)", "None", "range(10**12)", "(None, 2)", "[[2]]", "np.eye(2)")
    ],
    *[(text, BAD) for text in ("10**5000", "(x for x in (2,))", "(10**5000,)", "Raising()", "np.ma.array([2, 3])")],
]

# What the texts name, besides `own`, which makes a tensor of the framework under test.
NAMES = {
    "md": md,
    "np": np,
    "Decimal": Decimal,
    "Fraction": Fraction,
    "DTYPES": DTYPES,
    "array": array,
    "Index": Index,
    "Raising": Raising,
    "Long": Long,
    "nan": np.nan,
    "inf": np.inf,
}
