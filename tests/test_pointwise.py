"""The dropout that Inductor fuses on a GPU, under Inductor's CPU backend."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from multidrop import Key
from multidrop.spec import masks
from multidrop.spec.masks import Mask

torch = pytest.importorskip("torch", reason="it is about torch's compiler")
functional = pytest.importorskip("multidrop_torch.functional")
programs = pytest.importorskip("multidrop_torch.programs")
positions = pytest.importorskip("multidrop_torch.position")
pointwise = pytest.importorskip("multidrop_torch.gpu.pointwise")

# torch's own, at its first compilation: it announces what it is about to change.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning:torch")

KEY = Key(2**63 + 5, 2**64 - 1)


@pytest.fixture
def fused() -> Iterator[list[Any]]:
    """Inductor's table has `drop` for the operator on a CPU too; the calls are noted."""
    from torch._inductor import decomposition

    calls: list[Any] = []

    def noting(*arguments: Any) -> Any:
        calls.append(arguments)
        return pointwise.drop(*arguments)

    before = decomposition.decompositions.get(programs.drop_values)
    decomposition.decompositions[programs.drop_values] = noting
    decomposition.fast_random_decomps.cache_clear()
    torch.compiler.reset()
    with torch.compiler.config.patch(force_disable_caches=True):  # whose keys do not see the table
        yield calls
    if before is None:
        del decomposition.decompositions[programs.drop_values]
    else:
        decomposition.decompositions[programs.drop_values] = before
    decomposition.fast_random_decomps.cache_clear()
    torch.compiler.reset()


def expected(X: Any, mask: Mask) -> Any:
    x = (X.float() if X.dtype == torch.bfloat16 else X).detach().numpy()
    return torch.from_numpy(masks.dropout(x, *mask)).to(X.dtype)


@pytest.mark.parametrize(
    ("shape", "p", "start", "axes"),
    [((3, 40), 0.2, 0, ()), ((7, 5), 0.2, 2**63 - 3, ()), ((2, 3, 4, 4), 0.5, 5, (2, 3)), ((16,), 1.0, 0, ())],
    ids=str,
)
def test_bits(shape: tuple[int, ...], p: float, start: int, axes: tuple[int, ...], fused: list[Any]) -> None:
    """Forward and gradient, in a chain of pointwise operations, with ties and parts."""
    mask = Mask(p, KEY, start, axes)

    def chain(X: Any) -> Any:
        return functional.dropout_layer(X * 2.0, p, KEY, start=start, axes=axes)

    for dtype in (torch.float32, torch.bfloat16):
        X, dY = torch.randn(shape).to(dtype).requires_grad_(), torch.randn(shape).to(dtype)
        Y = torch.compile(chain, fullgraph=True)(X)
        assert torch.equal(Y, expected(X.detach() * 2.0, mask))
        (dX,) = torch.autograd.grad(Y, X, dY)
        assert torch.equal(dX, expected(dY, mask) * 2.0)
    assert fused


def test_what_is_kept(fused: list[Any]) -> None:
    """An eighth of a byte an element for the backward pass, and no tensor of the input's size."""
    X, sizes = torch.randn(64, 128, requires_grad=True), list[int]()

    def pack(Y: Any) -> Any:
        sizes.append(Y.nbytes)
        return Y

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda Y: Y):
        torch.compile(lambda X: functional.dropout_layer(X * 2.0, 0.2, KEY) * 3.0, fullgraph=True)(X)
    assert sum(sizes) <= X.numel() / 8 + 16, sizes


def test_ties(fused: list[Any]) -> None:
    for offset in (0, 1):
        p = 1.0 - (int(masks.uniforms(1, KEY, 70)[0]) + offset) / 2**32
        Y = torch.compile(lambda X, p=p: functional.dropout_layer(X, p, KEY) + 1.0)(torch.ones(100))
        assert torch.equal(Y, expected(torch.ones(100), Mask(p, KEY)) + 1.0)
        assert bool(Y[70] == 1.0) != bool(offset)


def test_a_cpu_keeps_the_operator() -> None:
    position = positions.position_of(KEY)
    assert pointwise._fused(torch.ones(3), position, 0.5, 0, ()) is NotImplemented


def test_without_inductors_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch moved the name: the operator stays as it is."""
    from torch._inductor import decomposition

    monkeypatch.delattr(decomposition, "fast_random_decomps")
    before = dict(decomposition.decompositions)
    pointwise.fuse()
    assert decomposition.decompositions == before
