"""What is torch's alone: compiled, exported, transformed and checkpointed programs."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import multidrop as md
from multidrop.spec import masks

torch = pytest.importorskip("torch") if "torch" in md.available_backends() else None
if torch is not None:
    from multidrop_torch import Dropout, Dropout2d, Dropout3d
    from torch.utils.checkpoint import checkpoint

# torch's own, at its first compilation: it announces what it is about to change.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning:torch")

KEY = md.Key(2**63 + 5, 2**64 - 1)


@pytest.fixture(autouse=True)
def torch_backend(need: Any) -> Any:
    need("torch")
    torch.compiler.reset()
    with md.use_backend("torch"):
        yield


def layer(seed: int | None = 3, p: float = 0.5) -> Any:
    return md.Dropout(p, seed=seed)


def compiled(module: Any) -> Any:
    return torch.compile(module, fullgraph=True)


def test_compiled_and_eager_agree() -> None:
    """Outputs and gradients over several calls, with a consumer and a producer for the compiler to fuse with."""

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = layer(1, 0.2), layer(2)

        def forward(self, X: Any) -> Any:
            return self.second(torch.tanh(self.first(X * 2.0)) + 1.0).square()

    eager, traced = Model(), Model()
    run = compiled(traced)
    for call in range(3):
        X = torch.randn(33, 17, generator=torch.Generator().manual_seed(call), dtype=torch.float64)
        a, b = X.clone().requires_grad_(), X.clone().requires_grad_()
        y, z = eager(a), run(b)
        y.sum().backward()
        z.sum().backward()
        torch.testing.assert_close(z, y, rtol=1e-12, atol=1e-13)
        torch.testing.assert_close(b.grad, a.grad, rtol=1e-12, atol=1e-13)
    assert traced.state_dict()["first.stream"].tolist() == eager.state_dict()["first.stream"].tolist() == [1, 3]


def test_the_gradient_of_a_compiled_layer_is_of_the_mask_of_its_forward() -> None:
    """A counter that the compiler may read again in the backward pass would give the next mask's gradient."""
    module = layer()
    run = compiled(module)
    X = torch.ones(64, 64, requires_grad=True)
    for call in range(3):
        X.grad = None
        Y = run(X)
        Y.sum().backward()
        expected = masks.dropout(np.ones((64, 64), np.float32), 0.5, md.Key(3, call))
        assert np.array_equal(Y.detach().numpy(), expected)
        assert np.array_equal(X.grad.numpy(), expected)


def test_a_compiled_layer_goes_on_after_its_state_is_loaded() -> None:
    module = layer()
    run = compiled(module)
    X = torch.ones(64, 64)
    run(X)
    state = {name: value.clone() for name, value in module.state_dict().items()}
    first, second = run(X), run(X)
    assert not torch.equal(first, second)
    module.load_state_dict(state)
    assert torch.equal(run(X), first)


def test_a_compiled_unseeded_layer_follows_the_generator() -> None:
    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = layer(None), layer(None)

        def forward(self, X: Any) -> Any:
            return self.first(X), self.second(X)

    model = Model()
    run = compiled(model)
    X = torch.ones(64, 64)
    torch.manual_seed(1)
    a, b = run(X)
    c, d = run(X)
    assert len({Y.numpy().tobytes() for Y in (a, b, c, d)}) == 4
    torch.manual_seed(1)
    assert all(torch.equal(x, y) for x, y in zip(model(X), (a, b), strict=True))


@pytest.mark.parametrize("seed", [None, 5])
def test_a_compiled_function_without_a_key(seed: int | None) -> None:
    run = torch.compile(lambda X: md.dropout_layer(X, 0.5) * 2.0, fullgraph=True)
    X = torch.ones(64, 64)
    md.manual_seed(seed)
    first, second = run(X), run(X)
    assert not torch.equal(first, second)
    if seed is not None:
        md.manual_seed(seed)
        assert torch.equal(run(X), first)
        assert torch.equal(md.dropout_layer(X, 0.5) * 2.0, second)  # eager calls go on where compiled ones stopped


def test_a_compiled_function_with_a_key() -> None:
    run = torch.compile(lambda X: md.dropout_layer(X, 0.2, KEY), fullgraph=True)
    X = torch.randn(33, 17)
    assert np.array_equal(run(X).numpy(), masks.dropout(X.numpy(), 0.2, KEY))


@pytest.mark.parametrize("tensor", ["torch.ones(9)", "torch.nn.Parameter(torch.ones(9))"])
def test_the_first_call_of_a_process_is_in_a_whole_graph(tensor: str) -> None:
    """Where the backend of a type of tensors is still to be found, and to be imported."""
    code = f"""
import torch
import multidrop as md
X = {tensor}
Y = torch.compile(lambda X: md.dropout_layer(X, 0.5, 7), fullgraph=True, backend="aot_eager")(X)
assert torch.equal(Y, md.dropout_layer(X, 0.5, 7))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_compiled_for_shapes_that_change() -> None:
    run = torch.compile(layer(), fullgraph=True, dynamic=True)
    for call, size in enumerate((8, 13, 100)):
        Y = run(torch.ones(size, 5))
        assert np.array_equal(Y.numpy(), masks.dropout(np.ones((size, 5), np.float32), 0.5, md.Key(3, call)))


def test_compiled_evaluation_takes_no_mask() -> None:
    module = layer().eval()
    X = torch.ones(8)
    assert torch.equal(compiled(module)(X), X)
    assert module.stream.tolist() == [3, 0]


def test_the_whole_net_compiled() -> None:
    eager, traced = md.Net(seed=1, dtype="float64"), md.Net(seed=1, dtype="float64")
    run = compiled(traced)
    X = torch.randn(16, 784, dtype=torch.float64)
    for _ in range(2):
        eager(X).sum().backward()
        run(X).sum().backward()
    for a, b in zip(eager.parameters(), traced.parameters(), strict=True):
        torch.testing.assert_close(b.grad, a.grad, rtol=1e-12, atol=1e-14)


def test_compiled_without_gradients_and_then_trained() -> None:
    module, expected = layer(), layer()
    run, X = compiled(module), torch.rand(64) + 1.0
    with torch.no_grad():
        assert torch.equal(run(X), expected(X))
    leaf = X.clone().requires_grad_()
    Y = run(leaf)
    assert torch.equal(Y, expected(X))
    assert torch.equal(torch.autograd.grad(Y.sum(), leaf)[0] * X, Y)


def test_exported_without_gradients_and_then_trained() -> None:
    X = torch.rand(64) + 1.0
    with torch.no_grad():
        run = torch.export.export(layer(), (X,)).module()
    leaf = X.clone().requires_grad_()
    Y = run(leaf)
    assert torch.equal(Y, layer()(X))
    assert torch.equal(torch.autograd.grad(Y.sum(), leaf)[0] * X, Y)


def test_a_functional_gradient_in_a_program() -> None:
    """torch.func within `torch.compile` runs beside the program, and is never a gradient of 0; in one whole graph it
    is an error."""
    module, X = layer(), torch.rand(64)

    def gradient(X: torch.Tensor) -> torch.Tensor:
        return torch.func.grad(lambda X: module(X).sum())(X)

    expected = masks.dropout(np.ones(64, np.float32), 0.5, md.Key(3))
    assert np.array_equal(torch.compile(gradient)(X).numpy(), expected)
    torch._dynamo.reset()
    with pytest.raises(RuntimeError, match="custom_function_call"):
        torch.compile(gradient, fullgraph=True)(X)


@pytest.mark.parametrize("compiler", ["aot_eager", "inductor"])
@pytest.mark.parametrize("seed", [3, None])
@pytest.mark.parametrize("constant", [False, True], ids=["", "of what needs no gradient"])
def test_a_program_that_recomputes_takes_a_mask_once(compiler: str, seed: int | None, constant: bool) -> None:
    """`torch.utils.checkpoint` within `torch.compile`: the gradient has the output's mask, and one call is taken."""
    module, ones = Dropout(0.5, seed=seed), torch.ones(64)

    def part(X: torch.Tensor) -> torch.Tensor:
        return (module(ones) * X if constant else module(X)).square().sin()

    torch._dynamo.reset()
    program = torch.compile(
        lambda X: checkpoint(part, X, use_reentrant=False), backend=compiler, fullgraph=True, dynamic=False
    )
    for call in range(2):
        X = torch.ones(64, requires_grad=True)
        Y = program(X)
        Y.sum().backward()
        assert X.grad is not None
        assert torch.equal(Y != 0, X.grad != 0)
        if seed is not None:
            assert np.array_equal((Y != 0).numpy(), md.keep_mask(64, 0.5, md.Key(seed, call)))
            assert module.stream.tolist() == [seed, call + 1]


def test_checkpointed_parts_that_begin_at_one_state_of_the_generator() -> None:
    module, inputs, outputs = Dropout(0.5, seed=1), [], []
    for reentrant in (False, False, True, True):
        torch.manual_seed(0)
        inputs.append(torch.ones(64, requires_grad=True))
        outputs.append(checkpoint(lambda X: module(X).square(), inputs[-1], use_reentrant=reentrant))
    torch.stack(outputs).sum().backward()
    for call, (X, Y) in enumerate(zip(inputs, outputs, strict=True)):
        assert torch.equal(Y != 0, X.grad != 0)
        assert np.array_equal((Y != 0).numpy(), md.keep_mask(64, 0.5, md.Key(1, call)))


def test_a_module_that_checkpoints_itself() -> None:
    from torch.distributed._composable import checkpoint as checkpoint_itself

    net = torch.nn.Sequential(torch.nn.Linear(8, 8), Dropout(0.5, seed=1), torch.nn.Tanh())
    plain, X = copy.deepcopy(net), torch.rand(4, 8, requires_grad=True)
    checkpoint_itself(net)
    gradients = [torch.autograd.grad(module(X).square().sum(), X)[0] for module in (net, plain)]
    assert torch.equal(*gradients)
    assert net[1].stream.tolist() == [1, 1]


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


@pytest.mark.parametrize("seed", [3, None])
@pytest.mark.parametrize("gradient", [False, True])
def test_a_program_of_nested_tensors(seed: int | None, gradient: bool) -> None:
    values = torch.rand(8, 2)
    X = torch.nested.nested_tensor([values[:3], values[3:]], layout=torch.jagged, requires_grad=gradient)
    Y = torch.compile(Dropout(0.5, seed=seed), fullgraph=True, backend="aot_eager")(X)
    assert Y.shape == X.shape
    if seed is not None:
        assert np.array_equal(Y.values().detach().numpy(), masks.dropout(values.numpy(), 0.5, 3))
    if gradient:
        Y.values().sum().backward()
        assert torch.equal(X.grad.values() * values, Y.values())


def test_a_sparse_tensor_takes_no_mask() -> None:
    module = Dropout(0.5, seed=1)
    with pytest.raises(TypeError, match=r"X: expected a tensor of strided or jagged layout; got torch\.sparse_coo"):
        module(torch.eye(3).to_sparse())
    assert module.stream.tolist() == [1, 0]


@pytest.mark.parametrize("gradient", [False, True])
def test_a_program_of_an_expanded_tensor(gradient: bool) -> None:
    """As of a position's embedding: its result lies as the compiler expects it to."""
    X = torch.rand(1, 4, 6, requires_grad=gradient)
    shapes = {"rows": X.expand(3, -1, -1), "strides": X.expand(3, -1, -1).as_strided((3, 4, 2, 3), (0, 6, 3, 1))}
    for Z in shapes.values():
        torch._dynamo.reset()
        program = torch.compile(Dropout(0.5, seed=1), fullgraph=True)
        assert np.array_equal(program(Z).detach().numpy(), masks.dropout(Z.detach().numpy(), 0.5, 1))


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


def test_a_vmap_without_randomness_takes_no_mask() -> None:
    module = Dropout(0.5, seed=1)
    with pytest.raises(RuntimeError, match="vmap: expected randomness='different' or 'same'"):
        torch.vmap(module)(torch.ones(3, 4))
    assert module.stream.tolist() == [1, 0]


def test_ambiguous_shapes_in_a_whole_graph() -> None:
    for module, shape in ((Dropout2d(0.5), (2, 3, 4)), (Dropout3d(0.5), (2, 3))):
        assert torch.compile(module, fullgraph=True)(torch.ones(shape)).shape == shape


def test_the_last_indices_in_a_program() -> None:
    start, X = 2**64 - 8, torch.ones(8)
    expected = md.dropout_layer(X, 0.5, 3, start=start)
    assert torch.equal(torch.compile(lambda X: md.dropout_layer(X, 0.5, 3, start=start), fullgraph=True)(X), expected)


def test_exported() -> None:
    module = layer()
    program = torch.export.export(module, (torch.ones(8, 8),))
    run = program.module()
    drawn = [run(torch.ones(8, 8)).numpy() for _ in range(2)]
    assert all(
        np.array_equal(Y, masks.dropout(np.ones((8, 8), np.float32), 0.5, md.Key(3, call)))
        for call, Y in enumerate(drawn)
    )


def test_operators_are_what_torch_expects() -> None:
    from multidrop_torch.position import position_of

    X, operators = torch.randn(6, 5, dtype=torch.float64, requires_grad=True), torch.ops.multidrop
    torch.library.opcheck(operators.dropout.default, (X, position_of(KEY), 0.3, 5, [0]))
    torch.library.opcheck(operators.drop.default, (X.detach(), position_of(KEY), 0.3, 5, [0]))
    torch.library.opcheck(operators.position.default, (position_of(KEY), True))
    torch.library.opcheck(operators.values.default, (X.detach(), position_of(KEY), True, 0.3, 5, [0]))


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


@pytest.mark.parametrize("seed", [3, None])
def test_a_module_without_memory(seed: int | None) -> None:
    """On the meta device, and moved there and back, a layer keeps its position, or loads one."""
    with torch.device("meta"):
        built = torch.nn.Sequential(torch.nn.Linear(4, 8), layer(seed))
    moved = layer(seed)
    moved(torch.ones(8))
    assert moved.to("meta").to_empty(device="cpu").stream is None if seed is None else moved.stream.tolist() == [3, 1]
    built.load_state_dict({"0.weight": torch.ones(8, 4), "0.bias": torch.ones(8)}, assign=True)
    assert built(torch.ones(2, 4)).shape == (2, 8)
    if seed is not None:
        assert built.to("cpu")[1].stream.tolist() == [3, 1]
        built[1].to("meta").load_state_dict({"stream": torch.tensor([7, 9])}, assign=True)
        assert built[1].half().stream.tolist() == [7, 9]


def test_a_state_is_copied() -> None:
    """The entry of a state dict moves no layer, and a layer that loads it moves no other."""
    first, second = layer(1), layer(2)
    state = first.state_dict()
    second.load_state_dict(state, assign=True)
    first(torch.ones(8))
    assert second.stream.tolist() == state["stream"].tolist() == [1, 0]
    state["stream"].zero_()
    assert first.stream.tolist() == [1, 1]
    second.load_state_dict({"stream": torch.ones(2, dtype=torch.int64, device="meta")}, assign=True)
    assert second.stream.tolist() == [1, 0]


def test_a_position_keeps_its_type() -> None:
    """Where weights get another one; a state of another type or shape is an error."""
    module = layer().type(torch.float32)
    assert torch.equal(module.stream, torch.tensor([3, 0]))
    for bad in (torch.ones(2, dtype=torch.int32), torch.ones(3, dtype=torch.int64)):
        for assign in (False, True):
            with pytest.raises(RuntimeError, match=r"stream: expected a position, torch\.int64 of shape \(2,\); got"):
                module.load_state_dict({"stream": bad}, assign=assign)
    assert torch.equal(module.stream, torch.tensor([3, 0]))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_a_copy_where_new_tensors_have_no_memory(copied: Callable[[Any], Any]) -> None:
    module = layer()
    module(torch.ones(8))
    with torch.device("meta"):
        assert copied(module).stream.tolist() == [3, 1]


@pytest.mark.parametrize("seed", [3, None])
def test_a_call_where_new_tensors_have_no_memory(seed: int | None) -> None:
    """What is drawn and counted is on the host, whatever torch's default device."""
    module, X = layer(seed), torch.ones(4, 16, requires_grad=True)
    many = torch.ones(3, 4, 16)
    with torch.device("meta"):
        Y = module(X)
        assert torch.equal(md.dropout_layer(X, 0.5, md.last_mask(module).key), Y)
        torch.autograd.grad(Y, X, many, is_grads_batched=True)
        assert torch.func.vmap(module, randomness="different")(X).is_cpu


def test_imported_where_new_tensors_have_no_memory() -> None:
    code = """
import torch
import multidrop as md
with torch.device("meta"):
    import multidrop_torch
md.manual_seed(3)
first, second = [md.dropout_layer(torch.ones(64), 0.5) for _ in range(2)]
assert not torch.equal(first, second)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_layer_that_was_built_in_inference_mode() -> None:
    with torch.inference_mode():
        module = layer()
    module.load_state_dict({"stream": torch.tensor([7, 9])})
    assert module.stream.tolist() == [7, 9]


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


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("seed", [3, None])
def test_activation_checkpointing(reentrant: bool, seed: int | None) -> None:
    """A layer draws the same masks when it is recomputed, in parts with several calls, nested ones too, and a keyed one
    is afterwards where it would be without."""
    from torch.utils.checkpoint import checkpoint

    def run(part: Callable[..., Any]) -> tuple[Any, Any]:
        torch.manual_seed(0)
        module = layer(seed)
        X = torch.ones(64, 64, requires_grad=True)
        Y = part(lambda X: module(module(X).tanh()) + part(module, X).tanh(), X)
        Y = part(lambda Y: module(Y).sin(), Y)
        Y.square().sum().backward()
        return X.grad, module.stream

    def checkpointed(function: Any, X: Any) -> Any:
        return checkpoint(function, X, use_reentrant=reentrant)

    plain, position = run(lambda function, X: function(X))
    recomputed, moved = run(checkpointed)
    assert torch.equal(recomputed, plain)
    assert moved is position is None if seed is None else torch.equal(moved, position)


def test_a_keyed_layer_leaves_torchs_generator_alone() -> None:
    torch.manual_seed(0)
    state = torch.get_rng_state()
    layer()(torch.ones(64, 64, requires_grad=True)).sum().backward()
    with torch.no_grad():
        layer()(torch.ones(64, 64))
    assert torch.equal(torch.get_rng_state(), state)


def test_fork_rng() -> None:
    module, X = layer(None), torch.ones(64, 64)
    torch.manual_seed(0)
    with torch.random.fork_rng():
        first = module(X)
    assert torch.equal(module(X), first)


def test_state_of_an_ordinary_dropout_loads() -> None:
    ours = torch.nn.Sequential(torch.nn.Linear(2, 2), layer())
    theirs = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Dropout(0.5))
    ours.load_state_dict(theirs.state_dict())
    assert ours.state_dict()["1.stream"].tolist() == [3, 0]
    torch.nn.Sequential(torch.nn.Linear(2, 2), layer(None)).load_state_dict(theirs.state_dict())


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


def test_relu_dropout_on_any_layout() -> None:
    import torch

    X = torch.randn(6, 5, 4).transpose(0, 2).requires_grad_()
    Y = md.relu_dropout(X, 0.5, 1)
    assert torch.equal(Y, md.dropout_layer(torch.relu(X), 0.5, 1))
    dY = torch.randn(6, 5, 4).transpose(0, 2)
    expected = torch.where(X > 0, md.dropout_layer(dY, 0.5, 1), 0.0)
    assert torch.equal(torch.autograd.grad(Y, X, dY)[0], expected)


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


@pytest.mark.parametrize("call", [lambda module, X: module(X), lambda _, X: md.dropout_layer(X, 0.5)])
def test_vmap_of_masks_that_the_generator_names(call: Callable[[Any, Any], Any]) -> None:
    X = torch.ones(4, 64)
    module = layer(None)
    different = torch.func.vmap(lambda x: call(module, x), randomness="different")(X)
    assert len({tuple(row) for row in different.tolist()}) == 4
    with pytest.raises(RuntimeError, match="randomness='different' or 'same'"):
        torch.func.vmap(lambda x: call(module, x))(X)


@pytest.mark.parametrize("seed", [3, None])
def test_an_ensemble_of_stacked_modules(seed: int | None) -> None:
    """Goes by the position of the module that is called: a stream is neither parameter nor buffer."""
    modules = [torch.nn.Sequential(torch.nn.Linear(8, 8), layer(seed)) for _ in range(2)]
    state = torch.func.stack_module_state(modules)
    run = lambda *state: torch.func.functional_call(modules[0], state, (torch.ones(5, 8),))  # noqa: E731
    assert torch.func.vmap(run, randomness="different")(*state).shape == (2, 5, 8)
    if seed is not None:
        assert [module[1].stream.tolist() for module in modules] == [[3, 1], [3, 0]]


def test_traced_by_torch_jit() -> None:
    """Two runs of a trace take two masks, and move the position that the module has."""
    module, X = layer(), torch.ones(4, 32)
    program = torch.jit.trace(module, X, check_trace=False)
    start = module.stream[1].item()
    for call in (start, start + 1):
        assert np.array_equal(program(X).numpy(), masks.dropout(X.numpy(), 0.5, md.Key(3, call)))


@pytest.mark.filterwarnings("ignore::FutureWarning")  # torch's own
@pytest.mark.parametrize("seed", [3, None])
def test_what_cannot_hold_a_layer_names_the_cure(seed: int | None) -> None:
    net = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Dropout(0.5))
    report = md.convert(net, seed=seed)
    with pytest.raises(TypeError, match=r"call multidrop\.restore\(model\) before torch\.jit\.script"):
        torch.jit.script(net)
    with pytest.raises(TypeError, match=r"got a torch\.fx\.Proxy: .* call multidrop\.restore\(model\)"):
        torch.fx.symbolic_trace(net)
    md.restore(net, report)
    torch.jit.script(net)
    torch.fx.symbolic_trace(net)


@pytest.mark.parametrize("seed", [3, None])
def test_tensors_without_memory(seed: int | None) -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    module = layer(seed)
    with FakeTensorMode(allow_non_fake_inputs=True):
        assert module(torch.ones(3, 4)).shape == (3, 4)
        assert md.dropout_layer(torch.ones(3, 4), 0.5, 1).shape == (3, 4)


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
