"""What other readers of programs make of these layers: what they cannot carry is an error that names `md.restore`, what
they turn off is off, and an exported program that needs this library says so."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import multidrop as md


@pytest.fixture
def torch(need: Any) -> Any:
    need("torch")
    import torch

    return torch


def model_of(torch: Any, train: bool = True, seed: int | None = 0) -> Any:
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Dropout(0.5), torch.nn.AlphaDropout(0.5))
    md.convert(model, seed=seed)
    return model.train(train)


def scripted(torch: Any) -> None:
    torch.jit.script(model_of(torch))


def traced_by_fx(torch: Any) -> None:
    torch.fx.symbolic_trace(model_of(torch, train=False))


def quantized_by_fx(torch: Any) -> None:
    from torch.ao import quantization
    from torch.ao.quantization.quantize_fx import prepare_fx

    mapping = quantization.get_default_qconfig_mapping()
    prepare_fx(model_of(torch, train=False), mapping, (torch.ones(2, 8),))


def quantized(torch: Any) -> None:
    from torch.ao import quantization

    model, X = model_of(torch, train=False), torch.ones(2, 8)
    model.qconfig = quantization.get_default_qconfig("fbgemm")
    prepared = quantization.prepare(model)
    prepared(X)
    quantization.convert(prepared)(torch.quantize_per_tensor(X, 0.1, 0, torch.quint8))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")  # each of these is to be given up
@pytest.mark.parametrize("reader", [scripted, traced_by_fx, quantized_by_fx, quantized])
def test_the_error_names_the_cure(torch: Any, reader: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """And it is one: with torch's own layers, the same works."""
    with pytest.raises(TypeError, match=r"multidrop\.restore\(model\)"):
        reader(torch)
    convert = md.convert

    def and_back(model: Any, **settings: Any) -> None:
        convert(model, **settings)
        md.restore(model)

    monkeypatch.setattr(md, "convert", and_back)
    reader(torch)


@pytest.mark.parametrize("seed", [None, 0])
@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("kind", ["Dropout", "AlphaDropout", "DropPath", "GaussianNoise"])
def test_a_program_that_is_moved_to_evaluation(torch: Any, kind: str, strict: bool, seed: int | None) -> None:
    """torchao's `move_exported_model_to_eval` replaces torch's dropout in an exported program by one that is off, which
    turns these off too; its counterpart turns them on again."""
    with md.use_backend("torch"):
        layer = getattr(torch.nn, kind)(0.5) if hasattr(torch.nn, kind) else getattr(md, kind)(0.5, seed=seed)
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), layer)
    md.convert(model, seed=seed)
    X = torch.randn(16, 8)
    program = torch.export.export(model, (X,), strict=strict).module()
    evaluated = model[0](X)
    for training in (True, False, True):
        switch(torch, program, training)
        assert torch.equal(program(X), evaluated) is not training


def switch(torch: Any, program: Any, training: bool) -> None:
    """What torchao does, by the same function."""

    class Pattern(torch.nn.Module):
        def __init__(self, on: bool) -> None:
            super().__init__()
            self.on = on

        def forward(self, X: Any) -> Any:
            return torch.nn.functional.dropout(X, 0.5, self.on)

    from torch.fx.subgraph_rewriter import replace_pattern_with_filters

    found, put = (torch.export.export(Pattern(on), (torch.ones(1),)).module() for on in (not training, training))
    for graph in (found, put):
        graph.graph.eliminate_dead_code()
        for node in list(graph.graph.nodes):  # what checks the inputs' shapes
            if node.op == "call_module" and "guards" in node.target:
                graph.graph.erase_node(node)
        graph.recompile()
    program.graph.eliminate_dead_code()
    program.recompile()
    replace_pattern_with_filters(program, found, put, match_filters=[], ignore_literals=True)
    program.recompile()


Said = Callable[[], list[str]]


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Said:
    """A function that gives what the library has logged since its last call."""
    caplog.set_level(logging.WARNING, "multidrop")

    def since() -> list[str]:
        found = [record.getMessage() for record in caplog.records if record.name == "multidrop"]
        caplog.clear()
        return found

    return since


def check_text(texts: list[str], package: str, operator: str) -> None:
    """That there is one, which names the operator, the import and the ways without it."""
    (text,) = texts
    assert text.startswith(f"{package}: the exported program holds the operator {operator}, ")
    assert all(part in text for part in (f"`import {package}`", "evaluation mode", "multidrop.restore(model)"))


@pytest.mark.parametrize("seed", [None, 0])
@pytest.mark.parametrize("strict", [False, True])
class TestTorchExport:
    def test_a_program_that_drops(self, torch: Any, said: Said, strict: bool, seed: int | None) -> None:
        """Each export says so once, for any number of layers, and lowering the program does not repeat it."""
        model, X = model_of(torch, seed=seed), (torch.ones(2, 8),)
        for _ in range(2):
            program = torch.export.export(model, X, strict=strict)
            assert "multidrop.take_exported" in program.graph_module.code
            check_text(said(), "multidrop_torch", "multidrop::take_exported")
        program.module()(*X)
        assert said() == []

    def test_each_member(self, torch: Any, said: Said, strict: bool, seed: int | None) -> None:
        with md.use_backend("torch"):
            layers = [md.DropPath(0.5, seed=seed), md.GaussianNoise(0.5, seed=seed), md.DropBlock(0.5, 1, seed=seed)]
        for layer in layers:
            torch.export.export(layer, (torch.ones(2, 3, 4, 4),), strict=strict)
            check_text(said(), "multidrop_torch", "multidrop::take_exported")

    def test_a_program_that_does_not(self, torch: Any, said: Said, strict: bool, seed: int | None) -> None:
        """Such as one in evaluation mode, one with torch's own layers, and one that is compiled and not exported."""
        X = torch.ones(2, 8)
        idle = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Dropout(0.0))
        restored = model_of(torch, seed=seed)
        md.convert(idle)  # a keyed layer would count the call
        md.restore(restored)
        for model in (model_of(torch, train=False, seed=seed), restored, idle):
            program = torch.export.export(model, (X,), strict=strict)
            assert "multidrop" not in program.graph_module.code
        torch.compile(model_of(torch, seed=seed), backend="aot_eager")(X)
        assert said() == []


def test_a_function_in_an_exported_program(torch: Any, said: Said) -> None:
    class Model(torch.nn.Module):  # type: ignore[misc, name-defined]  # torch is a fixture
        def forward(self, X: Any) -> Any:
            return md.dropout_layer(X, 0.5, 1)

    torch.export.export(Model(), (torch.ones(2, 8),))
    check_text(said(), "multidrop_torch", "multidrop::drop")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the exporter that does without onnxscript
def test_onnx(torch: Any) -> None:
    """Which has no such operators."""
    from torch.onnx import TrainingMode
    from torch.onnx.errors import UnsupportedOperatorError

    settings = {"training": TrainingMode.TRAINING, "do_constant_folding": False, "dynamo": False}
    with pytest.raises(UnsupportedOperatorError, match="multidrop::position"):
        torch.onnx.export(model_of(torch), (torch.ones(2, 8),), io.BytesIO(), **settings)


class TestSavedModel:
    """TensorFlow's programs, saved by itself and by Keras."""

    @pytest.fixture(autouse=True)
    def tf(self, need: Any) -> Any:
        need("tensorflow")
        import tensorflow as tf

        return tf

    def module(self, tf: Any, compiled: bool = False) -> Any:
        module, signature = tf.Module(), [tf.TensorSpec((None, 8))]
        for name, p in (("first", 0.5), ("second", 0.25)):
            drop = tf.function(lambda X, p=p: md.dropout_layer(X, p, 1), signature, jit_compile=compiled)
            setattr(module, name, drop)
        return module

    def model(self, tf: Any) -> Any:
        import keras

        layers = [keras.layers.Dense(8), keras.layers.Dropout(0.5), keras.layers.SpatialDropout1D(0.5)]
        model = keras.Sequential([keras.Input((4, 8)), *layers])
        md.convert(model, seed=0)
        model.compile("sgd", "mse")
        model.fit(np.ones((4, 4, 8)), np.ones((4, 4, 8)), verbose=0)  # whose program drops, and is not saved
        return model

    def test_functions_that_drop(self, tf: Any, said: Said, tmp_path: Path) -> None:
        for name in "ab":
            tf.saved_model.save(self.module(tf), str(tmp_path / name))
            check_text(said(), "multidrop_tensorflow", "MultidropDropout")

    def test_a_model_that_drops(self, tf: Any, said: Said, tmp_path: Path) -> None:
        import keras

        model, archive = self.model(tf), keras.export.ExportArchive()
        archive.track(model)
        archive.add_endpoint("train", lambda X: model(X, training=True), [tf.TensorSpec((None, 4, 8))])
        archive.write_out(tmp_path, verbose=False)
        check_text(said(), "multidrop_tensorflow", "MultidropDropout")

    def test_a_model_that_does_not(self, tf: Any, said: Said, tmp_path: Path) -> None:
        model = self.model(tf)
        model.export(tmp_path / "keras", verbose=False)
        tf.saved_model.save(model, str(tmp_path / "tensorflow"))
        model.save(tmp_path / "model.keras")
        assert said() == []

    @pytest.mark.filterwarnings("ignore:.*unsaved custom gradients")
    def test_functions_for_xla(self, tf: Any, said: Said, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """TensorFlow saves their gradients, which it cannot; without them it saves the functions."""
        module, without = (
            self.module(tf, compiled=True),
            tf.saved_model.SaveOptions(experimental_custom_gradients=False),
        )
        with pytest.raises(ValueError, match="tracing gradients") as error:
            tf.saved_model.save(module, str(tmp_path / "a"))
        assert "program: expected one without jit_compile=True; got one that drops" in str(error.value.__cause__)
        assert said() == []
        tf.saved_model.save(module, str(tmp_path / "b"), options=without)
        check_text(said(), "multidrop_tensorflow", "XlaCallModule of multidrop_dropout")
        X = tf.ones((2, 8))
        loaded = tf.saved_model.load(str(tmp_path / "b"))
        assert np.array_equal(loaded.first(X).numpy(), 2.0 * md.keep_mask((2, 8), 0.5, 1))


def test_who_is_not_asked(need: Any, said: Said, tmp_path: Path) -> None:
    """Gluon's export writes the symbol that it has, without a call of a block or an operator."""
    multidrop_mxnet = need("mxnet")
    import mxnet as mx

    net = mx.gluon.nn.HybridSequential()
    net.add(mx.gluon.nn.Dense(8), multidrop_mxnet.Dropout(0.5))
    net.initialize()
    net.hybridize()
    net(mx.nd.ones((4, 8)))
    net.export(str(tmp_path / "net"))
    assert "multidrop_dropout" in (tmp_path / "net-symbol.json").read_text()
    assert said() == []
