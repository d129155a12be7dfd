"""Masks and numbers by a key that lies in a GPU's memory, and the streams that it is taken from."""

from __future__ import annotations

from typing import Any

import gpu_ways  # before torch: it sets Triton's variable, or skips
import numpy as np
import pytest
import torch
from gpu_ways import (
    CUDA,
    KEY,
    KEYS,
    STARTS,
    P,
    drop,
    drop_,
    expected,
    position,
    same_bits,
    values,
)
from multidrop_torch import gpu
from multidrop_torch.gpu import positions
from multidrop_torch.position import key_at, known, position_of

from multidrop import Key
from multidrop.spec import masks
from multidrop.spec.masks import Mask

pytestmark, kernels_alone = gpu_ways.marks, gpu_ways.kernels_alone


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
            keep = gpu.keep_mask((50, 3), P, position(key), 5, place)
            assert np.array_equal(keep.cpu().numpy(), masks.keep_mask((50, 3), P, key, 5))
            found = gpu.bits(150, Mask(P, position(key), 5), place)
            assert torch.equal(found, gpu.bits(150, Mask(P, key, 5), place))

    @pytest.mark.parametrize("key", KEYS, ids=str)
    def test_take(self, key: Key) -> None:
        """A stream moves on by one call, and from the last one to 0."""
        stream = position(key)
        assert key_at(gpu.take(stream)) == key
        assert key_at(stream) == Key(key.seed, (key.call + 1) % 2**64)

    @pytest.mark.parametrize("n", [1, 16, 1024, 1025, 5000])
    @pytest.mark.parametrize("relu", [False, True])
    def test_take_and_drop(self, n: int, relu: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        """In one launch and in two."""
        for together in (512, 2):
            monkeypatch.setattr(gpu, "TOGETHER", together)
            stream, X = position(Key(7, 2**64 - 1)), values(n)
            for call in (2**64 - 1, 0, 1):
                Y, mask = gpu.take_and_drop(X, P, 3, (), stream, relu)
                assert same_bits(Y, expected(X, Mask(P, Key(7, call), 3), relu))
                assert key_at(mask.key) == Key(7, call)
                assert mask == (P, mask.key, 3, ())
            assert key_at(stream) == Key(7, 2)
            assert not positions.counter(X).any()

    def test_take_and_drop_of_others(self) -> None:
        stream = position(Key(7))
        image = values(2, 20, 4, 6)
        inputs = (image, (1,)), (image.to(memory_format=torch.channels_last), ()), (image[:0], ()), (image[..., 1:], ())
        for call, (X, axes) in enumerate(inputs):
            Y, mask = gpu.take_and_drop(X, P, 0, axes, stream)
            assert same_bits(Y, expected(X, Mask(P, Key(7, call), 0, axes)))
            assert key_at(mask.key) == Key(7, call)

    def test_what_a_graph_needs_is_loaded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """By calls before it, whose backward passes have the host's key where those within it read a position."""
        loaded: list[Any] = []
        program = gpu.program
        monkeypatch.setattr(gpu, "program", lambda *what: (loaded.append(what), program(*what))[1])
        gpu._plan.cache_clear()
        for X in (values(48, 70).T, values(3, 5, 6, 7).permute(3, 1, 0, 2), values(300)):
            stream = self.followed(Key(7))
            _, mask = gpu.take_and_drop(values(*X.shape), P, 0, (), stream)
            assert type(mask.key) is Key
            drop(X, mask)
            before = set(loaded)
            drop(X, mask._replace(key=position(Key(7))))
            assert set(loaded) == before

    @staticmethod
    def followed(key: Key) -> Any:
        stream = position(key)
        positions.follow(stream, key)
        return stream

    @pytest.mark.parametrize("n", [1, 16, 1025, 5000])
    @pytest.mark.parametrize("relu", [False, True])
    def test_counted(self, n: int, relu: bool) -> None:
        """The host knows the keys of a stream that it follows; the stream moves on all the same, past the last call."""
        stream, X = self.followed(Key(2**63 + 7, 2**64 - 1)), values(n)
        for call in (2**64 - 1, 0, 1):
            Y, mask = gpu.take_and_drop(X, P, 3, (), stream, relu)
            assert mask == (P, Key(2**63 + 7, call), 3, ())
            assert same_bits(Y, expected(X, mask, relu))
            assert key_at(stream) == Key(2**63 + 7, (call + 1) % 2**64)

    def test_counted_for_others(self) -> None:
        stream, image = self.followed(Key(7)), values(2, 20, 4, 6)
        inputs = (image, (1,)), (image.to(memory_format=torch.channels_last), ()), (image[:0], ()), (image[..., 1:], ())
        for call, (X, axes) in enumerate(inputs):
            Y, mask = gpu.take_and_drop(X, P, 0, axes, stream)
            assert key_at(mask.key) == Key(7, call)
            assert same_bits(Y, expected(X, Mask(P, Key(7, call), 0, axes)))
            assert key_at(stream) == Key(7, call + 1)
        assert positions.counted(stream) == Key(7, len(inputs))

    def test_the_host_stops_counting(self) -> None:
        """Where something else writes to a stream, or a program takes from it, which may do so again unseen."""
        X = values(300)

        def call_of(stream: Any) -> int:
            _, mask = gpu.take_and_drop(X, P, 0, (), stream)
            return known(mask.key).call

        for taken in (False, True):
            stream = self.followed(Key(7))
            assert call_of(stream) == 0
            if taken:
                assert key_at(gpu.take(stream, torch.empty_like(stream))) == Key(7, 1)
                gpu.take(position_of(Key(3)).to(stream.device))  # another one
            else:
                stream[1] = 2
            assert positions.counted(stream) is None
            for call in (2, 3):
                assert call_of(stream) == call
            stream[1] = 9
            positions.written(stream)
            assert positions.counted(stream) is None  # whatever took from it may do so again
            assert call_of(stream) == 9

    def test_the_host_counts_on_from_what_is_loaded(self) -> None:
        stream = self.followed(Key(7))
        stream.copy_(position_of(Key(8, 2**63 + 2)))
        positions.written(stream)
        assert positions.counted(stream) == Key(8, 2**63 + 2)

    def test_no_count_outlives_its_stream(self) -> None:
        stream = self.followed(Key(7))
        address = stream.data_ptr()
        assert address in positions._counts
        del stream
        assert address not in positions._counts

    def test_without_versions(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """torch moved the name: the GPU counts alone."""
        monkeypatch.setattr(positions, "version_of", lambda X: None)
        assert positions.counted(self.followed(Key(7))) is None

    def test_positions_are_apart(self) -> None:
        """None shares its memory with another one, also when more are made than are allocated together."""
        stream = position(Key(7))
        taken = [gpu.take(stream) for _ in range(2 * positions.POSITIONS + 3)]
        assert [key_at(each).call for each in taken] == list(range(len(taken)))

    def test_drawn(self) -> None:
        place = torch.device("cuda" if CUDA else "cpu")
        torch.manual_seed(3)
        drawn = [gpu.drawn(place) for _ in range(4)]
        torch.manual_seed(3)
        assert torch.equal(torch.stack(drawn), torch.stack([gpu.drawn(place) for _ in range(4)]))
        assert len({key_at(each) for each in drawn}) == 4
        assert all(word >= 2**32 for each in drawn for word in each.tolist())  # all of 63 bits are drawn


class TestNumbers:
    @pytest.mark.parametrize("start", STARTS)
    def test_uniform(self, start: int) -> None:
        place = torch.device("cuda" if CUDA else "cpu")
        for key in (KEY, Key(7, 3)):
            found = gpu.uniform((3, 700), key, start, place).cpu().numpy()
            assert np.array_equal(found, masks.open_uniforms((3, 700), key, start))
            assert torch.equal(gpu.uniform((5,), position(key), start, place), gpu.uniform((5,), key, start, place))

    @pytest.mark.parametrize("start", STARTS)
    def test_normal(self, start: int) -> None:
        """In the middle to the bit, and in the tails within the promised distance, for the logarithm of a GPU is not
        NumPy's."""
        place = torch.device("cuda" if CUDA else "cpu")
        found = gpu.normal((3, 700), KEY, start, place).cpu().numpy()
        z = masks.normals((3, 700), KEY, start)
        ulps = np.abs(found - z) / np.spacing(np.abs(z))
        middle = np.abs(masks.open_uniforms((3, 700), KEY, start) - 0.5) <= 0.425
        assert not ulps[middle].any()
        assert ulps.max() <= (16 if CUDA else 0)
        at = gpu.normal((700,), position(KEY), start, place).cpu().numpy()
        assert np.array_equal(at, found[0])

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
    def test_mean_and_deviation(self, dtype: Any) -> None:
        """Computed in float64, and rounded once."""
        place = torch.device("cuda" if CUDA else "cpu")
        found = gpu.normal((2000,), KEY, 5, place, dtype, 1.0, 0.37).cpu()
        whole = torch.from_numpy(1.0 + 0.37 * gpu.normal((2000,), KEY, 5, place).cpu().numpy())
        assert torch.equal(found, whole.to(dtype))

    def test_none(self) -> None:
        assert gpu.normal((0, 3), KEY, 5, torch.device("cuda" if CUDA else "cpu")).shape == (0, 3)
