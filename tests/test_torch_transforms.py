"""Gradients of gradients, `torch.func` and `vmap` follow the mask of the forward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from torch_programs import KEY, layer

import multidrop as md
from multidrop.spec import masks

torch = pytest.importorskip("torch") if "torch" in md.available_backends() else None
if torch is not None:
    from multidrop_torch import Dropout

# torch's own, at its first compilation: it announces what it is about to change.
pytestmark = [
    pytest.mark.usefixtures("torch_backend"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning:torch"),
]


def function(X: Any) -> Any:
    return md.dropout_layer(X, 0.3, KEY)


def test_gradients_of_gradients() -> None:
    X = torch.randn(6, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(function, X)
    assert torch.autograd.gradgradcheck(function, X)
    assert torch.autograd.gradcheck(function, X, check_forward_ad=True, check_backward_ad=False)


def test_functional_transforms() -> None:
    X = torch.randn(6, 5, dtype=torch.float64)
    scale = torch.from_numpy(masks.dropout(np.ones((6, 5)), 0.3, KEY))
    assert torch.equal(torch.func.grad(lambda X: (function(X) ** 2).sum())(X), 2 * X * scale * scale)
    assert torch.equal(torch.func.jvp(function, (X,), (torch.ones_like(X),))[1], scale)


def test_vmap_of_a_key_gives_each_example_its_mask() -> None:
    X = torch.randn(4, 6, 5)
    expected = torch.stack([function(x) for x in X])
    assert torch.equal(torch.func.vmap(function)(X), expected)
    assert torch.equal(torch.func.vmap(function, in_dims=1)(X.movedim(0, 1)), expected)


def test_vmap_of_a_stream_goes_by_its_randomness() -> None:
    X = torch.ones(4, 64)
    with pytest.raises(RuntimeError, match="randomness='different' or 'same'"):
        torch.func.vmap(layer())(X)
    different = torch.func.vmap(layer(), randomness="different")(X)
    assert np.array_equal(different.numpy(), masks.dropout(X.numpy(), 0.5, md.Key(3)))
    same = torch.func.vmap(layer(), randomness="same")(X)
    assert np.array_equal(same.numpy(), np.stack([masks.dropout(x, 0.5, md.Key(3)) for x in X.numpy()]))
    for randomness in ("same", "different"):
        assert torch.func.vmap(layer(), randomness=randomness)(torch.ones(0, 3)).shape == (0, 3)
    nested = torch.func.vmap(torch.func.vmap(layer(), randomness="different"), in_dims=1, randomness="different")
    X = torch.ones(3, 4, 5, 6).to(memory_format=torch.channels_last)
    assert np.array_equal(nested(X).numpy(), masks.dropout(np.ones((4, 3, 5, 6), np.float32), 0.5, md.Key(3)))


def test_a_vmap_without_randomness_takes_no_mask() -> None:
    module = Dropout(0.5, seed=1)
    with pytest.raises(RuntimeError, match="vmap: expected randomness='different' or 'same'"):
        torch.vmap(module)(torch.ones(3, 4))
    assert module.stream.tolist() == [1, 0]


@pytest.mark.parametrize("call", [lambda module, X: module(X), lambda _, X: md.dropout_layer(X, 0.5)])
def test_vmap_of_masks_that_the_generator_names(call: Callable[[Any, Any], Any]) -> None:
    X = torch.ones(4, 64)
    module = layer(None)
    different = torch.func.vmap(lambda x: call(module, x), randomness="different")(X)
    assert len({tuple(row) for row in different.tolist()}) == 4
    with pytest.raises(RuntimeError, match="randomness='different' or 'same'"):
        torch.func.vmap(lambda x: call(module, x))(X)


@pytest.mark.parametrize("seed", [3, None])
def test_layers_in_functional_transforms(seed: int | None) -> None:
    """A stream is no input of the function that is transformed; each call takes its next mask all the same."""
    module, X, w = layer(seed), torch.ones(3, 16), torch.ones(16)
    gradient = torch.func.grad(lambda X: (2.0 * module(X)).sum())(X)
    assert np.array_equal(gradient.numpy() / 4.0, md.last_mask(module).keep())
    loss = lambda w, X: (module(w * X)).sum()  # noqa: E731  # as one writes it in such a call
    for randomness in ("same", "different"):
        gradients = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0), randomness=randomness)(w, X)
        assert set(gradients.unique().tolist()) == {0.0, 2.0}
        assert torch.equal(gradients[0], gradients[1]) == (randomness == "same")
    if seed is not None:
        assert module.stream.tolist() == [3, 3]


@pytest.mark.parametrize("seed", [3, None])
def test_an_ensemble_of_stacked_modules(seed: int | None) -> None:
    """Goes by the position of the module that is called: a stream is neither parameter nor buffer."""
    modules = [torch.nn.Sequential(torch.nn.Linear(8, 8), layer(seed)) for _ in range(2)]
    state = torch.func.stack_module_state(modules)
    run = lambda *state: torch.func.functional_call(modules[0], state, (torch.ones(5, 8),))  # noqa: E731
    assert torch.func.vmap(run, randomness="different")(*state).shape == (2, 5, 8)
    if seed is not None:
        assert [module[1].stream.tolist() for module in modules] == [[3, 1], [3, 0]]


def test_relu_dropout_is_differentiable_twice() -> None:
    import torch

    X = torch.linspace(-2.0, 2.0, 40, dtype=torch.float64).requires_grad_()
    dropped = lambda X: md.relu_dropout(X, 0.3, 1) ** 2  # noqa: E731
    assert torch.autograd.gradcheck(dropped, X)
    assert torch.autograd.gradgradcheck(dropped, X)
    compiled = torch.compile(dropped, fullgraph=True)
    assert torch.equal(compiled(X), dropped(X))
    (expected,) = torch.autograd.grad(dropped(X).sum(), X)
    assert torch.equal(torch.autograd.grad(compiled(X).sum(), X)[0], expected)
    assert torch.equal(torch.func.grad(lambda X: dropped(X).sum())(X), expected)


@pytest.mark.parametrize("seed", [3, None])
def test_gradients_of_a_mask_go_by_it(seed: int | None) -> None:
    """Also where the gradients of the examples are batched and what was dropped is not, or `vmap` has no other part in
    it than to take several gradients at once."""
    module, w, X = layer(seed), torch.ones(32, dtype=torch.float64), torch.ones(3, 32, dtype=torch.float64)

    def loss(w: Any, X: Any) -> Any:
        dropped = module(w)
        return (dropped * X).sum(), dropped

    for randomness in ("same", "different"):
        run = torch.func.vmap(torch.func.grad(loss, has_aux=True), in_dims=(None, 0), randomness=randomness)
        gradients, dropped = run(w, X)
        assert torch.equal(gradients, dropped)
        Y, pullback = torch.func.vjp(module, w)
        (pulled,) = torch.func.vmap(pullback, randomness=randomness)(X)
        assert torch.equal(pulled, Y.expand(3, 32))
    jacobian = torch.func.jacrev(lambda w: module(w) ** 2)(w)
    assert torch.equal(jacobian, jacobian.diag().diag())
    assert set(jacobian.diag().tolist()) == {0.0, 8.0}


@pytest.mark.parametrize("call", [lambda X: function(X), lambda X: md.relu_dropout(X, 0.5, KEY)])
def test_several_gradients_at_once(call: Callable[[Any], Any]) -> None:
    X = torch.randn(16, dtype=torch.float64, requires_grad=True)
    Y, many = call(X), torch.randn(4, 16, dtype=torch.float64)
    expected = torch.stack([torch.autograd.grad(Y, X, one, retain_graph=True)[0] for one in many])
    for run in (
        lambda: torch.autograd.grad(Y, X, many, retain_graph=True, is_grads_batched=True)[0],
        lambda: torch.vmap(lambda one: torch.autograd.grad(Y, X, one, retain_graph=True)[0])(many),
    ):
        assert torch.equal(run(), expected)
