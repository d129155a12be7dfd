"""The kernels for GPUs give the masks, values and gradients of the specification in every bit."""

from __future__ import annotations

from typing import Any

import gpu_ways  # before torch: it sets Triton's variable, or skips
import numpy as np
import pytest
import torch
from gpu_ways import (
    CUDA,
    DTYPES,
    KEY,
    KEYS,
    PROBABILITIES,
    STARTS,
    P,
    drop,
    drop_,
    expected,
    keep_mask,
    relu_gradient,
    same_bits,
    tie,
    values,
    wide,
)
from multidrop_torch import gpu

from multidrop import Key
from multidrop.spec import masks
from multidrop.spec.masks import Mask

pytestmark, kernels_alone = gpu_ways.marks, gpu_ways.kernels_alone


class TestMask:
    @pytest.mark.parametrize("start", STARTS)
    def test_from_any_start(self, start: int) -> None:
        for key in KEYS:
            assert np.array_equal(keep_mask((3, 37), P, key, start), masks.keep_mask((3, 37), P, key, start))

    @pytest.mark.parametrize("p", [0.0, *PROBABILITIES, 1.0])
    def test_of_all_probabilities(self, p: float) -> None:
        for key in KEYS[:3]:
            assert np.array_equal(keep_mask((2101,), p, key), masks.keep_mask(2101, p, key))

    @pytest.mark.parametrize("shape", [(), (1,), (7,), (8,), (1024,), (4, 512), (0,), (4, 0, 3), (129, 65)], ids=str)
    def test_of_all_shapes(self, shape: tuple[int, ...]) -> None:
        assert np.array_equal(keep_mask(shape, P, KEY, 3), masks.keep_mask(shape, P, KEY, 3))

    @pytest.mark.parametrize("offset", [0, 1])
    def test_ties(self, offset: int) -> None:
        """Thresholds that one element lies just on, so that plane 1 decides, or a comparison that is not strict
        shows."""
        for key, index in ((Key(0), 3), (Key(7, 3), 30), (KEY, 1063)):
            p = tie(key, index, offset)
            assert p != P
            keep = keep_mask((1100,), p, key)
            assert np.array_equal(keep, masks.keep_mask(1100, p, key))
            assert bool(keep[index]) == bool(offset)

    def test_parts(self) -> None:
        whole, at = keep_mask((1000,), P, KEY, 5), 0
        for size in (1, 7, 8, 13, 300, 671):
            assert np.array_equal(keep_mask((size,), P, KEY, 5 + at), whole[at : at + size])
            at += size
        assert at == 1000

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (((3,), 1.5, KEY, 0), r"dropout: expected .*; got 1\.5"),
            (((3,), 0.5, -1, 0), "key: expected .*; got -1"),
            (((-3,), 0.5, KEY, 0), "shape: expected .*; got"),
            (((3,), 0.5, KEY, 2**64 - 2), "start: expected .*; got"),
        ],
    )
    def test_bad_arguments(self, arguments: tuple[Any, ...], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            gpu.keep_mask(*arguments, torch.device("cuda" if CUDA else "cpu"))


class TestValues:
    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    @pytest.mark.parametrize("p", [0.2, 0.5, 1.0, *((1 / 3, 0.1, 1e-10) if CUDA else ())])
    @pytest.mark.parametrize("relu", [False, True])
    def test_of_all_types(self, dtype: Any, p: float, relu: bool) -> None:
        """In whole programs, with a rest, and where nothing is aligned."""
        for start, cut in ((0, 2048), (0, 2047), (9, 2048), (2**64 - 4096, 1100)):
            for X in (values(cut, dtype=dtype), values(cut + 1, dtype=dtype)[1:]):
                mask = Mask(p, KEY, start)
                assert same_bits(drop(X, mask, relu), expected(X, mask, relu))

    @pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64], ids=str)
    def test_every_rounding(self, dtype: Any) -> None:
        """A scale with a long fraction; bfloat16 on a GPU, see `values`."""
        for p in (0.1, 1 / 3, 0.9):
            X = values(1000, dtype=dtype)
            assert same_bits(drop(X, Mask(p, KEY)), expected(X, Mask(p, KEY)))

    def test_smallest(self) -> None:
        """Denormals are not flushed."""
        X = torch.full((64,), 3e-45, device="cuda" if CUDA else "cpu")
        assert same_bits(drop(X, Mask(0.5, KEY)), expected(X, Mask(0.5, KEY)))

    def test_dropped_is_zero(self) -> None:
        for value in (float("nan"), float("inf"), -1.0):
            Y = drop(values(64).fill_(value), Mask(0.5, KEY)).cpu()
            dropped = Y[~torch.from_numpy(masks.keep_mask(64, 0.5, KEY))]
            assert len(dropped)
            assert not dropped.view(torch.int32).any()

    @pytest.mark.parametrize("offset", [0, 1])
    def test_ties(self, offset: int) -> None:
        """Of `linear` and of `permuted`, in place, for there the tie's value is read before the 0 is written."""
        p, n = tie(KEY, 1063, offset), 1300
        X = values(n).fill_(3.0)
        assert same_bits(drop_(X.clone(), Mask(p, KEY)), expected(X, Mask(p, KEY)))
        X = X.view(26, 50).T.contiguous().T
        Y = drop_(X.clone(), Mask(p, KEY))
        assert not Y.is_contiguous()
        assert same_bits(Y, expected(X, Mask(p, KEY)))
        assert bool(Y.flatten()[1063] == 0) != bool(offset)

    @pytest.mark.parametrize("shape", [(), (1,), (0,), (4, 0, 3)], ids=str)
    def test_of_few(self, shape: tuple[int, ...]) -> None:
        X = values(*shape)
        for axes in ((), (0,) if shape else ()):
            assert same_bits(drop(X, Mask(0.5, KEY, 3, axes)), expected(X, Mask(0.5, KEY, 3, axes)))
            assert same_bits(drop_(X.clone(), Mask(0.5, KEY, 3, axes)), expected(X, Mask(0.5, KEY, 3, axes)))

    def test_lazy_negation(self) -> None:
        mask = Mask(0.5, KEY)
        stepped = torch.complex(values(50, seed=1), values(50, seed=2)).conj().imag
        for X in (stepped, torch._neg_view(values(50))):
            assert X.is_neg()
            Z = expected(X, mask)
            assert same_bits(drop(X, mask), Z)
            gradient = torch.from_numpy(masks.relu_gradient(wide(X), wide(Z), 0.5))
            assert same_bits(relu_gradient(X, Z.to(X.device), 0.5), gradient)
            assert same_bits(drop_(X, mask), Z)


class TestReluGradient:
    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    def test_types(self, dtype: Any) -> None:
        for n in (2048, 2047, 1):
            dY, Y = values(n, dtype=dtype, seed=1), drop(values(n, dtype=dtype), Mask(P, KEY), True)
            Z = torch.from_numpy(masks.relu_gradient(wide(dY), wide(Y), P)).to(dtype)
            assert same_bits(relu_gradient(dY, Y, P), Z)

    def test_layouts(self) -> None:
        last = torch.channels_last
        dY, Y = values(3, 5, 6, 7, seed=1), drop(values(3, 5, 6, 7), Mask(P, KEY), True)
        Z = torch.from_numpy(masks.relu_gradient(wide(dY), wide(Y), P))
        wider = torch.cat([dY, dY], 3)[..., :7]
        for a in (dY, dY.to(memory_format=last), wider):
            for b in (Y, Y.to(memory_format=last)):
                assert same_bits(relu_gradient(a, b, P), Z)
        assert same_bits(relu_gradient(dY[:, :0], Y[:, :0], P), Z[:, :0])
