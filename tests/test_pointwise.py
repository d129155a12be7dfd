"""The dropout that Inductor fuses on a GPU, under Inductor's CPU backend."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from multidrop import Key
from multidrop.spec import masks
from multidrop.spec.masks import Mask

torch = pytest.importorskip("torch", reason="it is about torch's compiler")
layers = pytest.importorskip("multidrop_torch.layers")
functional = pytest.importorskip("multidrop_torch.functional")
programs = pytest.importorskip("multidrop_torch.programs")
positions = pytest.importorskip("multidrop_torch.position")
pointwise = pytest.importorskip("multidrop_torch.gpu.pointwise")

# torch's own, at its first compilation: it announces what it is about to change.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning:torch")

KEY = Key(2**63 + 5, 2**64 - 1)


@pytest.fixture
def fused(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Inductor fuses a dropout on a CPU too; those that it fused are noted."""
    found: list[Any] = []
    read = pointwise._Dropout._read

    def noting(self: Any, place: Any) -> Any:
        found.append(self)
        return read(self, place)

    monkeypatch.setattr(pointwise, "fuses", lambda place: True)
    monkeypatch.setattr(pointwise._Dropout, "_read", noting)
    pointwise.fuse()
    torch.compiler.reset()
    with torch.compiler.config.patch(force_disable_caches=True):  # whose keys do not see what is patched
        yield found
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
    """The position alone is kept for the backward pass, 16 bytes."""
    X, sizes, layer = torch.randn(64, 128, requires_grad=True), list[int](), layers.Dropout(0.2, seed=KEY)

    def pack(Y: Any) -> Any:
        sizes.append(Y.nbytes)
        return Y

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda Y: Y):
        Y = torch.compile(lambda X: layer(X * 2.0) * 3.0, fullgraph=True)(X)
    assert sum(sizes) == 16, sizes
    (dX,) = torch.autograd.grad(Y, X, torch.ones_like(Y))
    assert torch.equal(dX, expected(torch.ones(64, 128), Mask(0.2, KEY)) * 6.0)
    assert len(fused) == 2  # one for each pass


def test_ties(fused: list[Any]) -> None:
    for offset in (0, 1):
        p = 1.0 - (int(masks.uniforms(1, KEY, 70)[0]) + offset) / 2**32
        Y = torch.compile(lambda X, p=p: functional.dropout_layer(X, p, KEY) + 1.0)(torch.ones(100))
        assert torch.equal(Y, expected(torch.ones(100), Mask(p, KEY)) + 1.0)
        assert bool(Y[70] == 1.0) != bool(offset)


def test_sizes_that_change(fused: list[Any]) -> None:
    """One program for all sizes, whose threads, starts and bytes depend on them."""
    run = torch.compile(lambda X: functional.dropout_layer(X * 2.0, 0.2, KEY, start=13), fullgraph=True, dynamic=True)
    for shape in ((3, 40), (5, 17), (9, 64)):
        X = torch.randn(shape)
        assert torch.equal(run(X), expected(X * 2.0, Mask(0.2, KEY, 13)))
    assert len(fused) == 1


def test_a_cpu_keeps_the_operator() -> None:
    assert not pointwise.fuses(torch.device("cpu"))


def test_without_inductor(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch moved a name: the operator stays as it is."""
    from torch._inductor import lowering

    monkeypatch.setattr(pointwise.compiler, "inductor", lambda: None)
    before = dict(lowering.lowerings)
    pointwise.fuse.__wrapped__()
    assert lowering.lowerings == before


def test_after_a_program_of_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Inductor has taken the operator for one that it runs on its own, and learns better."""
    from torch._inductor import lowering

    monkeypatch.delitem(lowering.lowerings, programs.drop_values, raising=False)
    torch.compiler.reset()
    with torch.compiler.config.patch(force_disable_caches=True):
        X = torch.randn(3, 40)
        run = torch.compile(lambda X: functional.dropout_layer(X * 2.0, 0.2, KEY), fullgraph=True)
        assert torch.equal(run(X), expected(X * 2.0, Mask(0.2, KEY)))
    assert programs.drop_values in lowering.fallbacks
    assert lowering.maybe_layout_constraints(programs.drop_values) is None
    before = lowering.lowerings[programs.drop_values]
    pointwise.fuse.__wrapped__()
    assert lowering.lowerings[programs.drop_values] is not before
    assert programs.drop_values not in lowering.fallbacks
    torch.compiler.reset()
