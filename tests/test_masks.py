"""The oracle against the specification: its vectors, and a second reading of its text in plain Python integers."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import multidrop as md
from multidrop.spec import masks
from multidrop.spec.philox import philox4x32

# From an implementation that is not part of this project: (key, start, U of the first elements, keep bits by p).
VECTORS = [
    (
        md.Key(0, 0),
        0,
        "e8d50ccf 6627a2b2 c58d8772 e1695140",
        {
            0.5: "0100000000111001011111110011101100001000010110011000001110110001",
            0.2: "0110110110111101111111110111111110011000111111011110001111110101",
        },
    ),
    (
        md.Key(7, 3),
        0,
        "56d92cf5 97b30eb1 3c4292d1 1fb00f02",
        {0.5: "1011011010111100111011010110010110001000101100111100011000001101"},
    ),
    (md.Key(11, 5), 2**35 - 4, "", {0.5: "1000011111010011"}),
]

words64 = st.integers(0, 2**64 - 1)


def uniform(key: md.Key, index: int) -> int:
    """U(i) as the specification's text says it, one element at a time."""
    block, lane = divmod(index, 8)
    halves = []
    for plane in (0, 1):
        counter = (block % 2**32, block // 2**32 + plane * 2**31, key.call % 2**32, key.call // 2**32)
        word = int(philox4x32(counter, key.seed)[lane // 2][0])
        halves.append(word % 2**16 if lane % 2 == 0 else word // 2**16)
    return halves[0] * 2**16 + halves[1]


@pytest.mark.parametrize(("key", "start", "expected", "keep"), VECTORS)
def test_vectors(key: md.Key, start: int, expected: str, keep: dict[float, str]) -> None:
    values = [int(word, 16) for word in expected.split()]
    assert masks.uniforms(len(values), key, start).tolist() == values
    for p, mask in keep.items():
        assert "".join("01"[int(kept)] for kept in masks.keep_mask(len(mask), p, key, start)) == mask


@given(words64, words64, st.integers(0, 2**64 - 40), st.integers(0, 40))
def test_uniforms_are_those_of_the_text(seed: int, call: int, start: int, count: int) -> None:
    key = md.Key(seed, call)
    assert masks.uniforms(count, key, start).tolist() == [uniform(key, start + i) for i in range(count)]


@pytest.mark.parametrize("start", [2**32 - 3, 2**35 - 3, 2**63 - 3, 2**64 - 20])
def test_uniforms_beyond_32_bits(start: int) -> None:
    key = md.Key(2**64 - 1, 2**63 + 5)
    assert masks.uniforms(20, key, start).tolist() == [uniform(key, start + i) for i in range(20)]


@given(st.floats(0.0, 1.0))
def test_threshold_is_rounded_half_to_even(p: float) -> None:
    exact = Fraction(1.0 - p) * 2**32  # 1 − p is taken in float64, as the specification does
    below = exact.numerator // exact.denominator
    rest = exact - below
    above = rest > Fraction(1, 2) or (rest == Fraction(1, 2) and below % 2 == 1)
    assert masks.threshold(p) == below + above


def test_threshold_ends() -> None:
    assert [masks.threshold(p) for p in (0.0, 1e-10, 0.5, 1 - 1e-10, 1.0)] == [2**32, 2**32, 2**31, 0, 0]


@pytest.mark.parametrize("offset", [0, 1])
def test_an_element_on_the_threshold(offset: int) -> None:
    """U < T is strict: with T = U the element is dropped, with T = U + 1 it is kept."""
    key = md.Key(3, 1)
    for index, u in enumerate(masks.uniforms(64, key).tolist()):
        p = 1.0 - (u + offset) / 2**32
        assert masks.threshold(p) == u + offset
        assert bool(masks.keep_mask(64, p, key)[index]) == bool(offset)


@given(words64, st.integers(0, 2**62), st.integers(0, 200), st.integers(0, 200))
def test_a_part_has_the_mask_of_the_whole(seed: int, start: int, first: int, count: int) -> None:
    whole = masks.keep_mask(first + count, 0.3, seed, start)
    assert np.array_equal(whole[first:], masks.keep_mask(count, 0.3, seed, start + first))


def test_shapes() -> None:
    flat = masks.keep_mask(24, 0.5, 1)
    assert np.array_equal(masks.keep_mask((2, 3, 4), 0.5, 1), flat.reshape(2, 3, 4))
    assert masks.keep_mask((3, 0, 4), 0.5, 1).shape == (3, 0, 4)
    assert masks.keep_mask((), 0.5, 1).shape == ()
    assert masks.keep_mask(5, 0.0, 1).all()
    assert not masks.keep_mask(5, 1.0, 1).any()


def test_different_keys_give_different_masks() -> None:
    keys = [md.Key(0), md.Key(1), md.Key(0, 1), md.Key(2**32), md.Key(0, 2**32), md.Key(0).fold_in(0)]
    drawn = {masks.keep_mask(128, 0.5, key).tobytes() for key in keys}
    assert len(drawn) == len(keys)


def test_dropped_nan_and_infinity_become_plus_zero() -> None:
    x = np.array([np.nan, np.inf, -np.inf, -1.0] * 16)
    y = masks.dropout(x, 0.5, 0)
    keep = masks.keep_mask(x.shape, 0.5, 0)
    assert (y[~keep].view(np.uint64) == 0).all()
    assert np.array_equal(y[keep], (2 * x)[keep], equal_nan=True)


def test_scale_is_rounded_once() -> None:
    assert masks.scale(0.1, "float64") == 1.0 / (1.0 - 0.1)
    assert masks.scale(0.1, "bfloat16") == float(np.float32(1.0 / (1.0 - 0.1)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-1, 0.5, 0), "shape"),
        ((8, 1.5, 0), "dropout: expected a probability"),
        ((8, 0.5, -1), r"key: expected an integer in \[0, 2\^64\); got -1"),
        ((8, 0.5, "0"), "key: expected"),
        ((8, 0.5, 0, -8), "start: expected"),
        ((8, 0.5, 0, 2**64 - 7), r"start \+ count of at most 2\^64"),
    ],
)
def test_bad_arguments(arguments: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        masks.keep_mask(*arguments)
