"""The private names of MXNet: where one is gone, an error names it, and nothing goes on with another result. And they
are used in one file alone."""

from __future__ import annotations

import ast
import builtins
import ctypes
import importlib.util
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import multidrop as md

FOLDER = Path(__file__).parent.parent / "backends" / "multidrop_mxnet"


@pytest.fixture(autouse=True)
def mxnet(need: Callable[[str], object]) -> None:
    need("mxnet")


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Callable[[ModuleType, str], None]:
    """`without(module, name)`: to what a module looks up, MXNet lacks that name."""

    def hide(module: ModuleType, name: str) -> None:
        def lacking(owner: Any, wanted: str, *default: Any) -> Any:
            if wanted == name:
                raise AttributeError(wanted)
            return builtins.getattr(owner, wanted, *default)

        monkeypatch.setattr(module, "getattr", lacking, raising=False)

    return hide


AT_IMPORT = (
    *("_LIB", "check_call", "c_handle_array", "NDArrayHandle", "MXCallbackList"),
    *("MXNDArrayGetDType", "MXNDArrayGetContext", "MXNDArrayGetData", "MXNDArrayCreateEx64", "MXNDArrayWaitToWrite"),
    *("MXCustomFunctionRecord", "_finish_deferred_init", "_init_impl", "_check_and_get", "_reduce"),
    *("_Conv", "_RNNLayer"),
)
"""Without these the backend is not imported."""


@pytest.mark.parametrize("name", AT_IMPORT)
def test_looked_up_at_import(name: str, without: Callable[[ModuleType, str], None]) -> None:
    spec = importlib.util.spec_from_file_location("multidrop_mxnet.another", FOLDER / "internals.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    without(module, name)
    with pytest.raises(RuntimeError, match=rf"^mxnet: expected \S+\.{name}, as version 1\.9\.1 has it; got version "):
        spec.loader.exec_module(module)


def at_use() -> Iterator[tuple[str, Callable[[], object]]]:
    """Each name that is looked up at use, with a call that needs it."""
    import mxnet as mx
    from multidrop_mxnet import Dropout, internals
    from multidrop_mxnet.operators import DropoutProp, register
    from multidrop_mxnet.position import StreamParameter
    from mxnet.gluon import nn, rnn

    def streaming() -> Any:
        return StreamParameter("stream", md.Key(1))

    def of_a_trainer() -> object:
        stream = streaming()
        mx.gluon.Trainer([stream], "sgd")
        return stream.list_ctx()

    def convert() -> Any:
        net = nn.HybridSequential()
        net.add(nn.Dropout(0.5))
        return md.convert(net), md.restore(net)

    yield "_ndarray_cls", lambda: register("multidrop_another")(DropoutProp)
    for name in ("_data", "_deferred_init", "_trainer"):
        yield name, streaming
    yield "_params", of_a_trainer
    yield "_data", lambda: internals.initialized(nn.Dense(2).weight)
    yield "_deferred_init", lambda: internals.contexts_of([nn.Dense(2).weight])
    for name in ("_params", "_reg_params"):
        yield name, lambda: internals.forget_parameter(Dropout(0.5, seed=1), "stream")
    for name in ("_forward_hooks", "_forward_pre_hooks"):
        yield name, lambda: internals.hooked(Dropout(0.5))
    yield "_active", lambda: internals.is_active(nn.Dense(2))
    yield "_active", lambda: internals.set_active(nn.Dense(2), False)
    yield "_act_type", lambda: internals.activation_of(nn.Dense(2, activation="relu"))
    yield "_flatten", lambda: internals.flattens(nn.Dense(2))
    yield "_kwargs", lambda: internals.layout_of(nn.Conv2D(2, 3))
    yield "_kwargs", lambda: internals.channel_axis(nn.BatchNorm())
    for name in ("_children", "_rate", "_axes", "_clear_cached_op"):
        yield name, convert
    yield "_dropout", lambda: md.convert(rnn.LSTM(2, dropout=0.5))
    yield "_rate", lambda: md.convert(rnn.DropoutCell(0.5))
    data = mx.sym.var("data", dtype="float32")
    yield "_cached_graph", lambda: md.convert(mx.gluon.SymbolBlock(mx.sym.relu(data), data))
    yield "_func_impl", lambda: md.convert(nn.Lambda("relu"))
    for name in ("_func", "_func_name"):
        yield name, lambda: md.convert(nn.HybridLambda("relu"))


def test_looked_up_at_use(without: Callable[[ModuleType, str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    from multidrop_mxnet import internals

    names = set(AT_IMPORT)
    for name, use in at_use():
        use()
        without(internals, name)
        with pytest.raises(RuntimeError, match=rf"^mxnet: expected \S+\.{name}, as version 1\.9\.1 has it; got "):
            use()
        monkeypatch.undo()
        names.add(name)
    assert {name for name in private(FOLDER / "internals.py") if name not in names} == set()


def test_what_they_tell() -> None:
    """Is what the public ways tell, or what the layers were built with."""
    import mxnet as mx
    from multidrop_mxnet import internals
    from mxnet.gluon import nn, rnn

    for name in ("float16", "float32", "float64"):
        X = internals.empty(mx.np.ndarray, (2, 3), name, (mx.cpu().device_typeid, 0))
        assert (type(X), X.shape, np.dtype(X.dtype).name, X.ctx) == (mx.np.ndarray, (2, 3), name, mx.cpu())
        assert (internals.name_of(X), internals.place_of(X)) == (name, (mx.cpu().device_typeid, 0))
        X[:] = 7
        X.wait_to_read()
        assert np.ctypeslib.as_array((ctypes.c_uint8 * X.dtype.itemsize).from_address(internals.address_of(X))).any()
    assert internals.name_of(mx.nd.ones(2, dtype="int32")) == ""
    for axis in (1, 3):  # a batch norm has no attribute of that name, though the others have
        for norm in (nn.BatchNorm, nn.InstanceNorm, nn.LayerNorm):
            assert internals.channel_axis(norm(axis=axis)) == axis
    assert internals.channel_axis(nn.GroupNorm()) == 1
    assert internals.layout_of(nn.Conv2D(2, 3, layout="NHWC")) == "NHWC"
    assert [internals.activation_of(nn.Dense(2, activation=name)) for name in ("relu", None)] == ["relu", None]
    assert [internals.flattens(nn.Dense(2, flatten=flag)) for flag in (True, False)] == [True, False]
    assert internals.dropout_of(rnn.LSTM(2, dropout=0.25)) == 0.25
    block = nn.Dropout(0.25, axes=(1,))
    assert internals.dropout_settings(block) == (0.25, (1,))
    assert not internals.hooked(block)
    for register in (block.register_forward_hook, block.register_forward_pre_hook):
        with register(lambda *_: None):
            assert internals.hooked(block)
    net = nn.HybridSequential()
    net.add(block)
    assert internals.children_of(net) == {"0": block}
    net.hybridize()
    assert internals.is_active(net)
    internals.set_active(net, False)
    assert not internals.is_active(net)


def test_no_other_file_uses_a_private_name() -> None:
    files = [path for path in FOLDER.glob("*.py") if path.name != "internals.py"]
    own = {name for path in files for name in defined(path)}
    used = {path.name: private(path) - own for path in files}
    assert {name: names for name, names in used.items() if names} == {}
    from mxnet.gluon import HybridBlock, Parameter

    blocks: Any = (HybridBlock(), Parameter("p"))
    assert {name for name in own for block in blocks if hasattr(block, name)} - {"__init__"} == set()


def private(path: Path) -> set[str]:
    """The private names, and those of `mxnet.base`, that a file uses of something else than itself."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute):
            names.add(node.attr)
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] == "mxnet":
            names.update(alias.name for alias in node.names)
            names.add("mxnet.base" if node.module == "mxnet.base" else "")
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("found", "getattr"):
            names.update(each.value for each in node.args if isinstance(each, ast.Constant) and each.value)
    return {name for name in names if re.match(r"_(?!_)|mxnet\.base", str(name))}


def defined(path: Path) -> set[str]:
    """The private names that a file defines: functions, classes, variables and attributes of `self`."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            names.update([node.attr] if isinstance(node.value, ast.Name) and node.value.id == "self" else [])
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return {name for name in names if re.match(r"_(?!_)", name)}
