"""The fused kernel gives the oracle's bits, for every size, type, layout and address."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from modes import DTYPES

import multidrop as md
from multidrop import host
from multidrop.host.compiled.loops import TILE
from multidrop.spec import masks
from multidrop.testing import same_bits

KEY = md.Key(2**64 - 3, 2**63 + 1)

dtypes = pytest.mark.parametrize("dtype", DTYPES)


def normal(shape: tuple[int, ...], dtype: str, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(DTYPES[dtype])


@dtypes
@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, TILE - 1, TILE, TILE + 1, 3 * TILE + 5])
@pytest.mark.parametrize("start", [0, 1, 7, 8, 2**32 - 3, 2**35 - 4, 2**63 - 9])
def test_sizes_and_starts(dtype: str, size: int, start: int) -> None:
    x = normal((size,), dtype)
    for p in (0.2, 0.5, 1e-10, 1 - 1e-10, 1.0):
        assert same_bits(host.dropout(x, p, KEY, start), masks.dropout(x, p, KEY, start))


@dtypes
@pytest.mark.parametrize("size", [1, 9, TILE - 1, TILE, TILE + 1, 3 * TILE + 5, 3 * host.GRAIN + 7])
@pytest.mark.parametrize("start", [0, 5])
@pytest.mark.parametrize("offset", [0, 1, 4, 13, 31])
def test_results_that_go_past_the_caches(
    monkeypatch: pytest.MonkeyPatch, dtype: str, size: int, start: int, offset: int
) -> None:
    """From any place in a cache line to any other, in parts that share lines, and not a byte beside."""
    monkeypatch.setattr(host, "STREAMED", 0)
    x, kind = normal((size,), dtype), DTYPES[dtype]
    around = np.full(size + 128, 7, kind)
    target = around[offset : offset + size]
    host.dropout(x, 0.2, KEY, start, target)
    assert same_bits(target, masks.dropout(x, 0.2, KEY, start))
    assert (around[:offset] == kind(7)).all()
    assert (around[offset + size :] == kind(7)).all()
    host.dropout(x, 0.2, KEY, start, x)  # in place, where nothing goes past them
    assert same_bits(x, target)


def test_large_results_go_past_the_caches() -> None:
    x = normal((host.STREAMED // 4,), "float32")
    assert same_bits(host.dropout(x, 0.2, KEY), masks.dropout(x, 0.2, KEY))


@given(st.floats(0.0, 1.0), st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.integers(0, 2**60))
def test_masks(p: float, seed: int, call: int, start: int) -> None:
    key = md.Key(seed, call)
    assert np.array_equal(md.keep_mask(300, p, key, start), masks.keep_mask(300, p, key, start))


def test_ties_are_settled_by_plane_1() -> None:
    """Thresholds whose high half many lanes equal, with every kind of low half."""
    u = masks.uniforms(2**17, KEY)
    high = int(u[1234]) >> 16
    for low in (0, 1, int(u[1234]) & 0xFFFF, (int(u[1234]) & 0xFFFF) + 1, 0xFFFF):
        p = 1.0 - (high * 2**16 + low) / 2**32
        assert masks.threshold(p) == high * 2**16 + low
        assert np.array_equal(md.keep_mask(2**17, p, KEY), u < high * 2**16 + low)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.filterwarnings("ignore:overflow encountered:RuntimeWarning")  # the oracle's, which is wanted
def test_every_value_of_the_small_types(dtype: str) -> None:
    x = np.arange(2**16, dtype=np.uint16).view(DTYPES[dtype])
    for p in (1e-10, 0.1, 1 / 3, 0.5, 0.9):
        for call in range(3):  # so that each value is kept at least once
            key = md.Key(1, call)
            assert same_bits(host.dropout(x, p, key), masks.dropout(x, p, key))


VIEWS: dict[str, Any] = {
    "transposed": lambda x: x.T,
    "channels last": lambda x: x.transpose(0, 2, 1),
    "every second row": lambda x: x[::2],
    "backwards": lambda x: x[:, ::-1],
    "a column": lambda x: x[:, :, 1],
    "one element": lambda x: x[3, 3, 3],
    "empty": lambda x: x[:, :0],
    "broadcast": lambda x: np.broadcast_to(x[:1], x.shape),
    "read-only": lambda x: np.frombuffer(x.tobytes(), x.dtype).reshape(x.shape),
    "unaligned": lambda x: np.frombuffer(b"?" + x.tobytes(), x.dtype, offset=1).reshape(x.shape),
}


@dtypes
@pytest.mark.parametrize("view", VIEWS)
def test_layouts(dtype: str, view: str) -> None:
    x = np.asarray(VIEWS[view](normal((37, 41, 5), dtype)))
    before = x.copy()
    expected = masks.dropout(x, 0.3, KEY, 5)
    assert same_bits(host.dropout(x, 0.3, KEY, 5), expected)
    out = np.empty_like(x)
    assert host.dropout(x, 0.3, KEY, 5, out) is out
    assert same_bits(out, expected)
    room = np.zeros((2, *x.shape), x.dtype)
    host.dropout(x, 0.3, KEY, 5, room[1, ...])
    assert same_bits(room[1], expected)
    assert not room[0].any()
    assert same_bits(x, before)


@dtypes
@pytest.mark.parametrize("axes", [(0,), (2,), (-1, -2), (0, 1, 2), (1, -2)], ids=str)
def test_masks_shared_along_axes(dtype: str, axes: tuple[int, ...]) -> None:
    """One decision for all elements along an axis: the mask of the smaller shape, broadcast."""
    x = normal((6, 5, 7), dtype)
    drawn = masks.keep_mask([1 if n in axes or n - 3 in axes else size for n, size in enumerate(x.shape)], 0.5, KEY, 3)
    expected = np.where(drawn, x * x.dtype.type(2), np.zeros((), x.dtype))
    for view in (lambda x: x, lambda x: np.asfortranarray(x)):
        assert same_bits(host.dropout(view(x), 0.5, KEY, 3, axes=axes), expected)
    assert same_bits(masks.dropout(x, 0.5, KEY, 3, axes), expected)


@dtypes
@pytest.mark.parametrize("axes", [(1,), (2, 3), (1, 2), (0, 2, 3), (0,), (3,)], ids=str)
def test_masks_shared_along_long_axes(dtype: str, axes: tuple[int, ...]) -> None:
    """Rows longer than a tile, in place and not, with the channels second and last, by several threads."""
    x = normal((3, 20, 99, 97), dtype)
    expected = masks.dropout(x, 0.3, KEY, 3, axes)
    assert same_bits(host.dropout(x, 0.3, KEY, 3, axes=axes), expected)
    last = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    assert same_bits(host.dropout(last, 0.3, KEY, 3, axes=axes), expected)
    assert same_bits(host.dropout(x, 0.3, KEY, 3, x, axes=axes), expected)


@pytest.mark.parametrize("shape", [(3, 17, 5, 24), (2, 8, 1, 64), (1, 70, 9, 8)], ids=str)
def test_every_order_of_axes_in_memory(shape: tuple[int, ...]) -> None:
    """Matrices that lie transposed, in whole squares and with some left over, and what is no transposed matrix."""
    x = normal(shape, "float32")
    expected = masks.dropout(x, 0.3, KEY, 5)
    for order in itertools.permutations(range(4)):
        laid = np.array(x.transpose(order), order="C").transpose(np.argsort(order))
        assert same_bits(host.dropout(laid, 0.3, KEY, 5), expected), order
        host.dropout(laid, 0.3, KEY, 5, laid)
        assert same_bits(laid, expected), order


@dtypes
def test_channels_last_by_several_threads(dtype: str) -> None:
    x = normal((5, 67, 53, 51), dtype)
    last = np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    for p in (1e-10, 0.3, 1.0):
        assert same_bits(host.dropout(last, p, KEY, 3), masks.dropout(x, p, KEY, 3))
    matrix = np.asfortranarray(x.reshape(5 * 67, -1))
    assert same_bits(host.dropout(matrix, 0.3, KEY, 3), masks.dropout(matrix, 0.3, KEY, 3))


def test_the_result_lies_as_the_input() -> None:
    x = normal((4, 6, 8, 3), "float32").transpose(0, 3, 1, 2)
    assert host.dropout(x, 0.5, KEY).strides == x.strides


@dtypes
def test_in_place_and_overlapping(dtype: str) -> None:
    x = normal((1000,), dtype)
    expected = masks.dropout(x, 0.3, KEY)
    same = x.copy()
    assert host.dropout(same, 0.3, KEY, out=same) is same
    assert same_bits(same, expected)
    room = np.concatenate([x, x[:3]])
    host.dropout(room[:1000], 0.3, KEY, out=room[3:])
    assert same_bits(room[3:], expected)
    host.dropout(x, 0.0, KEY, out=same)
    assert same_bits(same, x)


def test_another_byte_order() -> None:
    x = normal((100,), "float32").astype(">f4")
    y = host.dropout(x, 0.3, KEY)
    assert y.dtype == x.dtype
    assert np.array_equal(y, masks.dropout(x.astype("f4"), 0.3, KEY))


def test_an_out_that_does_not_fit() -> None:
    x = normal((4, 5), "float32")
    for out in (np.empty((5, 4), "f4"), np.empty((4, 5), "f8")):
        with pytest.raises(ValueError, match=r"out: expected shape \(4, 5\) and type float32; got"):
            host.dropout(x, 0.5, KEY, out=out)


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 1, 0, 2), (0, 2, 3, 1)], ids=str)
def test_a_part_lies_as_the_whole_without_gaps(order: tuple[int, ...]) -> None:
    shape = (3, 4, 5, 6)
    laid = normal(tuple(shape[axis] for axis in order), "float32").transpose(np.argsort(order))
    part = laid[1:, 1:, :, ::2]
    y = host.dropout(part, 0.5, KEY)
    assert y.transpose(order).flags.c_contiguous
    assert same_bits(y, masks.dropout(np.ascontiguousarray(part), 0.5, KEY))
