"""Programs of torch (compiled, exported and traced) give the masks of eager calls, and count their calls."""

from __future__ import annotations

import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch_programs import KEY, compiled, layer

import multidrop as md
from multidrop.spec import masks

torch = pytest.importorskip("torch") if "torch" in md.available_backends() else None
if torch is not None:
    from multidrop_torch import Dropout, Dropout2d, Dropout3d, caches

# torch's own, at its first compilation: it announces what it is about to change.
pytestmark = [
    pytest.mark.usefixtures("torch_backend"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning:torch"),
]


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


@pytest.mark.parametrize("gradient", [False, True])
def test_a_program_of_an_expanded_tensor(gradient: bool) -> None:
    """As of a position's embedding: its result lies as the compiler expects it to."""
    X = torch.rand(1, 4, 6, requires_grad=gradient)
    shapes = {"rows": X.expand(3, -1, -1), "strides": X.expand(3, -1, -1).as_strided((3, 4, 2, 3), (0, 6, 3, 1))}
    for Z in shapes.values():
        torch._dynamo.reset()
        program = torch.compile(Dropout(0.5, seed=1), fullgraph=True)
        assert np.array_equal(program(Z).detach().numpy(), masks.dropout(Z.detach().numpy(), 0.5, 1))


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


class TestProgramsOnDisk:
    """torch finds them by a tag too, which names this version of what they are made of."""

    @pytest.fixture(autouse=True)
    def tag_of_the_user(self) -> Iterator[None]:
        if not hasattr(torch.compiler, "config"):
            pytest.skip(f"torch {torch.__version__} has no tag")
        with torch.compiler.config.patch(cache_key_tag="mine"):
            yield

    @pytest.mark.parametrize("training", [False, True])
    def test_a_tag(self, training: bool) -> None:
        """It is there once a program has been traced, beside that of the user."""
        for _ in range(2):
            torch.compiler.reset()
            run = torch.compile(layer(3), backend="aot_eager", fullgraph=True)
            assert run(torch.ones(8, requires_grad=training)).shape == (8,)
            assert torch.compiler.config.cache_key_tag == f"mine multidrop-{md.__version__}-{digest():08x}"

    def test_other_sources_have_another_tag(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        tags = set()
        for text in ("", "# changed"):
            for name in caches.SOURCES:
                (tmp_path / name).parent.mkdir(exist_ok=True)
                (tmp_path / name).write_text(text)
            monkeypatch.setattr(caches, "__file__", str(tmp_path / "caches.py"))
            caches._tag.cache_clear()
            tags.add(caches._tag())
        monkeypatch.undo()
        caches._tag.cache_clear()
        assert len(tags) == 2


def digest() -> int:
    folder = Path(caches.__file__).parent
    return zlib.crc32(b"".join((folder / name).read_bytes() for name in caches.SOURCES))
