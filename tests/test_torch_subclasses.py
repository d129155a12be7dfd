"""Tensors that are more than memory: the result has the type of the input, or there is a clear error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import multidrop as md

torch = pytest.importorskip("torch") if "torch" in md.available_backends() else None
if torch is not None:
    import multidrop_torch
    from multidrop_torch import Dropout, relu_dropout
    from tensor_kinds import MAKERS, Seeing, values

# torch's compiler warns at its first use, and its nested and masked tensors of being prototypes.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


@pytest.fixture(autouse=True)
def needed(need: Any) -> None:
    need("torch")


def linear(size: int, dtype: str) -> Any:
    return torch.linspace(-1, 1, size).to(getattr(torch, dtype)).reshape(-1, 8 if size >= 8 else 1)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("size", [0, 1, 16, 2**16, 2**20])
@pytest.mark.parametrize("kind", ["plain", "seeing", "wrapper", "buffer", "parameter"])
def test_subclasses(kind: str, size: int, dtype: str) -> None:
    """Forward, backward, in place, with ReLU, transposed, by channels, by other members; and what drops nothing."""
    X, make = linear(size, dtype), MAKERS[kind]
    expected = torch.Tensor if kind == "parameter" else type(make(X.clone()))
    dropped, kept = md.dropout_layer(X, 0.5, 3), md.dropout_layer(torch.ones_like(X), 0.5, 3)

    def layer(**settings: Any) -> Any:
        return Dropout(0.5, seed=3, **settings)

    def is_right(Y: Any, wanted: Any) -> bool:
        return type(Y) is expected and torch.equal(values(Y), wanted)

    x = make(X.clone()).requires_grad_()
    assert is_right(layer()(make(X.clone())), dropped)
    Y = layer()(x)
    Y.sum().backward()
    assert is_right(Y, dropped)
    assert torch.equal(values(x.grad), kept)
    assert is_right(layer()(make(X.clone()).t()), md.dropout_layer(X.t(), 0.5, 3))
    hidden = x * 1
    assert layer(inplace=True)(hidden) is hidden
    assert torch.equal(values(hidden), dropped)
    Z, z = make(X.clone()).requires_grad_(), X.clone().requires_grad_()
    Y, y = relu_dropout(Z, 0.5, 3), relu_dropout(z, 0.5, 3)
    Y.sum().backward()
    y.sum().backward()
    assert is_right(Y, y.detach())
    assert torch.equal(values(Z.grad), z.grad)
    for member in (md.family.GaussianDropout(0.3), md.family.AlphaDropout(0.3)) if size <= 16 else ():
        assert is_right(multidrop_torch.layer(member, seed=3)(make(X.clone())), md.apply(member, X, 3))
    if size >= 16:
        maps = X.reshape(2, -1, 2, 2)
        Y = multidrop_torch.Dropout2d(0.5, seed=3)(make(maps.clone()))
        assert is_right(Y, md.dropout_layer(maps, 0.5, 3, axes=(2, 3)))
    assert layer().eval()(x) is x
    assert is_right(Dropout(1.0, seed=3)(make(X.clone())), torch.zeros_like(X))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", ["wrapper", "buffer", "parameter"])
def test_compiled_subclasses(kind: str, training: bool) -> None:
    """A wrapper's operators run once for each part, and the parts have one mask. (torch compiles no operator for a
    subclass without `__torch_dispatch__`, its own dropout neither.)"""
    X = linear(16, "float32")
    x = MAKERS[kind](X.clone()).requires_grad_(training)
    torch.compiler.reset()
    module = Dropout(0.5, seed=3)
    Y = torch.compile(module, backend="aot_eager", fullgraph=True)(x)
    assert torch.equal(values(Y), md.dropout_layer(X, 0.5, 3))
    assert module.stream.tolist() == [3, 1]
    if training:
        Y.sum().backward()
        assert torch.equal(values(x.grad), md.dropout_layer(torch.ones_like(X), 0.5, 3))


def test_a_subclass_sees_the_operator() -> None:
    Seeing.seen.clear()
    Dropout(0.5, seed=3)(torch.ones(8).as_subclass(Seeing))
    assert torch.ops.multidrop.drop.default in Seeing.seen


def jagged(how: str, grad: bool) -> Any:
    """A jagged tensor; with `lengths` its values have holes."""
    if how == "lengths":
        data = torch.linspace(-1, 1, 40).reshape(10, 4)
        X = torch.nested.nested_tensor_from_jagged(data, torch.tensor([0, 4, 10]), torch.tensor([2, 5]))
    else:
        parts = [torch.linspace(-1, 1, n * 4).reshape(n, 4) for n in (3, 5)]
        X = torch.nested.nested_tensor(parts, layout=torch.jagged)
    return (X.transpose(1, 2) if how == "transposed" else X).detach().requires_grad_(grad)


@pytest.mark.parametrize("seed", [3, None])
@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("how", ["rows", "transposed", "lengths"])
def test_jagged_tensors(how: str, compiled: bool, grad: bool, seed: int | None) -> None:
    """Keep their structure, and have the mask of their values in order."""
    if how == "lengths" and compiled and grad:
        pytest.skip("torch compiles no backward pass for such a tensor, whatever the function")
    torch.compiler.reset()
    module = Dropout(0.5, seed=seed)
    X = jagged(how, grad)
    Y = (torch.compile(module, backend="aot_eager", fullgraph=True) if compiled else module)(X)
    assert Y.shape == X.shape
    kept = Y.values() != 0
    if seed is not None:
        assert torch.equal(Y.values(), md.dropout_layer(X.values(), 0.5, 3))
    assert (Y + X).shape == X.shape  # which needs one ragged dimension
    if grad:
        Y.values().sum().backward()
        assert torch.equal(X.grad.values() != 0, kept)


def test_jagged_tensors_in_place_and_with_relu() -> None:
    X = jagged("rows", True)
    Y = relu_dropout(X, 0.5, 3)
    plain = X.values().detach().clone().requires_grad_()
    wanted = relu_dropout(plain, 0.5, 3)
    Y.values().sum().backward()
    wanted.sum().backward()
    assert torch.equal(Y.values(), wanted)
    assert torch.equal(X.grad.values(), plain.grad)
    X = jagged("rows", False)
    wanted = md.dropout_layer(X.values(), 0.5, 3)
    assert Dropout(0.5, inplace=True, seed=3)(X) is X
    assert torch.equal(X.values(), wanted)


@pytest.mark.parametrize("layout", ["jagged", "strided"])
def test_what_nested_tensors_do_not_take(layout: str) -> None:
    """Channels and other members: an error that takes no mask."""
    X = torch.nested.nested_tensor([torch.ones(3, 4), torch.ones(5, 4)], layout=getattr(torch, layout))
    for module in (
        multidrop_torch.layer(md.family.GaussianDropout(0.3), seed=3),
        multidrop_torch.layer(md.family.SpatialDropout(0.3), seed=3),
    ):
        with pytest.raises(TypeError, match=r"X: expected a tensor that is not nested.*to_padded_tensor"):
            module(X)
        assert module.stream.tolist() == [3, 0]


def test_masked_tensors() -> None:
    """Which torch's own dropout does not take."""
    from torch.masked import masked_tensor

    data, mask = torch.ones(2, 8), torch.arange(16).reshape(2, 8) % 3 > 0
    X = masked_tensor(data, mask, requires_grad=True)
    Y = Dropout(0.5, seed=3)(X)
    Y.sum().backward()
    expected = md.dropout_layer(data, 0.5, 3)
    assert torch.equal(Y.get_mask(), mask)
    assert torch.equal(Y.get_data().detach(), expected)
    assert torch.equal(X.grad.get_data()[mask], expected[mask])


@pytest.mark.parametrize("within", [True, False])
def test_fake_tensors(within: bool) -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with mode:
        X = torch.ones(4, 4, requires_grad=True)
    if not within:
        Y = Dropout(0.5, seed=3)(X) + relu_dropout(X, 0.5, 3) + Dropout(0.5, inplace=True, seed=3)(X * 1)
        Y.sum().backward()
        assert type(X.grad) is type(X)
    else:
        with mode:
            Y = Dropout(0.5, seed=3)(X)
    assert type(Y) is type(X)


@pytest.mark.parametrize(
    "member",
    [md.family.Dropout(0.5), md.family.SpatialDropout(0.5), md.family.GaussianNoise(0.5), md.family.ConcreteDropout()],
)
def test_tensors_without_memory(member: Any) -> None:
    """Nothing is drawn for them: these numbers would fill a terabyte."""
    X = torch.ones(2**20, 2**20, 4, device="meta", requires_grad=True)
    module = multidrop_torch.layer(member, seed=3).to("meta")
    Y = module(X)
    Y.sum().backward()
    assert (Y.device, Y.shape, X.grad.shape) == (X.device, X.shape, X.shape)


def test_expanded_and_negated_tensors() -> None:
    """Of elements that share memory each has its own decision; a view that negates lazily is read as what it says."""
    row = torch.ones(8, requires_grad=True)
    Dropout(0.5, seed=3)(row.expand(4, 8)).sum().backward()
    assert np.array_equal(row.grad, 2.0 * md.keep_mask((4, 8), 0.5, 3).sum(0))
    negated = torch.complex(torch.linspace(-1, 1, 16), torch.linspace(1, 2, 16)).conj().imag
    assert negated.is_neg()
    resolved = negated.resolve_neg()
    for function in (md.dropout_layer, md.relu_dropout):
        assert torch.equal(function(negated, 0.5, 3), function(resolved, 0.5, 3))
    expected = md.dropout_layer(resolved, 0.5, 3)
    assert Dropout(0.5, inplace=True, seed=3)(negated) is negated
    assert torch.equal(negated, expected)


@pytest.mark.parametrize("inplace", [True, False])
def test_functionalize(inplace: bool) -> None:
    def function(X: Any) -> Any:
        Y = X * 1
        return Dropout(0.5, inplace=inplace, seed=3)(Y)

    X = torch.linspace(-1, 1, 16)
    assert torch.equal(torch.func.functionalize(function)(X), md.dropout_layer(X, 0.5, 3))
    member = multidrop_torch.layer(md.family.GaussianDropout(0.3), seed=3)
    assert torch.equal(torch.func.functionalize(member)(X), md.apply(member.member, X, 3))


def test_a_layer_that_is_built_within_a_transform() -> None:
    X = torch.ones(16)
    gradient = torch.func.grad(lambda X: Dropout(0.5, seed=3)(X).sum())(X)
    assert torch.equal(gradient, md.dropout_layer(X, 0.5, 3))


@pytest.mark.parametrize(
    "X",
    [
        lambda: torch.quantize_per_tensor(torch.ones(4), 0.1, 0, torch.qint8),
        lambda: torch.eye(3).to_sparse(),
        lambda: torch.eye(3).to_mkldnn(),
        lambda: torch.ones(4, dtype=torch.complex64),
    ],
    ids=["quantized", "sparse", "mkldnn", "complex"],
)
def test_what_is_refused(X: Callable[[], Any]) -> None:
    module = Dropout(0.5, seed=3)
    with pytest.raises(TypeError, match=r"X: expected a tensor of .*convert it with X"):
        module(X())
    assert module.stream.tolist() == [3, 0]
