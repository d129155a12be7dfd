"""The kernels for GPUs index a mask by a tensor's logical order, however it lies in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import gpu_ways  # before torch: it sets Triton's variable, or skips
import pytest
import torch
from gpu_ways import (
    DTYPES,
    KEY,
    PROBABILITIES,
    P,
    assert_bits,
    drop,
    drop_,
    expected,
    same_bits,
    tie,
    values,
)
from multidrop_torch import gpu

from multidrop import Key
from multidrop.spec.masks import Mask

pytestmark, kernels_alone = gpu_ways.marks, gpu_ways.kernels_alone


def _layouts() -> Iterator[tuple[str, Callable[[], Any]]]:
    yield "contiguous", lambda: values(3, 5, 6, 7)
    yield "channels-last", lambda: values(3, 5, 6, 7).to(memory_format=torch.channels_last)
    yield "permuted", lambda: values(3, 5, 6, 7).permute(3, 1, 0, 2)
    yield "sliced", lambda: values(3, 5, 6, 9)[..., 1:8]
    yield "stepped", lambda: values(3, 5, 6, 14)[..., ::2]
    yield "sliced channels-last", lambda: values(3, 9, 6, 7).to(memory_format=torch.channels_last)[:, 2:7]
    yield "expanded", lambda: values(3, 1, 6, 1).expand(3, 5, 6, 7)
    yield "in tiles", lambda: values(2, 20, 4, 6).to(memory_format=torch.channels_last)
    yield "eight channels last", lambda: values(3, 8, 5, 7).to(memory_format=torch.channels_last)
    yield "a transposed matrix", lambda: values(48, 70).T
    yield "with ones", lambda: values(3, 1, 6, 7).permute(0, 1, 3, 2)


LAYOUTS = dict(_layouts())


class TestLayouts:
    @pytest.mark.parametrize("layout", LAYOUTS)
    @pytest.mark.parametrize("axes", [(), (2, 3), (0,), (1,), (0, 2), (0, 1, 2, 3)], ids=str)
    def test_masks_go_by_logical_index(self, layout: str, axes: tuple[int, ...]) -> None:
        X = LAYOUTS[layout]()
        for start in (2**35 - 4, 2**35 - 8):
            mask = Mask(P, KEY, start, tuple(axis for axis in axes if axis < X.ndim))
            Y = drop(X, mask)
            assert same_bits(Y, expected(X, mask))
            assert Y.stride() == torch.empty_like(X).stride()

    @pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "expanded"])
    @pytest.mark.parametrize("axes", [(), (2, 3)], ids=str)
    def test_in_place(self, layout: str, axes: tuple[int, ...]) -> None:
        X = LAYOUTS[layout]()
        mask = Mask(P, KEY, 8, tuple(axis for axis in axes if axis < X.ndim))
        Z, version = expected(X, mask), X._version
        assert drop_(X, mask) is X
        assert same_bits(X, Z)
        assert X._version > version

    def test_beside_what_is_written(self) -> None:
        """In place in a part of a tensor, with no block and no address at its edges, nothing else changes."""
        X = values(2000)
        Z = X.cpu().clone()
        Z[3:1100] = expected(X[3:1100], Mask(P, KEY, 5))
        drop_(X[3:1100], Mask(P, KEY, 5))
        assert same_bits(X, Z)

    def test_dimensions_are_joined(self) -> None:
        """Each one that is left costs a division."""
        last = torch.empty(3, 5, 6, 7, memory_format=torch.channels_last)
        assert gpu.geometry((3, 5, 6, 7), last.stride(), ()) == ((5, 42), (42, 1), (3, 210))
        assert gpu.geometry((3, 5, 6, 7), (210, 42, 7, 1), (2, 3)) == ((42, 0), (15, 1))
        assert gpu.geometry((3, 5, 1, 7), (35, 7, 7, 1), ()) == ((105, 1),)

    def test_tiles(self) -> None:
        """Which tensors go by tiles: those whose columns each begin a block."""
        last = torch.channels_last
        for shape, start, fits in (
            ((2, 20, 4, 6), 16, True),
            ((1, 20, 4, 6), 16, True),
            ((2, 20, 4, 6), 4, False),
            ((2, 20, 5, 5), 16, False),
            ((2, 3, 4, 6), 16, False),
        ):
            X = torch.empty(shape).to(memory_format=last)
            assert gpu.tiled(gpu.geometry(shape, X.stride(), ()), start) is fits
        assert not gpu.tiled(((64, 0), (32, 1)), 0)

    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    @pytest.mark.parametrize("p", [0.2, 0.5])
    def test_tiles_of_all_types(self, dtype: Any, p: float) -> None:
        """Whole tiles, and parts of them."""
        for shape in ((2, 64, 8, 16), (1, 96, 3, 8), (3, 17, 1, 8)):
            X = values(*shape, dtype=dtype).to(memory_format=torch.channels_last)
            for relu in (False, True):
                assert same_bits(drop(X, Mask(p, KEY, 64), relu), expected(X, Mask(p, KEY, 64), relu))

    def test_ties_in_tiles_and_bits(self) -> None:
        for index, offset in ((1063, 0), (1063, 1), (70, 0), (70, 1)):
            mask = Mask(tie(KEY, index, offset), KEY)
            X = values(2, 48, 4, 8).fill_(3.0).to(memory_format=torch.channels_last)
            Y = drop(X, mask)
            assert same_bits(Y, expected(X, mask))
            assert bool(Y.flatten()[index] == 0) != bool(offset)
            assert_bits(2100, mask)

    @pytest.mark.parametrize("p", [0.0, *PROBABILITIES, 1.0])
    def test_bits(self, p: float) -> None:
        for key, start in ((KEY, 0), (Key(7, 3), 13), (KEY, 2**64 - 10_000)):
            for count in (1, 8, 2101):
                assert_bits(count, Mask(p, key, start))

    def test_more_dimensions_than_the_kernel_takes(self) -> None:
        X = values(2, 3, 2, 3, 2, 3, 2)
        for Z in (X, X.permute(6, 5, 4, 3, 2, 1, 0), X.permute(1, 0, 3, 2, 5, 4, 6)):
            for axes in ((), (1, 3, 5), (0, 2, 4, 6)):
                mask = Mask(P, KEY, 5, axes)
                assert same_bits(drop(Z, mask), expected(Z, mask))
                assert same_bits(drop_(Z.clone(), mask), expected(Z, mask))
        assert len(gpu.geometry(tuple(X.shape), X.permute(6, 5, 4, 3, 2, 1, 0).stride(), ())) == 7

    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    def test_types(self, dtype: Any) -> None:
        X = values(33, 66, dtype=dtype).T
        assert same_bits(drop(X, Mask(P, KEY), True), expected(X, Mask(P, KEY), True))
