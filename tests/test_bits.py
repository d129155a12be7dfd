"""Every backend, in every mode, gives the masks and the values of the specification in every bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from modes import DTYPES, Mode

import multidrop as md
from multidrop.spec import masks
from multidrop.testing import same_bits

KEYS = (md.Key(0), md.Key(7, 3), md.Key(2**64 - 1, 2**64 - 1), md.Key(2**31, 2**32), md.Key(2**63, 2**63))
PROBABILITIES = (1e-10, 0.1, 0.2, 0.25, 0.5, 1 / 3, 0.9, 1 - 1e-10)
SHAPES: tuple[tuple[int, ...], ...] = ((), (1,), (7,), (8,), (2, 8), (3, 5, 7), (0,), (4, 0, 3), (129, 65))
STARTS = (0, 1, 7, 8, 13, 2**32 - 5, 2**32, 2**35 - 4, 2**63 - 9, 2**64 - 10_000)


def tie(key: md.Key, index: int, offset: int) -> float:
    """A probability whose threshold is U(index) + offset."""
    return 1.0 - (int(masks.uniforms(1, key, index)[0]) + offset) / 2**32


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_masks_of_all_shapes(mode: Mode, shape: tuple[int, ...]) -> None:
    for key in KEYS:
        assert np.array_equal(mode.keep_mask(shape, 0.2, key, 0), masks.keep_mask(shape, 0.2, key))


@pytest.mark.parametrize("p", [0.0, *PROBABILITIES, 1.0])
def test_masks_of_all_probabilities(mode: Mode, p: float) -> None:
    for key in KEYS[:3]:
        assert np.array_equal(mode.keep_mask((1001,), p, key, 0), masks.keep_mask(1001, p, key))


@pytest.mark.parametrize("start", STARTS)
def test_masks_from_any_start(mode: Mode, start: int) -> None:
    for key in KEYS[:3]:
        assert np.array_equal(mode.keep_mask((3, 37), 0.2, key, start), masks.keep_mask((3, 37), 0.2, key, start))


@pytest.mark.parametrize("offset", [0, 1])
def test_ties(mode: Mode, offset: int) -> None:
    """Thresholds that one element lies just on, so that plane 1 decides, or a comparison that is not strict shows."""
    for key, index in ((md.Key(0), 3), (md.Key(7, 3), 30), (md.Key(2**64 - 1), 63)):
        p = tie(key, index, offset)
        mask = mode.keep_mask((64,), p, key, 0)
        assert np.array_equal(mask, masks.keep_mask(64, p, key))
        assert bool(mask[index]) == bool(offset)


def values(shape: tuple[int, ...], dtype: Any, seed: int = 0) -> np.ndarray:
    """Normal numbers of all sizes, with some special ones among them."""
    generator = np.random.default_rng(seed)
    x = generator.normal(size=shape) * 10.0 ** generator.integers(-3, 4, size=shape)
    special = np.array([0.0, -0.0, np.nan, np.inf, -np.inf, 65504.0, -1e-3, 3.0])
    flat = x.reshape(-1)
    flat[::5] = np.resize(special, flat[::5].shape)
    return x.astype(dtype)


@pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered:RuntimeWarning")  # of making the values
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("p", [0.0, *PROBABILITIES, 1.0])
def test_values(mode: Mode, dtype: str, p: float) -> None:
    if dtype in mode.lacks:
        pytest.skip(f"{mode.backend} has no {dtype}")
    x, key = values((33, 31), DTYPES[dtype]), md.Key(5, 2)
    assert same_bits(mode.dropout(x, p, key, 9), masks.dropout(x, p, key, 9))


@pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered:RuntimeWarning")  # of making the values
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("p", [0.2, 0.5, 1.0])
def test_gradients(mode: Mode, dtype: str, p: float) -> None:
    if dtype in mode.lacks:
        pytest.skip(f"{mode.backend} has no {dtype}")
    x, dy, key = values((13, 11), DTYPES[dtype]), values((13, 11), DTYPES[dtype], 1), md.Key(5, 2)
    assert same_bits(mode.gradient(x, dy, p, key, 3), masks.dropout(dy, p, key, 3))


@pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered:RuntimeWarning")  # of making the values
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("axes", [(0,), (1, 2), (2,), (0, 1, 2), (-1,), (1, -1)], ids=str)
def test_masks_shared_along_axes(mode: Mode, dtype: str, axes: tuple[int, ...]) -> None:
    """Drawn for the shape that has 1 there, and broadcast, in rows that are long and short."""
    if dtype in mode.lacks:
        pytest.skip(f"{mode.backend} has no {dtype}")
    x, dy, key = values((6, 5, 33), DTYPES[dtype]), values((6, 5, 33), DTYPES[dtype], 1), md.Key(5, 2)
    assert same_bits(mode.dropout(x, 0.3, key, 3, axes), masks.dropout(x, 0.3, key, 3, axes))
    assert same_bits(mode.gradient(x, dy, 0.3, key, 3, axes), masks.dropout(dy, 0.3, key, 3, axes))


@pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered:RuntimeWarning")  # of making the values
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("p", [0.0, 0.2, 0.5, 1.0])
def test_relu_dropout(mode: Mode, dtype: str, p: float) -> None:
    """As the two one after the other; but for NaN, −0 and infinite gradients, of which each framework's ReLU makes its
    own."""
    if dtype in mode.lacks:
        pytest.skip(f"{mode.backend} has no {dtype}")
    x, dy, key = values((33, 31), DTYPES[dtype]), values((33, 31), DTYPES[dtype], 1), md.Key(5, 2)
    x[np.isnan(x) | (x == 0)] = 0
    dy[~np.isfinite(dy)] = 1
    y, dx = mode.relu_dropout(x, dy, p, key, 3)
    positive = np.where(x > 0, x, np.zeros((), x.dtype))
    assert same_bits(y, masks.dropout(positive, p, key, 3))
    gradient = np.where(x > 0, masks.dropout(dy, p, key, 3), np.zeros((), x.dtype))
    assert same_bits(dx + np.zeros((), x.dtype), gradient + np.zeros((), x.dtype))  # −0 is 0


@pytest.mark.parametrize("shape", [(), (0,), (2, 0, 3)], ids=str)
def test_empty_and_scalar_tensors(mode: Mode, shape: tuple[int, ...]) -> None:
    x = np.ones(shape, np.float32)
    y = mode.dropout(x, 0.5, md.Key(1), 0)
    assert y.shape == shape
    assert np.array_equal(y, masks.dropout(x, 0.5, md.Key(1)))


def test_a_part_alone_is_the_part_of_the_whole(mode: Mode) -> None:
    x, key = values((100,), np.float32), md.Key(9)
    whole = mode.dropout(x, 0.3, key, 0)
    parts = [mode.dropout(x[a:b], 0.3, key, a) for a, b in ((0, 3), (3, 40), (40, 41), (41, 100))]
    assert same_bits(np.concatenate(parts), whole)


def test_memory_layout_does_not_matter(backend: Any) -> None:
    """The mask goes by the logical index: a transposed or strided tensor gets the mask of its shape."""
    x = np.arange(1.0, 1 + 24 * 4, dtype=np.float32).reshape(4, 24)
    views = [lambda t: t[1:, ::3], lambda t: t[::2]]
    if backend.name != "tensorflow":  # whose tensors are all row-major
        views.append(lambda t: t.T)
    for view in views:
        y = backend.to_numpy(md.dropout_layer(view(backend.tensor(x)), 0.5, 3))
        assert np.array_equal(y, masks.dropout(np.ascontiguousarray(view(x)), 0.5, 3))


def test_zero_probability_gives_the_input_back(backend: Any) -> None:
    X = backend.tensor(np.ones((2, 3), np.float32))
    assert md.dropout_layer(X, 0) is X


def test_dropout_keeps_shape_type_and_framework(backend: Any) -> None:
    for dtype in ("float16", "float32", "float64"):
        X = backend.tensor(np.ones((2, 3)), dtype)
        Y = md.dropout_layer(X, 0.5)
        assert (type(Y), Y.shape, Y.dtype) == (type(X), X.shape, X.dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("p", [0.0, 0.5])
def test_relu_gives_no_negative_zero(mode: Mode, p: float, dtype: str) -> None:
    """What is not above 0 becomes +0, and a NaN stays one, at p = 0 too, where nothing is drawn."""
    if dtype in mode.lacks:
        pytest.skip(f"{mode.backend} has no {dtype}")
    x = np.resize(np.array([-0.0, 0.0, -1.0, 2.0, np.nan, np.inf, -np.inf]), 70).astype(DTYPES[dtype])
    y, _ = mode.relu_dropout(x, np.ones_like(x), p, md.Key(1), 0)
    assert same_bits(y, masks.dropout(masks.relu(x), p, md.Key(1)))


def test_an_empty_tensor_draws_nothing(mode: Mode) -> None:
    """Along axes that are shared too, where the mask of any other tensor is drawn for the rest: here 2^40 elements,
    for which there is no memory (2^30 in MXNet, which numbers dimensions by 31 bits)."""
    x = np.empty((2**30 if mode.backend == "mxnet" else 2**40, 0), np.float32)
    assert mode.dropout(x, 0.5, md.Key(1), 0, (1,)).shape == x.shape
    if mode.backend != "mxnet":  # which gives an array without elements no gradient
        assert mode.gradient(x, x, 0.5, md.Key(1), 0, (1,)).shape == x.shape
