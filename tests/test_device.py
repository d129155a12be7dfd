"""The kernels for GPUs give the masks and the values of the specification in every bit.

Without a GPU, Triton's interpreter runs them on the CPU. `--device cuda`, or MULTIDROP_DEVICE=cuda where this file runs
without its conftest, runs them on a GPU, by the public functions.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest

from multidrop import Key, host
from multidrop.spec import masks
from multidrop.spec.masks import Mask

DEVICE = os.environ.get("MULTIDROP_DEVICE", "")
CUDA = DEVICE == "cuda"
MISSING = [name for name in ("torch", "triton") if importlib.util.find_spec(name) is None]
if MISSING and not DEVICE:  # a device that was asked for must be there
    pytest.skip(f"no {' and no '.join(MISSING)}, and --device was not given", allow_module_level=True)
if CUDA:
    os.environ.setdefault("COLUMNS", "400")  # pytest cuts the errors in its summary to it
else:
    os.environ["TRITON_INTERPRET"] = "1"  # which Triton reads when it is imported

import torch  # noqa: E402  # after Triton's variable is set
from multidrop_torch import (  # noqa: E402  # likewise
    device,
    device_positions,
    draw,
    functional,
    launch,
    triton_kernels,
)
from multidrop_torch.position import key_at, known, position_of  # noqa: E402  # likewise

# NumPy, by which the interpreter computes, warns of infinities.
pytestmark = pytest.mark.filterwarnings("ignore:(overflow|invalid value|divide by zero) encountered:RuntimeWarning")

KEYS = (Key(0), Key(7, 3), Key(2**64 - 1, 2**64 - 1), Key(2**31, 2**32), Key(2**63, 2**63))
PROBABILITIES = (1e-10, 0.1, 0.2, 0.25, 0.5, 1 / 3, 0.9, 1 - 1e-10)
STARTS = (0, 1, 7, 8, 13, 2**32 - 5, 2**32, 2**35 - 4, 2**63 - 9, 2**64 - 10_000)
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
P, KEY = 0.2, Key(2**63 + 5, 2**64 - 1)
SEED = Key(7, 2**32)  # of layers

on_gpu = pytest.mark.skipif(not CUDA, reason="is about a GPU, and --device cuda was not given")
without_gpu = pytest.mark.skipif(CUDA, reason="is about the interpreter, or needs no GPU")


@pytest.fixture(autouse=True)
def kernels_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU, no mask comes from the host; elsewhere, Triton interprets."""
    if CUDA:
        assert device.ready(torch.cuda.current_device())

        def refuse(*_: Any, **__: Any) -> Any:
            raise AssertionError("the host drew a mask")

        monkeypatch.setattr(host, "keep_mask", refuse)
    else:
        from triton.runtime.interpreter import InterpretedFunction

        assert isinstance(triton_kernels.linear, InterpretedFunction), "Triton was imported before this module"


def drop(X: Any, mask: Mask, relu: bool = False) -> Any:
    return (draw if CUDA else device).drop(X, mask, relu)


def drop_(X: Any, mask: Mask) -> Any:
    return (draw if CUDA else device).drop_(X, mask)


def relu_gradient(dY: Any, Y: Any, p: float) -> Any:
    return (draw if CUDA else device).relu_gradient(dY, Y, p)


def keep_mask(shape: tuple[int, ...], p: float, key: Key, start: int = 0) -> np.ndarray:
    keep = (
        functional.keep_mask(shape, p, key, start, "cuda") if CUDA else device._keep(shape, Mask(p, key, start), "cpu")
    )
    assert keep.dtype == torch.bool
    return keep.cpu().numpy()


def values(*shape: int, dtype: Any = torch.float32, seed: int = 0) -> Any:
    """Numbers of all sizes, with some special ones among them, on the device."""
    generator = np.random.default_rng(seed)
    x = np.asarray(generator.normal(size=shape) * 10.0 ** generator.integers(-3, 4, size=shape))
    flat = x.reshape(-1)
    flat[::5] = np.resize([0.0, -0.0, np.nan, np.inf, -np.inf, 3e4, -1e-3, 3.0], flat[::5].shape)
    X = torch.from_numpy(x).to(dtype)
    if dtype == torch.bfloat16 and not CUDA:
        # Short enough for an exact product with 1.25 and 2, for Triton's interpreter does not round to the nearest.
        X = torch.where(X.isnan(), X, (X.view(torch.int16) & ~7).view(dtype))
    return X.to("cuda" if CUDA else "cpu")


def expected(X: Any, mask: Mask, relu: bool = False) -> Any:
    """What the oracle gives, on the host."""
    x = wide(X)
    return torch.from_numpy(masks.dropout(masks.relu(x) if relu else x, *mask)).to(X.dtype)


def wide(X: Any) -> np.ndarray:
    """A tensor as an array: bfloat16, which NumPy lacks, in float32, in which it is computed."""
    X = X.detach().cpu().resolve_neg()
    return (X.float() if X.dtype == torch.bfloat16 else X).numpy()


def same_bits(Y: Any, Z: Any) -> bool:
    """Whether two tensors are equal in shape, type and every bit, but for the payload of a NaN."""
    Y, Z = (T.detach().cpu().resolve_neg() for T in (Y, Z))
    if (Y.shape, Y.dtype) != (Z.shape, Z.dtype):
        return False
    signed = {2: torch.int16, 4: torch.int32, 8: torch.int64}[Y.itemsize]
    equal = Y.contiguous().view(signed) == Z.contiguous().view(signed)
    return bool((equal | (Y.isnan() & Z.isnan())).all())


def tie(key: Key, index: int, offset: int) -> float:
    """A probability whose threshold is U(index) + offset."""
    return 1.0 - (int(masks.uniforms(1, key, index)[0]) + offset) / 2**32


def position(key: Key) -> Any:
    return position_of(key).to("cuda" if CUDA else "cpu")


def assert_bits(count: int, mask: Mask) -> None:
    """A bit for each element, from the block of the first one on."""
    skip = mask.start % 8
    found = device.bits(count, mask, torch.device("cuda" if CUDA else "cpu")).cpu().numpy()
    assert found.shape == (-(-(skip + count) // 8),)
    kept = np.unpackbits(found, bitorder="little")[skip : skip + count]
    assert np.array_equal(kept, masks.keep_mask(count, mask.p, mask.key, mask.start))


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
            device.keep_mask(*arguments, torch.device("cuda" if CUDA else "cpu"))


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
        assert device.geometry((3, 5, 6, 7), last.stride(), ()) == ((5, 42), (42, 1), (3, 210))
        assert device.geometry((3, 5, 6, 7), (210, 42, 7, 1), (2, 3)) == ((42, 0), (15, 1))
        assert device.geometry((3, 5, 1, 7), (35, 7, 7, 1), ()) == ((105, 1),)

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
            assert device.tiled(device.geometry(shape, X.stride(), ()), start) is fits
        assert not device.tiled(((64, 0), (32, 1)), 0)

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
        assert len(device.geometry(tuple(X.shape), X.permute(6, 5, 4, 3, 2, 1, 0).stride(), ())) == 7

    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    def test_types(self, dtype: Any) -> None:
        X = values(33, 66, dtype=dtype).T
        assert same_bits(drop(X, Mask(P, KEY), True), expected(X, Mask(P, KEY), True))


class TestPositions:
    """Masks by a key that lies in the GPU's memory."""

    @pytest.mark.parametrize("key", KEYS if CUDA else KEYS[2:3], ids=str)
    def test_drop(self, key: Key) -> None:
        image = values(2, 20, 4, 6)
        for X in (values(3000), image, image.to(memory_format=torch.channels_last), image.permute(3, 1, 0, 2)):
            for start, axes in ((0, ()), (16, ()), (5, ()), (5, (X.ndim - 1,))):
                mask = Mask(P, key, start, axes)
                by_position = mask._replace(key=position(key))
                assert same_bits(drop(X, by_position), expected(X, mask))
                assert same_bits(drop(X, by_position, True), expected(X, mask, True))
                assert same_bits(drop_(X.clone(), by_position), expected(X, mask))

    def test_masks(self) -> None:
        place = torch.device("cuda" if CUDA else "cpu")
        for key in KEYS:
            keep = device.keep_mask((50, 3), P, position(key), 5, place)
            assert np.array_equal(keep.cpu().numpy(), masks.keep_mask((50, 3), P, key, 5))
            found = device.bits(150, Mask(P, position(key), 5), place)
            assert torch.equal(found, device.bits(150, Mask(P, key, 5), place))

    @pytest.mark.parametrize("key", KEYS, ids=str)
    def test_take(self, key: Key) -> None:
        """A stream moves on by one call, and from the last one to 0."""
        stream = position(key)
        assert key_at(device.take(stream)) == key
        assert key_at(stream) == Key(key.seed, (key.call + 1) % 2**64)

    @pytest.mark.parametrize("n", [1, 16, 1024, 1025, 5000])
    @pytest.mark.parametrize("relu", [False, True])
    def test_take_and_drop(self, n: int, relu: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        """In one launch and in two."""
        for together in (512, 2):
            monkeypatch.setattr(device, "TOGETHER", together)
            stream, X = position(Key(7, 2**64 - 1)), values(n)
            for call in (2**64 - 1, 0, 1):
                Y, mask = device.take_and_drop(X, Mask(P, None, 3), stream, relu)
                assert same_bits(Y, expected(X, Mask(P, Key(7, call), 3), relu))
                assert key_at(mask.key) == Key(7, call)
                assert mask == (P, mask.key, 3, ())
            assert key_at(stream) == Key(7, 2)
            assert not device_positions.counter(X).any()

    def test_take_and_drop_of_others(self) -> None:
        stream = position(Key(7))
        image = values(2, 20, 4, 6)
        inputs = (image, (1,)), (image.to(memory_format=torch.channels_last), ()), (image[:0], ()), (image[..., 1:], ())
        for call, (X, axes) in enumerate(inputs):
            Y, mask = device.take_and_drop(X, Mask(P, None, 0, axes), stream)
            assert same_bits(Y, expected(X, Mask(P, Key(7, call), 0, axes)))
            assert key_at(mask.key) == Key(7, call)

    @staticmethod
    def followed(key: Key) -> Any:
        stream = position(key)
        device_positions.follow(stream, key)
        return stream

    @pytest.mark.parametrize("n", [1, 16, 1025, 5000])
    @pytest.mark.parametrize("relu", [False, True])
    def test_counted(self, n: int, relu: bool) -> None:
        """The host knows the keys of a stream that it follows; the stream moves on all the same, past the last call."""
        stream, X = self.followed(Key(2**63 + 7, 2**64 - 1)), values(n)
        for call in (2**64 - 1, 0, 1):
            Y, mask = device.take_and_drop(X, Mask(P, None, 3), stream, relu)
            assert mask == (P, Key(2**63 + 7, call), 3, ())
            assert same_bits(Y, expected(X, mask, relu))
            assert key_at(stream) == Key(2**63 + 7, (call + 1) % 2**64)

    def test_counted_for_others(self) -> None:
        stream, image = self.followed(Key(7)), values(2, 20, 4, 6)
        inputs = (image, (1,)), (image.to(memory_format=torch.channels_last), ()), (image[:0], ()), (image[..., 1:], ())
        for call, (X, axes) in enumerate(inputs):
            Y, mask = device.take_and_drop(X, Mask(P, None, 0, axes), stream)
            assert key_at(mask.key) == Key(7, call)
            assert same_bits(Y, expected(X, Mask(P, Key(7, call), 0, axes)))
            assert key_at(stream) == Key(7, call + 1)
        assert device_positions.counted(stream) == Key(7, len(inputs))

    def test_the_host_stops_counting(self) -> None:
        """Where something else writes to a stream, or a program takes from it, which may do so again unseen."""
        X = values(300)

        def call_of(stream: Any) -> int:
            _, mask = device.take_and_drop(X, Mask(P, None), stream)
            return known(mask.key).call

        for taken in (False, True):
            stream = self.followed(Key(7))
            assert call_of(stream) == 0
            if taken:
                assert key_at(device.take(stream, torch.empty_like(stream))) == Key(7, 1)
                device.take(position_of(Key(3)).to(stream.device))  # another one
            else:
                stream[1] = 2
            assert device_positions.counted(stream) is None
            for call in (2, 3):
                assert call_of(stream) == call
            stream[1] = 9
            device_positions.written(stream)
            assert device_positions.counted(stream) is None  # whatever took from it may do so again
            assert call_of(stream) == 9

    def test_the_host_counts_on_from_what_is_loaded(self) -> None:
        stream = self.followed(Key(7))
        stream.copy_(position_of(Key(8, 2**63 + 2)))
        device_positions.written(stream)
        assert device_positions.counted(stream) == Key(8, 2**63 + 2)

    def test_no_count_outlives_its_stream(self) -> None:
        stream = self.followed(Key(7))
        address = stream.data_ptr()
        assert address in device_positions._counts
        del stream
        assert address not in device_positions._counts

    def test_without_versions(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """torch moved the name: the GPU counts alone."""
        monkeypatch.setattr(device_positions, "version_of", lambda X: None)
        assert device_positions.counted(self.followed(Key(7))) is None

    def test_positions_are_apart(self) -> None:
        """None shares its memory with another one, also when more are made than are allocated together."""
        stream = position(Key(7))
        taken = [device.take(stream) for _ in range(2 * device_positions.POSITIONS + 3)]
        assert [key_at(each).call for each in taken] == list(range(len(taken)))

    def test_drawn(self) -> None:
        place = torch.device("cuda" if CUDA else "cpu")
        torch.manual_seed(3)
        drawn = [device.drawn(place) for _ in range(4)]
        torch.manual_seed(3)
        assert torch.equal(torch.stack(drawn), torch.stack([device.drawn(place) for _ in range(4)]))
        assert len({key_at(each) for each in drawn}) == 4
        assert all(word >= 2**32 for each in drawn for word in each.tolist())  # all of 63 bits are drawn


class TestNumbers:
    @pytest.mark.parametrize("start", STARTS)
    def test_uniform(self, start: int) -> None:
        place = torch.device("cuda" if CUDA else "cpu")
        for key in (KEY, Key(7, 3)):
            found = device.uniform((3, 700), key, start, place).cpu().numpy()
            assert np.array_equal(found, masks.open_uniforms((3, 700), key, start))
            assert torch.equal(
                device.uniform((5,), position(key), start, place), device.uniform((5,), key, start, place)
            )

    @pytest.mark.parametrize("start", STARTS)
    def test_normal(self, start: int) -> None:
        """In the middle to the bit, and in the tails within the promised distance, for the logarithm of a GPU is not
        NumPy's."""
        place = torch.device("cuda" if CUDA else "cpu")
        found = device.normal((3, 700), KEY, start, place).cpu().numpy()
        z = masks.normals((3, 700), KEY, start)
        ulps = np.abs(found - z) / np.spacing(np.abs(z))
        middle = np.abs(masks.open_uniforms((3, 700), KEY, start) - 0.5) <= 0.425
        assert not ulps[middle].any()
        assert ulps.max() <= (16 if CUDA else 0)
        at = device.normal((700,), position(KEY), start, place).cpu().numpy()
        assert np.array_equal(at, found[0])

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
    def test_mean_and_deviation(self, dtype: Any) -> None:
        """Computed in float64, and rounded once."""
        place = torch.device("cuda" if CUDA else "cpu")
        found = device.normal((2000,), KEY, 5, place, dtype, 1.0, 0.37).cpu()
        whole = torch.from_numpy(1.0 + 0.37 * device.normal((2000,), KEY, 5, place).cpu().numpy())
        assert torch.equal(found, whole.to(dtype))

    def test_none(self) -> None:
        assert device.normal((0, 3), KEY, 5, torch.device("cuda" if CUDA else "cpu")).shape == (0, 3)


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


def forget() -> None:
    """Has every kernel compiled anew."""
    launch.program.cache_clear()
    device._plan.cache_clear()


def mask_of(Y: Any) -> Any:
    """Which elements of a dropout of ones were kept."""
    return (Y != 0).cpu()


def kept(shape: tuple[int, ...], key: Key, p: float = P) -> Any:
    with patch.object(host, "keep_mask", masks.keep_mask):
        return torch.from_numpy(masks.keep_mask(shape, p, key))


@on_gpu
class TestOnGpu:
    @pytest.mark.parametrize("by_thread", [(), ("linear", "plane", "tile")])
    def test_who_settles_ties(self, by_thread: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
        """The program, or each thread: in all kernels, for thresholds that elements lie on, and for extreme ones."""
        monkeypatch.setattr(device, "BY_THREAD", by_thread)
        forget()
        n = 200_000
        X = torch.full((n,), 3.0, device="cuda")
        last = torch.full((2, 50, 40, 50), 3.0, device="cuda").to(memory_format=torch.channels_last)
        thresholds = [tie(KEY, index, offset) for index in (3, 1063, 199_990) for offset in (0, 1)]
        for p in (*thresholds, *PROBABILITIES, 1 - 2**-20):
            keep = torch.from_numpy(masks.keep_mask(n, p, KEY))
            for dtype in (torch.float32, torch.bfloat16):
                assert torch.equal(mask_of(drop(X.to(dtype), Mask(p, KEY))), keep)
                assert torch.equal(mask_of(drop(last.to(dtype), Mask(p, KEY))).flatten(), keep)
            assert_bits(n, Mask(p, KEY))
        forget()

    def test_functions_and_gradients(self) -> None:
        X, dY = values(40, 50).requires_grad_(), values(40, 50, seed=1)
        mask = Mask(P, KEY, 3)
        Y = functional.dropout_layer(X, P, KEY, start=3)
        (dX,) = torch.autograd.grad(Y, X, dY)
        assert same_bits(Y, expected(X, mask))
        assert same_bits(dX, expected(dY, mask))
        Y = functional.relu_dropout(X, P, KEY, start=3)
        (dX,) = torch.autograd.grad(Y, X, dY)
        assert same_bits(Y, expected(X, mask, True))
        assert same_bits(dX, torch.from_numpy(masks.relu_gradient(wide(dY), wide(Y), P)))

    def test_layers(self) -> None:
        from multidrop_torch import Dropout, Dropout2d

        X = values(4, 6, 5, 5).to(memory_format=torch.channels_last)
        for layer, axes in ((Dropout(P, seed=3), ()), (Dropout2d(P, seed=3), (2, 3))):
            layer.cuda()
            for call in range(2):
                assert same_bits(layer(X), expected(X, Mask(P, Key(3, call), 0, axes)))

    def test_members_of_the_family(self) -> None:
        from multidrop_torch import apply

        from multidrop import family

        X = values(4, 6, 5, 5).nan_to_num()
        assert same_bits(apply(family.SpatialDropout(P), X, KEY), expected(X, Mask(P, KEY, 0, (2, 3))))
        Y = apply(family.DropBlock(P, 3), X, KEY)
        with patch.object(host, "keep_mask", masks.keep_mask):
            assert same_bits(Y, apply(family.DropBlock(P, 3), X.cpu(), KEY))

    # torch's own, at its first compilation: it announces what it is about to change.
    @pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning:torch")
    def test_programs(self) -> None:
        """torch.compile goes by the operator, which the kernel runs."""
        X = values(40, 50).nan_to_num().requires_grad_()
        run = torch.compile(lambda X: functional.dropout_layer(X, P, KEY), fullgraph=True)
        Y = run(X)
        assert same_bits(Y, expected(X, Mask(P, KEY)))
        (dX,) = torch.autograd.grad(Y, X, torch.ones_like(Y))
        assert same_bits(dX, expected(torch.ones_like(Y), Mask(P, KEY)))

    def test_past_31_bits(self) -> None:
        """More elements than a 32-bit index counts, contiguous and not: a part of the end is the oracle's."""
        n, tail = 2**31 + 5000, 3000
        X = torch.ones(n, dtype=torch.float16, device="cuda")
        Y = drop(X, Mask(P, KEY, 3))
        assert same_bits(Y[-tail:], expected(X[-tail:], Mask(P, KEY, 3 + n - tail)))
        middle = slice(2**31 - 1000, 2**31 + 1000)
        assert same_bits(Y[middle], expected(X[middle], Mask(P, KEY, 3 + middle.start)))
        del Y
        Z = X[: n // 8 * 8].view(8, -1).T  # n/8 rows of eight, which lie as eight rows
        Y = drop_(Z, Mask(P, KEY, 3))
        rows = tail // 8
        assert same_bits(Y[-rows:], expected(torch.ones(rows, 8, dtype=X.dtype), Mask(P, KEY, 3 + 8 * (len(Z) - rows))))

    def test_another_stream(self) -> None:
        X = values(5000)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            Y = drop(X, Mask(P, KEY))
        stream.synchronize()
        assert same_bits(Y, expected(X, Mask(P, KEY)))

    def test_vmap_and_batched_gradients(self) -> None:
        X = values(6, 50).nan_to_num()
        Y = torch.vmap(lambda x: functional.dropout_layer(x, P, KEY))(X)
        assert same_bits(Y, torch.stack([expected(x, Mask(P, KEY)) for x in X]))

    def test_jagged(self) -> None:
        X = torch.nested.nested_tensor([torch.rand(3, 2), torch.rand(5, 2)], layout=torch.jagged, device="cuda")
        Y = functional.dropout_layer(X, P, KEY)
        assert same_bits(Y.values(), expected(X.values(), Mask(P, KEY)))

    def test_gaussian_members(self) -> None:
        """Normal numbers come from the GPU, eager and differentiated."""
        from multidrop_torch import apply

        from multidrop import family

        X, dY = (
            values(3000).nan_to_num(0.0, 1.0, -1.0).requires_grad_(),
            values(3000, seed=1).nan_to_num(0.0, 1.0, -1.0),
        )
        with patch.object(masks, "normals", None):
            Y = apply(family.GaussianDropout(0.3), X, KEY)
            (dX,) = torch.autograd.grad(Y, X, dY)
            noisy = apply(family.GaussianNoise(0.3), X.detach(), KEY)
        factor = device.normal((3000,), KEY, 0, X.device, torch.float32, 1.0, masks.gaussian_stddev("p", 0.3))
        assert same_bits(Y, X * factor)
        assert same_bits(dX, dY * factor)
        assert same_bits(noisy, X + device.normal((3000,), KEY, 0, X.device, torch.float32, 0.0, 0.3))

    def test_launches_go_directly(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """And by Triton's own launcher where its version is not known, with the same bits."""
        import triton

        X = values(5000)
        expected_bits = drop(X, Mask(P, KEY))
        monkeypatch.setattr(launch, "LAUNCHERS", ())
        forget()
        assert same_bits(drop(X, Mask(P, KEY)), expected_bits)
        monkeypatch.undo()
        forget()
        if triton.__version__.startswith(launch.LAUNCHERS):
            monkeypatch.setattr(launch, "_by_triton", None)
        assert same_bits(drop(X, Mask(P, KEY)), expected_bits)
        forget()


# torch's own: it announces that its check for synchronisation is a prototype, and how it treats gradients' streams.
@pytest.mark.filterwarnings("ignore::UserWarning")
@on_gpu
class TestTraining:
    """Keyed layers on a GPU: no waiting, captured graphs, moves between devices."""

    @staticmethod
    def net(seed: Any = SEED) -> Any:
        from multidrop_torch import Dropout

        torch.manual_seed(1)
        return torch.nn.Sequential(torch.nn.Linear(40, 64), Dropout(P, seed=seed), torch.nn.Linear(64, 8)).cuda()

    @staticmethod
    def step(net: Any, X: Any, optimizer: Any) -> None:
        optimizer.zero_grad(set_to_none=False)
        net(X).square().mean().backward()
        optimizer.step()

    def test_no_synchronisation(self) -> None:
        """In training steps, in place, with a ReLU, in channels, and in large tensors; and the check can fail."""
        from multidrop_torch import AlphaDropout, Dropout, Dropout2d

        net, X = self.net(), torch.randn(16, 40, device="cuda")
        optimizer = torch.optim.SGD(net.parameters(), 0.1)
        layers = [
            Dropout(P, seed=1),
            Dropout(P, True, seed=1),
            Dropout2d(P, seed=1),
            Dropout(P),
            AlphaDropout(P, seed=1),
        ]
        for layer in layers:
            layer.cuda()
        images, large = torch.randn(4, 16, 8, 8, device="cuda"), torch.randn(2**20, device="cuda", requires_grad=True)
        last = images.to(memory_format=torch.channels_last)

        def run() -> None:
            self.step(net, X, optimizer)
            for layer in layers:
                layer(images.clone())
                layer(last.clone())
                with torch.no_grad():
                    layer(images.clone())
            layers[0](large).sum().backward()
            layers[0].after_relu(large).sum().backward()
            functional.dropout_layer(images, P)

        run()
        torch.cuda.set_sync_debug_mode("error")
        try:
            run()
            with pytest.raises(RuntimeError, match="synchroniz"):
                layers[0].stream.tolist()
        finally:
            torch.cuda.set_sync_debug_mode("default")

    def test_masks_of_a_layer(self) -> None:
        """Call after call; `last_mask` and the saved position are read when they are asked for."""
        from multidrop_torch import Dropout
        from multidrop_torch.keyed import drawing  # not md.last_mask, for which multidrop must be installed

        for n in (16, 5000, 2**20):
            layer = Dropout(P, seed=Key(7, 2**63 - 1)).cuda()
            for call in (2**63 - 1, 2**63, 2**63 + 1):
                X = torch.ones(n, device="cuda", requires_grad=call == 2**63)
                Y = layer(X)
                assert torch.equal(mask_of(Y), kept((n,), Key(7, call)))
                last = drawing(layer)
                assert (last.last, last.last_p, last.shape) == (Key(7, call), P, (n,))
                if call == 2**63:
                    Y.sum().backward()
                    assert torch.equal(mask_of(X.grad), mask_of(Y))
            assert key_at(layer.state_dict()["stream"]) == Key(7, 2**63 + 2)

    def test_from_device_to_device(self) -> None:
        """A run that moves to the GPU and back has the masks of one that stayed."""
        from multidrop_torch import Dropout

        layer = Dropout(P, seed=Key(7, 3))
        for call, place in enumerate(("cpu", "cuda", "cuda", "cpu", "cuda"), 3):
            layer.to(place)
            with patch.object(host, "keep_mask", masks.keep_mask):
                assert torch.equal(mask_of(layer(torch.ones(300, device=place))), kept((300,), Key(7, call)))

    def test_captured_steps(self) -> None:
        """Two replays draw two masks; five captured steps have the masks of five eager ones; after its state is
        restored, a graph draws them again."""
        net, X = self.net(), torch.randn(16, 40, device="cuda")
        masks_seen: list[Any] = []
        ones = torch.ones(16, 64, device="cuda")
        optimizer = torch.optim.SGD(net.parameters(), 0.1)

        def run() -> Any:
            self.step(net, X, optimizer)
            return net[1](ones)

        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            run()
        torch.cuda.current_stream().wait_stream(side)
        start = {name: value.clone() for name, value in net.state_dict().items()}
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            Y = run()
        assert torch.equal(net.state_dict()["1.stream"], start["1.stream"])  # nothing ran while it was captured

        def restore() -> None:
            net.load_state_dict(start)

        for _ in range(2):
            for _ in range(5):
                graph.replay()
                masks_seen.append(mask_of(Y))
            restore()
        eager, weights = [], None
        for _ in range(5):
            eager.append(mask_of(run()))
        weights = [p.detach().clone() for p in net.parameters()]
        restore()
        for _ in range(5):
            graph.replay()
        assert all(torch.equal(a, b) for a, b in zip(masks_seen[:5], masks_seen[5:], strict=True))
        assert all(torch.equal(a, b) for a, b in zip(masks_seen[:5], eager, strict=True))
        assert not torch.equal(masks_seen[0], masks_seen[1])
        first = key_at(start["1.stream"].cpu())
        assert torch.equal(masks_seen[0], kept((16, 64), Key(first.seed, first.call + 1)))
        for a, b in zip(net.parameters(), weights, strict=True):
            torch.testing.assert_close(a.detach(), b)

    def test_calls_before_and_after_a_graph(self) -> None:
        """Eager calls, replays, and what is loaded go on from each other."""
        from multidrop_torch import Dropout
        from multidrop_torch.keyed import drawing

        layer, X = Dropout(P, seed=SEED).cuda(), torch.ones(3000, device="cuda")
        for call in range(2):
            assert torch.equal(mask_of(layer(X)), kept((3000,), Key(SEED.seed, SEED.call + call)))
        saved = layer.state_dict()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            Y = layer(X)
        for _ in range(2):
            for call in (2, 3, 4):
                if call == 3:
                    Z = layer(X)
                else:
                    graph.replay()
                    Z = Y
                assert torch.equal(mask_of(Z), kept((3000,), Key(SEED.seed, SEED.call + call)))
                assert drawing(layer).last == Key(SEED.seed, SEED.call + call)
            layer.load_state_dict(saved)

    def test_large_and_permuted_under_capture(self) -> None:
        from multidrop_torch import Dropout

        layer = Dropout(P, seed=3).cuda()
        large, last = torch.ones(2**20, device="cuda"), torch.ones(2, 16, 8, 8, device="cuda")
        last = last.to(memory_format=torch.channels_last)
        layer(large), layer(last)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            Y, Z = layer(large), layer(last)
        for call in (2, 4, 6):
            graph.replay()
            assert torch.equal(mask_of(Y), kept((2**20,), Key(3, call)))
            assert torch.equal(mask_of(Z), kept((2, 16, 8, 8), Key(3, call + 1)))

    def test_graphed_callables(self) -> None:
        net, X = self.net(), torch.randn(16, 40, device="cuda")
        layer = net[1]
        graphed = torch.cuda.make_graphed_callables(net, (X,))
        seen = []
        for _ in range(3):
            graphed(X).sum().backward()
            seen.append(key_at(layer.stream).call)
        assert seen == [seen[0], seen[0] + 1, seen[0] + 2]

    def test_unseeded_layers_follow_the_generator(self) -> None:
        """torch's CUDA generator, eager and captured, with the same masks in both."""
        from multidrop_torch import Dropout

        layer, X = Dropout(P).cuda(), torch.ones(3000, device="cuda")
        torch.manual_seed(5)
        eager = [mask_of(layer(X)) for _ in range(3)]
        torch.manual_seed(5)
        assert torch.equal(mask_of(layer(X)), eager[0])
        assert not torch.equal(eager[0], eager[1])
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            Y = layer(X)
        torch.manual_seed(5)
        for number in range(3):
            graph.replay()
            assert torch.equal(mask_of(Y), eager[number])

    @pytest.mark.parametrize("seed", [None, 3])
    @pytest.mark.parametrize("reentrant", [False, True])
    def test_activation_checkpointing(self, seed: Any, reentrant: bool) -> None:
        from torch.utils.checkpoint import checkpoint

        gradients = []
        for kept_whole in (True, False):
            net, X = self.net(seed), torch.ones(16, 40, device="cuda", requires_grad=True)
            torch.manual_seed(2)
            for _ in range(2):
                Y = net(X) if kept_whole else checkpoint(net, X, use_reentrant=reentrant)
                Y.square().sum().backward()
            gradients.append([p.grad.clone() for p in net.parameters()])
        for a, b in zip(*gradients, strict=True):
            torch.testing.assert_close(a, b)

    # torch's own, at its first compilation: it announces what it is about to change.
    @pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning:torch", "ignore::FutureWarning")
    @pytest.mark.parametrize("how", ["default", "reduce-overhead"])
    def test_compiled(self, how: str) -> None:
        """A compiled keyed layer has the masks of an eager one, also in CUDA graphs; an unseeded one has new ones."""
        from multidrop_torch import Dropout

        layer, free = Dropout(P, seed=3).cuda(), Dropout(P).cuda()
        run = torch.compile(lambda X: layer(X * 1.0) * 1.0, mode=None if how == "default" else how, fullgraph=True)
        for call in range(5):
            X = torch.ones(64, 32, device="cuda", requires_grad=True)
            torch.compiler.cudagraph_mark_step_begin()
            Y = run(X)
            assert torch.equal(mask_of(Y), kept((64, 32), Key(3, call)))
            Y.sum().backward()
            assert torch.equal(mask_of(X.grad), kept((64, 32), Key(3, call)))
        run = torch.compile(lambda X: free(X * 1.0) * 1.0, fullgraph=True)
        X = torch.ones(64, 32, device="cuda")
        assert not torch.equal(mask_of(run(X)), mask_of(run(X)))

    def test_autocast(self) -> None:
        net, X = self.net(Key(7)), torch.randn(16, 40, device="cuda")
        with torch.autocast("cuda", torch.bfloat16):
            hidden = net[0](X)
            Y = net[1](hidden)
        assert Y.dtype == torch.bfloat16
        assert same_bits(Y, expected(hidden, Mask(P, Key(7))))


class Elsewhere(torch.Tensor):
    """A tensor of the host that says that it is on a GPU, which the interpreter's kernels take."""

    is_cpu, is_cuda = False, True


@without_gpu
class TestChoice:
    """Which functions go by the kernels, and what happens where these cannot run."""

    @pytest.fixture(autouse=True)
    def a_gpu(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(device, "ready", lambda index: True)

    @pytest.fixture
    def calls(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        calls: list[str] = []

        def noting(name: str, run: Any) -> Any:
            return lambda *arguments: (calls.append(name), run(*arguments))[1]

        for name in ("drop", "drop_", "relu_gradient", "keep_mask"):
            monkeypatch.setattr(device, name, noting(name, getattr(device, name)))
        return calls

    def test_functions(self, calls: list[str]) -> None:
        X = values(20, 30).as_subclass(Elsewhere)
        assert same_bits(functional.dropout_layer(X, P, KEY), expected(X, Mask(P, KEY)))
        assert same_bits(functional.relu_dropout(X, P, KEY), expected(X, Mask(P, KEY), True))
        draw.drop_(X.clone().as_subclass(Elsewhere), Mask(P, KEY))
        draw.relu_gradient(X, X, P)
        assert calls == ["drop", "drop", "drop_", "relu_gradient"]

    def test_masks(self, calls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
        from multidrop_torch.draw import Draw

        monkeypatch.setattr(device, "draws", lambda place: True)
        X = torch.ones(4, 5)
        keep = torch.from_numpy(masks.keep_mask((4, 5), P, KEY, 3))
        assert torch.equal(functional.keep_mask((4, 5), P, KEY, 3), keep)
        assert torch.equal(Draw(KEY, 3).keep(X, P), keep)
        assert same_bits(draw.drop_by_operators(X, Mask(P, KEY, 3)), expected(X, Mask(P, KEY, 3)))
        assert calls == ["keep_mask"] * 3

    def test_the_host_keeps_its_own(self, calls: list[str]) -> None:
        X = values(20, 30)
        functional.dropout_layer(X, P, KEY)
        functional.keep_mask((3,), P, KEY)
        draw.drop_(X, Mask(P, KEY))
        draw.relu_gradient(X, X, P)
        assert calls == []

    def test_without_memory(self) -> None:
        """A zero tensor of autograd has none, and goes by operators."""
        assert not device.fits(torch._efficientzerotensor((3,)).as_subclass(Elsewhere))
        assert device.fits(torch.ones(0).as_subclass(Elsewhere))


@without_gpu
class TestKeyedLayers:
    """A keyed layer whose stream says that it is on a GPU takes its masks there."""

    @pytest.fixture
    def layer(self, monkeypatch: pytest.MonkeyPatch) -> Any:
        from multidrop_torch import Dropout, autograd

        monkeypatch.setattr(autograd, "_by_kernels", lambda X, stream: True)
        layer = Dropout(P, seed=SEED)
        vars(layer)["stream"] = layer.stream.as_subclass(Elsewhere)
        return layer

    @pytest.mark.parametrize("relu", [False, True])
    def test_forward_and_gradients(self, layer: Any, relu: bool) -> None:
        import multidrop as md

        for call in range(3):
            mask = Mask(P, Key(SEED.seed, SEED.call + call))
            X, dY = values(300).requires_grad_(call != 1), values(300, seed=1)
            Y = layer.after_relu(X) if relu else layer(X)
            assert same_bits(Y, expected(X, mask, relu))
            last = md.last_mask(layer)
            assert (last.key, last.p, last.shape) == (mask.key, P, (300,))
            if call != 1:
                (dX,) = torch.autograd.grad(Y, X, dY, create_graph=True)
                gradient = masks.relu_gradient(wide(dY), wide(Y), P) if relu else wide(expected(dY, mask))
                assert same_bits(dX, torch.from_numpy(gradient))

    def test_members_by_positions(self) -> None:
        """Their numbers are those of the key at the position."""
        from multidrop_torch import apply
        from multidrop_torch.draw import Draw

        from multidrop import family

        X = values(4, 6, 5, 5).nan_to_num()
        for member in (family.GaussianNoise(0.3), family.DropBlock(P, 3), family.SpatialDropout(P)):
            Y = family.run(member, X, Draw(position(KEY)))
            assert same_bits(Y, apply(member, X, KEY))


@without_gpu
class TestTies:
    """The PTX by which each thread settles ties, run line by line on arrays."""

    @staticmethod
    def run(text: str, given: list[Any]) -> list[Any]:
        """The four results of the assembly for arrays of uint32; every thread goes its own way past the branch."""
        registers: dict[str, Any] = {f"${i}": each for i, each in enumerate(given, 4)}
        active = np.ones(given[0].shape, np.bool_)

        def value(name: str) -> Any:
            return registers[name] if name in registers else np.uint64(int(name, 0))

        operations: dict[str, Callable[..., Any]] = {
            "mov.b32": lambda a: a,
            "not.b32": lambda a: ~a,
            "and.b32": lambda a, b: a & b,
            "or.b32": lambda a, b: a | b,
            "xor.b32": lambda a, b: a ^ b,
            "shr.u32": lambda a, b: a >> b,
            "add.u32": lambda a, b: a + b,
            "sub.u32": lambda a, b: a - b,
            "mul.lo.u32": lambda a, b: a * b,
            "mul.hi.u32": lambda a, b: (a * b) >> np.uint64(32),
            "setp.eq.u32": lambda a, b: a == b,
            "setp.lt.and.u32": lambda a, b, p: (a < b) & p,
        }
        for line in text.splitlines():
            if line in ("{", "}", "NONE:") or line.startswith(".reg"):
                continue
            where, line = active, line.rstrip(";")
            if line.startswith("@p "):
                where, line = active & registers["p"], line[3:]
            operation, _, rest = line.partition(" ")
            if operation == "bra":
                active = active & ~registers["p"]
                continue
            target, *sources = rest.split(", ")
            new = operations[operation](*(value(name) for name in sources))
            if not operation.startswith("setp"):
                new = np.broadcast_to(new, active.shape) & np.uint64(2**32 - 1)
            registers[target] = np.where(where, new, registers.get(target, new))
        return [registers[f"${i}"] for i in range(4)]

    def test_assembly(self) -> None:
        from multidrop_torch import triton_ties

        key, first, blocks = Key(2**63 + 5, 2**64 - 2), 2**33 - 100, 5000
        block = np.arange(first, first + blocks, dtype=np.uint64)
        words = [word.astype(np.uint64) for word in masks.philox4x32(self.counter(block, key, 0), key.seed)]
        uniforms = masks.uniforms(8 * blocks, key, 8 * first)
        for index, offset in ((3, 0), (3, 1), (20_001, 0), (20_001, 1)):
            high, low = divmod(int(uniforms[index]) + offset, 2**16)
            numbers = (*self.counter(block, key, 1), key.seed % 2**32, key.seed >> 32, high, low)
            given = words + [np.broadcast_to(np.uint64(number), block.shape) for number in numbers]
            found = np.stack(self.run(triton_ties.TEXT.value, given), axis=1)
            lanes = np.stack([found & np.uint64(0xFFFF), found >> np.uint64(16)], axis=2).reshape(-1)
            assert np.array_equal(lanes < high, uniforms < (high << 16) + low)

    @staticmethod
    def counter(block: Any, key: Key, plane: int) -> tuple[Any, ...]:
        half = np.uint64(2**32 - 1)
        return block & half, (block >> np.uint64(32)) + np.uint64(plane << 31), key.call % 2**32, key.call >> 32


@without_gpu
class TestLaunch:
    """What Triton's C function is given, by a stand-in for a compiled kernel."""

    @pytest.fixture
    def launched(self, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
        monkeypatch.setattr(launch, "raw_stream", lambda index: 1000 + index)
        return []

    @staticmethod
    def kernel(launched: list[Any], scratch: int = 0) -> Any:
        run = SimpleNamespace(
            launch=lambda *arguments: launched.append(arguments),
            launch_cooperative_grid=False,
            launch_pdl=False,
            global_scratch_size=scratch,
            profile_scratch_size=0,
        )
        return SimpleNamespace(run=run, function=77, packed_metadata=(4, 1, 0))

    def test_arguments(self, launched: list[Any]) -> None:
        X, Y = torch.ones(3), torch.ones(3)
        direct: Any = launch._directly(self.kernel(launched), 2, (128, True))
        direct(5, (X, Y), 7, 8)
        before = 5, 1, 1, 1002, 77, False, False, None, None, (4, 1, 0), None, None, None
        assert launched == [(*before, X.data_ptr(), Y.data_ptr(), 7, 8, 128, True)]

    def test_unknown_versions(self, launched: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
        """Another version of Triton may take other arguments: its own launcher is slower, and right."""
        assert launch._directly(self.kernel(launched, scratch=8), 0, ()) is None
        monkeypatch.setattr("triton.__version__", "3.99.0")
        assert launch._directly(self.kernel(launched), 0, ()) is None


READY = device.ready.__wrapped__


@without_gpu
def test_without_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "find_spec", lambda name: None)
    monkeypatch.setattr(device, "_keep", None)
    assert READY(0) is False


@without_gpu
def test_where_triton_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> Any:
        raise RuntimeError("Failed to find C compiler")

    monkeypatch.setattr(device, "_keep", fail)
    with pytest.warns(RuntimeWarning, match=r"masks of GPU 3 on the host.*RuntimeError: Failed to find C compiler"):
        assert READY(3) is False
    monkeypatch.setattr(device, "_keep", lambda *_: None)
    assert READY(3) is True


LAZY = """
import sys, torch, multidrop_torch
X = torch.ones(100, requires_grad=True)
multidrop_torch.dropout_layer(X, 0.5, 1).sum().backward()
{more}
sys.exit(any(name == "triton" or name.startswith("triton.") for name in sys.modules))
"""


@without_gpu
@pytest.mark.parametrize("more", ["", "import multidrop_torch.triton_kernels"])
def test_triton_is_imported_for_a_gpu_alone(more: str) -> None:
    done = subprocess.run([sys.executable, "-c", LAZY.format(more=more)], check=False)
    assert done.returncode == bool(more)  # and the check can fail


COMPILE = """
import re
from types import SimpleNamespace

import torch
from multidrop import Key
from multidrop.spec.masks import Mask
from multidrop_torch import device, device_positions, launch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

# A driver of a GPU that is not there: what is compiled is real, and what is launched is noted.
target, launched = GPUTarget("cuda", 90, 32), []
utils = SimpleNamespace(
    get_device_properties=lambda index: {"max_shared_mem": 2**17},
    load_binary=lambda *_: ("module", "function", 64, 0, 1024),
)
stand_in = SimpleNamespace(
    get_current_target=lambda: target,
    get_current_device=lambda: 0,
    get_current_stream=lambda index: 0,
    launcher_cls=lambda source, metadata: lambda *arguments: launched.append((source, arguments)),
    utils=utils,
)
driver.set_active(stand_in)

def holds(name, types, constants, warps, *instructions):
    kernel = launch.compiled("triton_kernels", name, types, -1, constants, warps)
    ptx = kernel.asm["ptx"]
    for instruction in instructions:
        assert instruction in ptx, (instruction, ptx)
    assert not re.search(r"\\bfma\\b|\\.ftz", ptx), ptx
    assert not any(kernel.src.attrs.values()), kernel.src.attrs  # nothing hangs on the arguments' values
    return ptx

def typed(dtype, count, *more):
    return (dtype,) * count + more

blocks, size, wide = (device.BLOCKS,), (device.SIZE,), ("ld.global.v4.b32", "st.global.v4.b32")
tile = (device.TILE_COLUMNS, device.TILE_BLOCKS)
place = (torch.int64,) * 3
single, brain, half, double = torch.float32, torch.bfloat16, torch.float16, torch.float64
# FROM, KEEP, RELU, DOUBLE, TIES, SKIPS, ALIGNED
for source in (0, 1, 2, 3):
    holds("linear", typed(single, 2, *place), (*blocks, source, False, False, False, True, False, True), 2,
          "mul.rn.f32", *wide)
holds("linear", typed(brain, 2, *place), (*blocks, 0, False, True, False, True, False, True), 2, "cvt.rn.bf16.f32",
      *wide)
holds("linear", typed(half, 2, *place), (*blocks, 0, False, False, False, False, False, True), 2, "cvt.rn.f16.f32",
      *wide)
holds("linear", typed(double, 2, *place), (*blocks, 0, False, False, True, True, False, True), 2, "mul.rn.f64",
      "st.global.v2.b64")
holds("linear", typed(single, 2, *place), (*blocks, 0, False, False, False, True, True, False), 2, "mul.rn.f32")
holds("linear", typed(torch.uint8, 2, *place), (*blocks, 0, True, False, False, True, False, True), 2,
      "st.global.v4.b32")
# ROW, DIMS, WIDE, SHARED, RELU, DOUBLE, ALIGNED
holds("permuted", typed(single, 2, torch.uint8), (*size, 1, 5, False, False, False, False, True), 4, "mul.rn.f32",
      *wide)
holds("permuted", typed(brain, 2, torch.uint8), (*size, 8, 2, True, True, True, False, True), 4, "cvt.rn.bf16.f32",
      *wide)
for dtype in (single, brain):
    ptx = holds("linear", typed(dtype, 2, *place), (*blocks, 0, False, False, False, 2, False, True), 2, *wide)
    assert "bra NONE" in ptx
assert "bar.sync" not in ptx  # no thread waits for another
holds("plane", (torch.uint8, torch.int64), (*size, 1, 2), 4, "bra NONE")
holds("tile", typed(single, 2, torch.int64), (*tile, 1, False, False, 2, True), 4, "bra NONE")
holds("gate", typed(brain, 3), (*size, False, True), 4, "cvt.rn.bf16.f32", *wide)
holds("plane", (torch.uint8, torch.int64), (*size, 1, True), 4)
ptx = holds("tile", typed(single, 2, torch.int64), (*tile, 1, False, False, False, True), 4, "mul.rn.f32", *wide)
products = len(re.findall("mul.hi.u32|mul.wide.u32", ptx))  # two a round: no block is drawn by two threads
assert products <= 20 * tile[0] * tile[1] // 128, products
X, key = torch.ones(10, 16), Key(2**64 - 1, 2**63)
Y = device.drop(X, Mask(0.2, key, 2**64 - 200))
device.drop_(X.T, Mask(0.2, key))
device.drop_(X.view(8, 20).T, Mask(0.2, key))
device.relu_gradient(X, X, 0.2)
device.keep_mask((5,), 0.5, key, 3, torch.device("cpu"))
stream = torch.zeros(2, dtype=torch.int64)
device.take(stream)
device.take_and_drop(X, Mask(0.2, None), stream)
device_positions.follow(stream, Key(2**64 - 1, 2**64 - 2))
device.take(stream)
device.take_and_drop(X, Mask(0.2, None), stream)
names = [source.fn.__name__ for source, _ in launched]
assert names == ["linear", "plane", "permuted", "tile", "gate", "linear", "take", "linear", "take", "linear"], names
for source, arguments in launched:
    given = arguments[-len(source.signature) :]
    for (name, type), value in zip(source.signature.items(), given, strict=True):
        if type.startswith("*"):
            assert isinstance(value, torch.Tensor), (name, value)
        elif type != "constexpr":
            low, high = {"u64": (0, 2**64), "i64": (-(2**63), 2**63), "i32": (-(2**31), 2**31)}[type]
            assert low <= value < high, (name, value)
    constants = [value for type, value in zip(source.signature.values(), given) if type == "constexpr"]
    assert constants == list(source.constants.values()), (constants, source.constants)
_, arguments = launched[0]
assert arguments[:3] == (1, 1, 1), arguments
assert arguments[-21:-10] == (X, Y, Y, Y, Y, 160, 0, 2**61 - 25, key.seed, key.call, 52428), arguments
"""


@without_gpu
def test_compiles_for_a_gpu(tmp_path: Path) -> None:
    """Triton's compiler takes more care with types than its interpreter. Loads and stores have 16 bytes, products and
    conversions round to the nearest, nothing is fused, and denormals stay."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path)
    done = subprocess.run([sys.executable, "-c", COMPILE], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
