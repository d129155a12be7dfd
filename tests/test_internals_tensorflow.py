"""The private names of TensorFlow and Keras that the backend uses: each test takes one away, and sees an error or a
slower way with the same bits. A test that fails on a new version says which name the framework moved."""

from __future__ import annotations

import ast
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import multidrop as md

MASK = 2.0 * md.keep_mask((8, 8), 0.5, 1)


@pytest.fixture(autouse=True)
def ours(need: Any) -> Any:
    return need("tensorflow")


@pytest.fixture
def internals(ours: Any) -> Any:
    """The module, with nothing cached and nothing warned of."""

    def forget() -> None:
        ours.internals.warn.cache_clear()
        ours.internals._shows_jit_compile.cache_clear()

    forget()
    yield ours.internals
    forget()


def run(function: Any, xla: bool | None = None) -> Any:
    """A function of ones: eager, traced, or compiled by XLA."""
    import tensorflow as tf

    run = function if xla is None else tf.function(function, autograph=False, jit_compile=xla)
    return run(tf.ones((8, 8))).numpy()


def dropout(X: Any) -> Any:
    return md.dropout_layer(X, 0.5, 1)


def gradient(X: Any) -> Any:
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(X)
        Y = dropout(X)
    return tape.gradient(Y, X)


@pytest.mark.parametrize("xla", [None, False, True], ids=["eager", "function", "xla"])
def test_tensorflow_moved_record_operation(internals: Any, monkeypatch: pytest.MonkeyPatch, xla: bool | None) -> None:
    monkeypatch.setattr(internals, "record_operation", None)
    assert np.array_equal(run(gradient, xla), MASK)


def test_tensorflow_moved_the_generator_of_its_context(
    internals: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Programs that are alike still draw masks of their own."""
    import tensorflow as tf

    monkeypatch.setattr(internals, "_context", None)
    tf.random.set_seed(3)
    with caplog.at_level(logging.WARNING, "multidrop"):
        first, second = (run(lambda X: md.dropout_layer(X, 0.5), False) for _ in range(2))
    assert not np.array_equal(first, second)
    assert "expected the generator of its context" in caplog.text


@pytest.mark.parametrize("xla", [None, False, True], ids=["eager", "function", "xla"])
def test_keras_moved_in_stateless_scope(
    internals: Any, ours: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, xla: bool | None
) -> None:
    import keras
    import tensorflow as tf

    monkeypatch.setattr(internals, "_in_stateless_scope", None)
    layer = ours.Dropout(0.5, seed=1)
    model = keras.Sequential([keras.Input((8,)), layer])
    state = [tf.constant(layer.stream.numpy())]
    with caplog.at_level(logging.WARNING, "multidrop"):
        assert np.array_equal(run(lambda X: model.stateless_call([], state, X, training=True)[0], xla), MASK)
        for call in range(2):
            expected = 2.0 * md.keep_mask((8, 8), 0.5, md.Key(1, call))
            assert np.array_equal(run(lambda X: layer(X, training=True), xla), expected)
    assert "expected keras.src's in_stateless_scope" in caplog.text


@pytest.mark.parametrize("xla", [False, True], ids=["function", "xla"])
def test_tensorflow_moved_jit_compile(
    internals: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, xla: bool
) -> None:
    import tensorflow as tf

    plain = tf.function
    monkeypatch.setattr(tf, "function", lambda f=None, **options: plain(f) if f else plain)
    assert internals._shows_jit_compile() is False
    monkeypatch.undo()
    with caplog.at_level(logging.WARNING, "multidrop"):
        assert np.array_equal(run(dropout, xla), MASK)
        assert np.array_equal(run(gradient, xla), MASK)
    assert "_jit_compile" in caplog.text


def test_tensorflow_made_vectorized_map_no_python_function(
    internals: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import tensorflow as tf

    monkeypatch.setattr(tf, "vectorized_map", len)
    with caplog.at_level(logging.WARNING, "multidrop"):
        assert np.array_equal(run(gradient, True), MASK)
    assert "expected a Python function tf.vectorized_map" in caplog.text


def built_otherwise(f: Any) -> Any:
    def only(*arguments: Any) -> Any:
        return f(*arguments)

    return only


def built_side_by_side(f: Any) -> Any:
    """Runs the function again in a function beside the first."""

    def first(*arguments: Any) -> Any:
        return [f(each) for each in arguments]

    def again(*arguments: Any) -> Any:
        return first(*map(lambda each: f(each), arguments))  # noqa: C417  # a function within

    return first, again


def built_without_it(f: Any) -> Any:
    """Leaves running the function again to others."""

    def first(*arguments: Any) -> Any:
        return f(*map(lambda each: each, arguments))  # noqa: C417  # a function within

    return first


@pytest.mark.parametrize("other", [len, built_otherwise, built_side_by_side, built_without_it])
def test_tensorflow_built_recompute_grad_otherwise(
    internals: Any, ours: Any, monkeypatch: pytest.MonkeyPatch, other: Any
) -> None:
    """What takes the next mask is an error, with the remedies, which work."""
    import tensorflow as tf

    first, again = internals.recomputing_code(tf.recompute_grad)
    assert first
    assert again
    none, nor_again = internals.recomputing_code(other)
    monkeypatch.setattr(internals, "_EITHER", none | nor_again)
    layer = ours.Dropout(0.5, seed=1)
    for call in (lambda X: layer(X, training=True), lambda X: md.dropout_layer(X, 0.5)):
        with pytest.raises(RuntimeError, match=r"tf\.recompute_grad: expected .*; got another.*with a key, or"):
            run(call)
    assert np.array_equal(run(gradient), MASK)


@pytest.mark.parametrize("name", ["unlock", "_untrack_variable"])
def test_keras_moved_the_tracker_of_a_layer(ours: Any, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A layer that is built cannot be keyed anew; nothing else needs it."""
    import keras

    layer = ours.Dropout(0.5, seed=1)
    assert np.array_equal(run(lambda X: layer(X, training=True)), MASK)
    monkeypatch.delattr(keras.layers.Layer if name == "_untrack_variable" else type(layer._tracker), name)
    with pytest.raises(AttributeError, match=name):
        layer._key_by(None)


def test_keras_moved_build_at_init(ours: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import keras

    monkeypatch.delattr(keras.layers.Layer, "_build_at_init")
    layer = ours.Dropout(0.5, seed=1)
    assert np.array_equal(run(lambda X: layer(X, training=True)), MASK)


@pytest.mark.parametrize("name", ["_layers", "_trainable_variables", "_non_trainable_variables"])
def test_keras_moved_what_a_layer_holds(ours: Any, name: str) -> None:
    import keras

    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(8), keras.layers.Dropout(0.5)])
    part = model if name == "_layers" else model.layers[0]
    del part.__dict__[name]
    with pytest.raises(AttributeError, match=name):
        md.convert(model) if name == "_layers" else ours.internals.own_variables(part)


def test_keras_moved_to_snake_case(ours: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import keras
    from keras.src.utils import naming

    model = keras.Sequential([keras.layers.Dropout(0.5)])
    monkeypatch.delattr(naming, "to_snake_case")
    with pytest.raises(ImportError, match="to_snake_case"):
        md.convert(model)


def test_keras_moved_the_weights_of_legacy_files(
    internals: Any, ours: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A file then holds streams, and Keras counts them."""
    import keras
    from keras.src.legacy.saving import legacy_h5_format as legacy

    own, keyed = (
        keras.Sequential([keras.Input((4,)), drop, keras.layers.Dense(1)])
        for drop in (keras.layers.Dropout(0.5), ours.Dropout(0.5, seed=1))
    )
    own.save(tmp_path / "own.h5")
    with monkeypatch.context() as without:
        without.delattr(legacy, "_legacy_weights")
        internals.keep_out_of_legacy_files(lambda weight: True)
        assert not hasattr(legacy, "_legacy_weights")
    monkeypatch.setattr(legacy, "_legacy_weights", lambda layer: layer.weights)
    with pytest.raises(ValueError, match="Layer count mismatch"):
        keyed.load_weights(tmp_path / "own.h5")


def test_tensorflow_moved_the_interface_of_xla(
    internals: Any, ours: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import tensorflow as tf

    monkeypatch.setattr(tf.sysconfig, "get_lib", lambda: "/nowhere")
    monkeypatch.setattr(ours.xla, "_registered", False)
    with caplog.at_level(logging.WARNING, "multidrop"):
        ours.xla._register()
    assert "expected xla::ffi::GetXlaFfiApi" in caplog.text
    assert not ours.xla._registered
    assert np.array_equal(run(dropout, True), MASK)


def test_tensorflow_moved_the_interface_of_operators(ours: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ours.native, "_registered", [])
    ours.native.available.cache_clear()
    try:
        for xla in (False, True):
            assert np.array_equal(run(gradient, xla), MASK)
    finally:
        ours.native.available.cache_clear()


PYTHONS_OWN = {"_fields_", "_replace", "_getframe"}  # of ctypes, of named tuples, of sys


def private_names(path: Path) -> set[str]:
    """The private attributes that a file reads, and the private modules that it imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.endswith("__"):
            found.add(node.attr)
        elif isinstance(node, ast.ImportFrom | ast.Import):
            module = getattr(node, "module", None) or ""
            found |= {name for name in (module, *(each.name for each in node.names)) if is_private(name)}
    return found


def is_private(module: str) -> bool:
    return module.startswith(("tensorflow.python", "keras.src", "tensorflow.core"))


def defined_names(path: Path) -> set[str]:
    """The private names that a file gives to functions, classes, variables and attributes."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
            found.add(node.id if isinstance(node, ast.Name) else node.attr)
    return found


def test_no_other_module_uses_a_private_name(ours: Any) -> None:
    files = sorted(Path(ours.__file__).parent.rglob("*.py"))
    own = set().union(*(defined_names(path) for path in files))
    used = {path.name: private_names(path) - own - PYTHONS_OWN for path in files}
    assert {"_tracker", "tensorflow.python.eager", "keras.src.utils.naming"} < used.pop("internals.py")
    assert {name: names for name, names in used.items() if names} == {}
