"""Which functions go by the kernels for GPUs, what happens where these cannot run, and when Triton is imported."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import gpu_ways  # before torch: it sets Triton's variable, or skips
import pytest
import torch
from gpu_ways import (
    KEY,
    SEED,
    Elsewhere,
    P,
    expected,
    position,
    same_bits,
    values,
    wide,
    without_gpu,
)
from multidrop_torch import draw, functional, gpu

from multidrop import Key
from multidrop.spec import masks
from multidrop.spec.masks import Mask

pytestmark, kernels_alone = gpu_ways.marks, gpu_ways.kernels_alone


@without_gpu
class TestChoice:
    """Which functions go by the kernels, and what happens where these cannot run."""

    @pytest.fixture(autouse=True)
    def a_gpu(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(gpu, "ready", lambda index: True)

    @pytest.fixture
    def calls(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        calls: list[str] = []

        def noting(name: str, run: Any) -> Any:
            return lambda *arguments: (calls.append(name), run(*arguments))[1]

        for name in ("drop", "drop_", "relu_gradient", "keep_mask"):
            monkeypatch.setattr(gpu, name, noting(name, getattr(gpu, name)))
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

        monkeypatch.setattr(gpu, "draws", lambda place: True)
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
        assert not gpu.fits(torch._efficientzerotensor((3,)).as_subclass(Elsewhere))
        assert gpu.fits(torch.ones(0).as_subclass(Elsewhere))


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


READY = gpu.ready.__wrapped__


@without_gpu
def test_without_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "find_spec", lambda name: None)
    monkeypatch.setattr(gpu, "_keep", None)
    assert READY(0) is False


@without_gpu
def test_where_triton_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> Any:
        raise RuntimeError("Failed to find C compiler")

    monkeypatch.setattr(gpu, "_keep", fail)
    with pytest.warns(RuntimeWarning, match=r"masks of GPU 3 on the host.*RuntimeError: Failed to find C compiler"):
        assert READY(3) is False
    monkeypatch.setattr(gpu, "_keep", lambda *_: None)
    assert READY(3) is True


LAZY = """
import sys, torch, multidrop_torch
X = torch.ones(100, requires_grad=True)
multidrop_torch.dropout_layer(X, 0.5, 1).sum().backward()
{more}
sys.exit(any(name == "triton" or name.startswith("triton.") for name in sys.modules))
"""


@without_gpu
@pytest.mark.parametrize("more", ["", "import multidrop_torch.gpu.kernels"])
def test_triton_is_imported_for_a_gpu_alone(more: str) -> None:
    done = subprocess.run([sys.executable, "-c", LAZY.format(more=more)], check=False)
    assert done.returncode == bool(more)  # and the check can fail
