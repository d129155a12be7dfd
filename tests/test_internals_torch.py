"""Where torch moves a private name, an error says so, or a slower way is taken: never a wrong mask."""

from __future__ import annotations

import ast
import copy
import importlib
import re
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

import multidrop as md

torch = pytest.importorskip("torch") if "torch" in md.available_backends() else None
if torch is not None:
    from multidrop_torch import Dropout, drop_weights, internals
    from multidrop_torch.internals import compiler
    from torch.utils import checkpoint
    from torch.utils.flop_counter import FlopCounterMode


@pytest.fixture(autouse=True)
def backend(need: Any) -> None:
    need("torch")


def ones(gradient: bool = False) -> Any:
    return torch.ones(64, requires_grad=gradient)


def batched_gradient() -> None:
    X = ones(True)
    torch.autograd.grad(Dropout(0.5, seed=1)(X), X, torch.ones(2, 64), is_grads_batched=True)


def vmapped() -> None:
    torch.vmap(Dropout(0.5, seed=1), randomness="different")(torch.ones(2, 8))


REFUSED: dict[str, Callable[[], Any]] = {
    "graph_task": lambda: Dropout(0.5, seed=1)(ones()),
    "saved_tensors_hooks": lambda: Dropout(0.5, seed=1)(ones()),
    "dispatch_modes": lambda: Dropout(0.5)(ones()),
    "transforms": lambda: Dropout(0.5)(ones()),
    "is_wrapped": vmapped,
    "is_legacy_batched": batched_gradient,
    "is_batched": vmapped,
    "level_of": vmapped,
    "unwrapped": vmapped,
    "without_transforms": vmapped,
}


@pytest.mark.parametrize("name", REFUSED)
def test_functions_that_are_gone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What needs one refuses, and names torch's version."""
    REFUSED[name]()
    monkeypatch.setattr(internals, name, internals.find("_C._gone"))
    with pytest.raises(
        RuntimeError, match=rf"torch: expected torch\._C\._gone, .*got torch {re.escape(torch.__version__)}"
    ):
        REFUSED[name]()


def test_streams_outside_of_the_cpu_without_a_guard_against_modes(monkeypatch: pytest.MonkeyPatch) -> None:
    from multidrop_torch.position import position_of, take

    strided = torch.stack([position_of(md.Key(3)), torch.zeros(2, dtype=torch.int64)], dim=1)[:, 0]
    assert [take(strided), take(strided)] == [md.Key(3, 0), md.Key(3, 1)]
    monkeypatch.setattr(internals, "without_modes", internals.find("_C._gone"))
    with pytest.raises(RuntimeError, match=r"torch: expected torch\._C\._gone"):
        take(strided)


def moved(module: str) -> Any:
    """Has imports from a module of torch's find nothing in it."""
    return patch.dict("sys.modules", {module: types.ModuleType("moved")})


def test_levels_of_vmap() -> None:
    with (
        moved("torch._functorch.pyfunctorch"),
        pytest.raises(RuntimeError, match=r"torch: expected torch\._functorch\.pyfunctorch\.retrieve_all"),
    ):
        vmapped()


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """`torch._C` has nothing that is looked up in a call."""
    monkeypatch.setattr(
        internals, "torch", types.SimpleNamespace(_C=None, autograd=torch.autograd, compiler=torch.compiler)
    )


def test_the_level_of_forward_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    """The functions for all modes give the same."""
    expected = md.dropout_layer(ones(), 0.5, 3)
    monkeypatch.delattr(torch.autograd.forward_ad, "_current_level")
    assert torch.equal(md.dropout_layer(ones(), 0.5, 3), expected)


def test_what_modes_trace(bare: None) -> None:
    """All modes count as tracing, by operators."""
    layer = Dropout(0.5, seed=3)
    with FlopCounterMode(display=False):
        Y = layer(ones())
    assert torch.equal(Y, md.dropout_layer(ones(), 0.5, 3))
    assert layer.stream.tolist() == [3, 1]


def test_the_graph_of_a_program() -> None:
    stream = Dropout(0.5, seed=3).stream
    with (
        moved("torch.fx.experimental.proxy_tensor"),
        pytest.raises(RuntimeError, match=r"torch: expected torch\.fx\.experimental\.proxy_tensor\.get_proxy_mode"),
    ):
        torch.ops.multidrop.position(stream, True)


def test_the_mark_of_what_a_program_keeps() -> None:
    """`test_a_program_that_recomputes_takes_a_mask_once` sees masks that differ where torch reads another one."""
    node = types.SimpleNamespace(meta={"recompute": checkpoint.CheckpointPolicy.PREFER_RECOMPUTE})
    other = types.SimpleNamespace(meta={})
    internals.saved([node, other])
    assert node.meta == {"recompute": checkpoint.CheckpointPolicy.MUST_SAVE}
    assert other.meta == {}


def test_views_that_may_not_be_written_to(bare: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error is torch's own."""
    part = (torch.ones(3, 4, requires_grad=True) * 1).unbind(0)[0]
    with pytest.raises(RuntimeError, match=r"Output 0 of Unbind.* is a view"):
        Dropout(0.5, inplace=True, seed=3)(part)
    monkeypatch.setattr(internals, "base_of", lambda X: None)
    with pytest.raises(RuntimeError, match="a view of a leaf Variable"):
        Dropout(0.5, inplace=True, seed=3)(torch.ones(3, 4, requires_grad=True)[0])


def test_hooks(monkeypatch: pytest.MonkeyPatch) -> None:
    """ReLU and dropout give the same in two passes."""
    X = torch.linspace(-1, 1, 64)
    expected = Dropout(0.5, seed=3).after_relu(X)
    monkeypatch.setattr(internals, "_HOOKS", ("_moved",))
    assert internals.is_hooked(torch.nn.ReLU())
    assert torch.equal(Dropout(0.5, seed=3).after_relu(X), expected)
    assert not internals.has_forward_hook(types.SimpleNamespace(), print)  # type: ignore[arg-type]  # a module without


def test_recurrent_weights() -> None:
    module = drop_weights(torch.nn.LSTM(4, 5), md.family.DropConnect(0.5), seed=3)
    for name in ("_flat_weights", "_flat_weights_names"):
        other = copy.deepcopy(module)
        del vars(other)[name]
        with (
            pytest.warns(UserWarning, match="always_call=True"),
            pytest.raises(RuntimeError, match=f"torch: expected torch.nn.RNNBase.{name}"),
        ):
            other(torch.ones(2, 2, 4))


def test_a_compiled_module_by_another_name() -> None:
    module = torch.nn.ReLU()
    assert internals.uncompiled(module) is module


def test_the_flag_of_an_export(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's public function tells too, but of torch 2.11's compiled programs."""
    monkeypatch.delattr(torch.compiler, "_is_exporting_flag")
    for told in (True, False):
        monkeypatch.setattr(torch.compiler, "is_exporting", lambda told=told: told)
        assert internals.exports() == told


def test_the_handle_of_a_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's public stream has it too."""
    monkeypatch.setattr(torch.cuda, "current_stream", lambda index: types.SimpleNamespace(cuda_stream=50 + index))
    assert internals._public_stream(3) == 53


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("torch._inductor.lowering", "register_lowering"),
        ("torch._inductor.ir", "Pointwise"),
        ("torch._inductor.ir", "MutableBox"),
        ("torch._inductor.virtualized", "ops"),
        ("torch.utils._sympy.functions", "FloorDiv"),
    ],
)
def test_parts_of_inductor(module: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dropout stays an operator in compiled programs, with the same mask."""
    found = compiler.inductor()
    assert found is not None
    assert found.assembles
    monkeypatch.delattr(importlib.import_module(module), name)
    assert compiler.inductor.__wrapped__() is None


def test_methods_that_torch_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """A layer whose position torch would neither save nor load is not even defined."""

    def _gone(self: Any) -> None: ...

    with pytest.raises(RuntimeError, match=r"torch: expected torch\.nn\.Module\._gone"):
        internals.overrides(_gone)


def test_buffers_of_former_versions() -> None:
    layer = Dropout(0.5, seed=3)
    state = layer.__getstate__()
    del state["stream"]
    for buffers in ({"stream": torch.tensor([3, 5])}, {}):
        loaded = Dropout.__new__(Dropout)
        if buffers:
            loaded.__setstate__(state | {"_buffers": buffers})
            assert loaded.stream.tolist() == loaded.state_dict()["stream"].tolist() == [3, 5]
            assert not [*loaded.buffers()]
        else:
            with pytest.raises(KeyError):
                loaded.__setstate__(state | {"_buffers": buffers})


def test_what_transformers_marks() -> None:
    """Other memory leaves a layer where it is; `test_published_models` loads positions."""
    layer = Dropout(0.5, seed=3)
    layer.stream = torch.zeros(2, dtype=torch.int64)
    assert layer.stream.tolist() == [3, 0]


def nested() -> Any:
    return torch.nested.nested_tensor([torch.ones(3, 4), torch.ones(5, 4)], layout=torch.jagged)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors is in prototype stage:UserWarning")
def test_the_class_of_jagged_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under another name such a tensor is one of a subclass that does not know the operator, and torch says so."""
    from multidrop_torch import subclasses

    kind = type(nested())
    assert internals.jagged_class() is kind
    assert subclasses._rules(kind)
    with moved("torch.nested._internal.nested_tensor"):
        assert internals.jagged_class() is None
        assert subclasses._rules(kind) == {}


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors is in prototype stage:UserWarning")
def test_the_values_of_jagged_tensors() -> None:
    """Under another name the operator gets no tensor, and raises. The other parts of such a tensor are kept."""
    X = nested()
    Y = internals.with_values(X, internals.values_of(X) * 2)
    assert torch.equal(Y.values(), 2 * X.values())
    assert (Y + X).shape == X.shape
    with pytest.raises(RuntimeError, match="Expected a value of type 'Tensor'"):
        torch.ops.multidrop.uniform.default(internals.values_of(ones()), torch.zeros(2, dtype=torch.int64), 0)


def test_the_name_of_functionalize(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under another name torch raises, for want of a rule."""
    function = torch.func.functionalize(lambda X: Dropout(0.5, seed=1)(X))
    function(ones())
    monkeypatch.setattr(internals, "functionalizes", lambda: False)
    with pytest.raises(RuntimeError, match="Functionalize rule"):
        function(ones())


def test_the_mark_of_constants() -> None:
    """torch's own decorator sets it."""

    def marked(mark: Any) -> dict[str, Any]:
        return vars(mark(lambda: None))

    assert marked(internals.constant_in_programs) == marked(torch.compiler.assume_constant_result) != {}


def test_rules_for_subclasses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A torch that takes none for operators says so."""
    from multidrop_torch import subclasses

    class Other(torch.Tensor): ...

    monkeypatch.setattr(subclasses, "_rules", lambda kind: {"drop": print})
    monkeypatch.delattr(torch.library, "register_torch_dispatch")
    with pytest.raises(RuntimeError, match=r"torch: expected torch\.library\.register_torch_dispatch"):
        subclasses.ready(Other)


class TestCheckpoint:
    """Parts are found by names in torch's frames, and a part that is not found is no part that is recomputed by another
    mask."""

    def renamed(self, code: str, **names: Any) -> Any:
        """A function that stands in torch's file."""
        exec(compile(code, checkpoint.__file__, "exec"), names)
        return names

    def test_a_part_whose_record_has_another_name(self) -> None:
        run = self.renamed("def checkpoint(part, X):\n  generator = None\n  return part(X)")["checkpoint"]
        with torch.no_grad(), pytest.raises(RuntimeError, match="expected the locals `gen` or `ctx`"):
            run(Dropout(0.5, seed=1), ones())

    def test_hooks_with_other_variables(self) -> None:
        code = "def hooks():\n  part = 1\n  def pack(x): return x if part else x\n  return pack, pack"
        with (
            torch.autograd.graph.saved_tensors_hooks(*self.renamed(code)["hooks"]()),
            pytest.raises(RuntimeError, match="expected the variable `frame` of the hooks"),
        ):
            Dropout(0.5, seed=1)(ones())

    @pytest.mark.parametrize("reentrant", [False, True])
    def test_another_file(self, reentrant: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        """The recomputation then is in a backward pass of an unknown kind."""
        monkeypatch.setattr(checkpoint, "__file__", "moved.py")
        X = ones(True)
        Y = checkpoint.checkpoint(lambda X: Dropout(0.5, seed=1)(X).sin(), X, use_reentrant=reentrant)
        with pytest.raises(RuntimeError, match="got a keyed dropout in a backward pass"):
            Y.sum().backward()


def test_layers_within_a_keras_layer() -> None:
    """Where Keras moves its list of them, the layer itself is named."""
    layer = types.SimpleNamespace(_flatten_layers=lambda: (1, 2))
    assert internals.keras_layers(layer) == [1, 2]
    del layer._flatten_layers
    assert internals.keras_layers(layer) == [layer]


def test_no_other_file_uses_a_private_name() -> None:
    """Of torch, or of anyone else: attributes, imports, and names in `getattr` and the like."""
    folder = Path(internals.__file__).parents[1]
    trees = {str(path.relative_to(folder)): ast.parse(path.read_text()) for path in folder.rglob("*.py")}
    own = {"_replace"}  # of named tuples, which document it
    for node in (node for tree in trees.values() for node in ast.walk(tree)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            own.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            own.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self":
            own.add(node.attr)
    assert used(ast.parse("torch._C.x"), own) == {"_C"}
    assert used(ast.parse("from torch._functorch import x"), own) == {"_functorch"}
    assert used(ast.parse("getattr(x, '_moved')"), own) == {"_moved"}
    found = {name: used(tree, own) for name, tree in trees.items() if not name.startswith("internals")}
    assert {name: names for name, names in found.items() if names} == {}
    private = {name for name in own if name.startswith("_") and not name.endswith("__")}
    overridden = {name for name in private if hasattr(torch.nn.Module, name)}
    # each by `internals.overrides`
    assert overridden == {"_apply", "_save_to_state_dict", "_load_from_state_dict", "_get_name"}


def used(tree: ast.AST, own: set[str]) -> set[str]:
    """The private names in a syntax tree that are not among the backend's own."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            names.add(node.attr)
        elif isinstance(node, ast.ImportFrom):
            names |= {*(node.module or "").split("."), *(alias.name for alias in node.names)}
        elif isinstance(node, ast.Import):
            names |= {part for alias in node.names for part in alias.name.split(".")}
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("getattr", "hasattr", "setattr"):
            names |= {arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)}
    return {name for name in names if name.startswith("_") and not name.endswith("__") and name not in own}
