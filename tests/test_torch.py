"""Dropout of torch's tensors of other kinds (nested, sparse, fake), in place, and in other memory formats."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from torch_programs import KEY, compiled, layer

import multidrop as md
from multidrop.spec import masks

torch = pytest.importorskip("torch") if "torch" in md.available_backends() else None
if torch is not None:
    from multidrop_torch import Dropout, Dropout2d

# torch's own, at its first compilation: it announces what it is about to change.
pytestmark = [
    pytest.mark.usefixtures("torch_backend"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning:torch"),
]


def test_zeros_that_autograd_makes_up() -> None:
    """Tensors without memory, as the gradient of a sign is."""
    for drop in (Dropout(0.5, seed=1), Dropout(0.5, seed=1).after_relu, Dropout2d(0.5, seed=1)):
        X = torch.rand(1, 2, 3, 3, requires_grad=True)
        (first,) = torch.autograd.grad(drop(X).abs().sum(), X, create_graph=True)
        (first**2).sum().backward()
        assert X.grad is not None
        assert not X.grad.any()


def test_nested_tensors() -> None:
    """The mask of their values, one after the other."""
    X = torch.nested.nested_tensor([torch.rand(3, 2), torch.rand(5, 2)], layout=torch.jagged, requires_grad=True)
    Y = Dropout(0.5, seed=1)(X)
    Y.values().sum().backward()
    values = X.values().detach()
    assert np.array_equal(Y.values().detach().numpy(), masks.dropout(values.numpy(), 0.5, 1))
    assert torch.equal(X.grad.values() * values, Y.values())


def test_a_sparse_tensor_takes_no_mask() -> None:
    module = Dropout(0.5, seed=1)
    with pytest.raises(TypeError, match=r"X: expected a tensor of strided or jagged layout; got torch\.sparse_coo"):
        module(torch.eye(3).to_sparse())
    assert module.stream.tolist() == [1, 0]


def test_in_place_errors_leave_all_as_it_was() -> None:
    def inference() -> torch.Tensor:
        with torch.inference_mode():
            return torch.ones(4)

    for make, message in (
        (lambda: torch.ones(3, 4, requires_grad=True), "a leaf Variable"),
        (lambda: torch.ones(3, 4, requires_grad=True)[0], "a view of a leaf Variable"),
        (lambda: (torch.ones(3, 4, requires_grad=True) * 1).unbind(0)[0], "a view that is one of several"),
        (lambda: torch.ones(1, 4).expand(3, 4), "an expanded tensor"),
        (inference, "an inference tensor outside of inference mode"),
    ):
        module, X = Dropout(0.5, inplace=True, seed=1), make()
        with pytest.raises(RuntimeError, match=message):
            module(X)
        assert (X == 1).all()
        assert module.stream.tolist() == [1, 0]


@pytest.mark.parametrize("layout", [lambda X: X, lambda X: X.T, lambda X: X[::2]], ids=["rows", "columns", "strided"])
def test_in_place(layout: Callable[[Any], Any]) -> None:
    from multidrop_torch import Dropout

    module = Dropout(0.5, inplace=True, seed=3)
    for call, run in enumerate((module, compiled(module))):
        leaf = torch.randn(8, 6, requires_grad=True)
        X = layout(leaf * 1.0)
        expected = masks.dropout(X.detach().numpy().copy(), 0.5, md.Key(3, call))
        Y = run(X)
        assert Y.data_ptr() == X.data_ptr()
        assert np.array_equal(X.detach().numpy(), expected)
        Y.sum().backward()
        scale = masks.dropout(np.ones(X.shape, np.float32), 0.5, md.Key(3, call))
        assert np.array_equal(layout(leaf.grad).numpy(), scale)


def test_in_place_on_a_leaf() -> None:
    """An error before anything is written and a mask taken."""
    from multidrop_torch import Dropout

    module, leaf = Dropout(0.5, inplace=True, seed=3), torch.ones(64, requires_grad=True)
    with pytest.raises(RuntimeError, match="a leaf Variable that requires grad is being used in an in-place operation"):
        module(leaf)
    assert torch.equal(leaf, torch.ones(64))
    assert module.stream.tolist() == [3, 0]
    with torch.no_grad():
        assert module(leaf) is leaf


def test_memory_formats() -> None:
    X = torch.randn(2, 3, 5, 4).to(memory_format=torch.channels_last)
    Y = md.dropout_layer(X, 0.5, KEY)
    assert Y.is_contiguous(memory_format=torch.channels_last)
    assert np.array_equal(Y.numpy(), masks.dropout(X.numpy(), 0.5, KEY))
    assert md.dropout_layer(X.bfloat16(), 0.5, KEY).is_contiguous(memory_format=torch.channels_last)


def test_what_is_kept_for_the_backward_pass() -> None:
    """No tensor at all in eager mode: p, key and start; and in a compiled program the position, 16 bytes."""
    saved: list[Any] = []
    X = torch.ones(1000, 1000, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        Y = md.dropout_layer(X, 0.5, KEY)
        assert saved == []
        Z = torch.compile(layer(), fullgraph=True)(X)
    assert sum(t.numel() * t.element_size() for t in saved) == 16
    (Y.sum() + Z.sum()).backward()


def test_relu_dropout_on_any_layout() -> None:
    import torch

    X = torch.randn(6, 5, 4).transpose(0, 2).requires_grad_()
    Y = md.relu_dropout(X, 0.5, 1)
    assert torch.equal(Y, md.dropout_layer(torch.relu(X), 0.5, 1))
    dY = torch.randn(6, 5, 4).transpose(0, 2)
    expected = torch.where(X > 0, md.dropout_layer(dY, 0.5, 1), 0.0)
    assert torch.equal(torch.autograd.grad(Y, X, dY)[0], expected)


@pytest.mark.parametrize("seed", [3, None])
def test_tensors_without_memory(seed: int | None) -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    module = layer(seed)
    with FakeTensorMode(allow_non_fake_inputs=True):
        assert module(torch.ones(3, 4)).shape == (3, 4)
        assert md.dropout_layer(torch.ones(3, 4), 0.5, 1).shape == (3, 4)
