"""The public functions on a GPU."""

from __future__ import annotations

from unittest.mock import patch

import gpu_ways  # before torch: it sets Triton's variable, or skips
import pytest
import torch
from gpu_ways import (
    CUDA,
    KEY,
    PROBABILITIES,
    P,
    assert_bits,
    drop,
    drop_,
    expected,
    forget,
    mask_of,
    on_gpu,
    same_bits,
    tie,
    values,
    wide,
)
from multidrop_torch import functional, gpu
from multidrop_torch.gpu import launch

from multidrop import Key, host
from multidrop.spec import masks
from multidrop.spec.masks import Mask

pytestmark, kernels_alone = gpu_ways.marks, gpu_ways.kernels_alone


@pytest.mark.parametrize("by_thread", [(), ("linear", "plane", "tile")])
def test_who_settles_ties(by_thread: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """The program, or each thread: in all kernels, for thresholds that elements lie on, and for extreme ones."""
    ties = gpu._ties
    monkeypatch.setattr(gpu, "BY_THREAD", by_thread)
    monkeypatch.setattr(gpu, "_ties", lambda kernel, p, index: ties(kernel, p, max(index, 0)))  # also without a GPU
    forget()
    n, shape = (200_000, (2, 50, 40, 50)) if CUDA else (6144, (2, 16, 12, 16))
    X = torch.full((n,), 3.0, device="cuda" if CUDA else "cpu")
    last = X.reshape(shape).to(memory_format=torch.channels_last)
    thresholds = [tie(KEY, index, offset) for index in (3, 1063, n - 10) for offset in (0, 1)]
    for p in (*thresholds, *PROBABILITIES, 1 - 2**-20):
        keep = torch.from_numpy(masks.keep_mask(n, p, KEY))
        for dtype in (torch.float32, torch.bfloat16):
            assert torch.equal(mask_of(drop(X.to(dtype), Mask(p, KEY))), keep)
            assert torch.equal(mask_of(drop(last.to(dtype), Mask(p, KEY))).flatten(), keep)
        assert_bits(n, Mask(p, KEY))
    forget()


@on_gpu
class TestOnGpu:
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
        factor = gpu.normal((3000,), KEY, 0, X.device, torch.float32, 1.0, masks.gaussian_stddev("p", 0.3))
        assert same_bits(Y, X * factor)
        assert same_bits(dX, dY * factor)
        assert same_bits(noisy, X + gpu.normal((3000,), KEY, 0, X.device, torch.float32, 0.0, 0.3))

    def test_launches_go_directly(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """And by Triton's own launcher where its version is not known, with the same bits."""
        import triton

        X = values(5000)
        expected_bits = drop(X, Mask(P, KEY))
        for name in ("SPREAD", "TOGETHER"):
            monkeypatch.setattr(launch, name, ())
        forget()
        assert same_bits(drop(X, Mask(P, KEY)), expected_bits)
        monkeypatch.undo()
        forget()
        if triton.__version__.startswith((*launch.SPREAD, *launch.TOGETHER)):
            monkeypatch.setattr(launch, "_by_triton", None)
        assert same_bits(drop(X, Mask(P, KEY)), expected_bits)
        forget()
