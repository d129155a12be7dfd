"""What is TensorFlow's alone: the kernel as an operator of its graphs, gradients without `tf.custom_gradient`, and
what programs do that hold the operator."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorflow_programs import operators, traced

import multidrop as md


@pytest.fixture(autouse=True)
def tensorflow(need: Any) -> None:
    need("tensorflow")


@pytest.mark.parametrize("jit_compile", [None, False, True], ids=["eager", "function", "xla"])
@pytest.mark.parametrize("first", [2**56 - 1, 2**63 - 1, 2**64 - 1])
def test_a_stream_goes_on_where_a_word_of_its_position_is_full(first: int, jit_compile: bool | None) -> None:
    import tensorflow as tf
    from multidrop_tensorflow import Dropout

    layer, ones = Dropout(0.5, seed=md.Key(2**64 - 3, first)), tf.ones(64)
    call = lambda: layer(ones, training=True)  # noqa: E731  # as the program that is traced, or as it is
    call = call if jit_compile is None else traced(call, jit_compile=jit_compile)
    for number in (first, (first + 1) % 2**64):
        key = md.Key(2**64 - 3, number)
        assert np.array_equal(call().numpy(), 2.0 * md.keep_mask(64, 0.5, key))
    assert md.last_mask(layer, shape=(64,)).key == key


@pytest.mark.parametrize("way", ["eager", "function", "xla"])
@pytest.mark.parametrize("first", [0, 2**56 - 1, 2**64 - 1])
def test_without_state(first: int, way: str) -> None:
    """A stateless call takes the position that it is given, and gives the next; the layer's own stays."""
    import keras
    import tensorflow as tf
    from multidrop_tensorflow import Dropout

    layer, X = Dropout(0.5, seed=md.Key(5, first)), tf.ones((8, 8))
    model = keras.Sequential([keras.Input((8,)), layer])
    call = lambda state: model.stateless_call([], state, X, training=True)  # noqa: E731  # as what is traced, or as it is
    call = call if way == "eager" else traced(call, jit_compile=way == "xla")
    own = layer.stream.numpy()
    state = [tf.constant(own)]
    for number in (first, (first + 1) % 2**64):
        Y, state = call(state)
        assert np.array_equal(Y, 2.0 * md.keep_mask((8, 8), 0.5, md.Key(5, number)))
    assert np.array_equal(layer.stream, own)
    with keras.StatelessScope() as scope:
        layer(X, training=True)
        assert np.array_equal(layer(X, training=True), Y)
    assert scope.get_current_value(layer.stream) is not None
    assert np.array_equal(layer.stream, own)


def after_set_seed() -> list[np.ndarray]:
    """The masks of calls that `tf.random` keys, in functions, traces, branches and loops that are alike."""
    import tensorflow as tf

    def drop(X: Any) -> Any:
        return md.dropout_layer(X, 0.5)

    def function() -> Any:
        return tf.function(lambda X: drop(X))

    @tf.function
    def branches(X: Any, first: Any) -> Any:
        return tf.cond(first, lambda: drop(X), lambda: drop(X))

    @tf.function
    def loops(X: Any) -> Any:
        return [tf.map_fn(drop, X) for _ in range(2)]

    tf.random.set_seed(3)
    X, first = tf.ones((1, 64)), function()
    drawn = [first(X), function()(X), tf.function(drop)(X), first(tf.ones((2, 64)))[:1]]
    drawn += [branches(X, tf.constant(True)), *loops(X), drop(X)]
    tf.random.set_seed(3)
    drawn += [branches(X, tf.constant(False)), first(X), drop(X)]
    return [Y.numpy() for Y in drawn]


def test_programs_that_are_alike_draw_masks_of_their_own() -> None:
    """As TensorFlow's generator is seeded; and the same ones again when it is seeded so again."""
    after_set_seed()  # the first call without a key makes variables, for which TensorFlow traces its function twice
    *drawn, first, eager = after_set_seed()
    assert np.array_equal(first, drawn[0])
    assert np.array_equal(eager, drawn[-2])
    assert len({Y.tobytes() for Y in drawn}) == len(drawn)
    assert all(np.array_equal(a, b) for a, b in zip(after_set_seed(), [*drawn, first, eager], strict=True))


def test_what_programs_hold() -> None:
    """The kernel as an operator, or as a call of XLA's."""
    import tensorflow as tf

    dropout = lambda X: md.dropout_layer(X, 0.5, 1)  # noqa: E731  # as the program that is traced
    for sizes in ((4, 5), (None, 5)):
        for xla, held in ((False, "MultidropDropout"), (True, "XlaCallModule")):
            found = operators(traced(dropout, jit_compile=xla), tf.TensorSpec(sizes))
            assert found & {"MultidropDropout", "XlaCallModule", "StatelessRandomUniformFullIntV2"} == {held}


def test_the_operator_tells_its_shape() -> None:
    import tensorflow as tf

    @traced
    def shape(X: Any) -> Any:
        Y = md.dropout_layer(X, 0.5, 1)
        assert Y.shape.as_list() == [None, 3]
        return tf.shape(Y)

    assert shape.get_concrete_function(tf.TensorSpec((None, 3)))(tf.ones((2, 3))).numpy().tolist() == [2, 3]


def test_the_operator_leaves_its_input_alone() -> None:
    """It writes over an input that nothing else reads, and over no other."""
    import tensorflow as tf

    @traced
    def both(X: Any) -> tuple[Any, Any, Any]:
        Z = X + 1.0
        return Z, md.dropout_layer(Z, 0.5, 1), md.dropout_layer(X + 1.0, 0.5, 1)

    Z, *dropped = (tensor.numpy() for tensor in both(tf.zeros((64, 64))))
    assert (Z == 1.0).all()
    assert all(np.array_equal(Y, 2.0 * md.keep_mask((64, 64), 0.5, 1)) for Y in dropped)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the system does not tell what a process occupies")
def test_the_operator_lets_go_of_its_tensors() -> None:
    import resource  # which not every system has

    import tensorflow as tf

    def occupied() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    dropout, X = traced(lambda X: md.dropout_layer(X, 0.5, 1)), tf.ones(2**18)
    for _ in range(10):
        dropout(X)
    before = occupied()
    for _ in range(300):
        dropout(X)
    assert occupied() - before < 50 * 2**20  # of 300 outputs of 1 MB each


@pytest.mark.parametrize("shape", [(256, 1024), (1024, 1024)], ids=["without Python", "in several threads"])
def test_eight_threads_at_once(shape: tuple[int, ...]) -> None:
    import tensorflow as tf

    dropout = traced(lambda X, call: md.dropout_layer(X, 0.5, 1) + 0.0 * call)
    X = tf.ones(shape)
    dropout(X, 0.0)
    expected = 2.0 * md.keep_mask(shape, 0.5, 1)
    with ThreadPoolExecutor(8) as executor:
        for Y in executor.map(lambda call: dropout(X, tf.constant(float(call))).numpy(), range(64)):
            assert np.array_equal(Y, expected)


def test_two_threads_that_trace_for_the_first_time() -> None:
    """TensorFlow is told of the compiled function once, in a process that has not loaded it."""
    code = """
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
import numpy as np, tensorflow as tf, multidrop as md, multidrop_tensorflow
barrier = Barrier(2)
def run(_):
    barrier.wait()
    return tf.function(lambda X: md.dropout_layer(X, 0.5, 1), autograph=False)(tf.ones(64)).numpy()
with ThreadPoolExecutor(2) as executor:
    print([np.array_equal(Y, 2.0 * md.keep_mask(64, 0.5, 1)) for Y in executor.map(run, range(2))])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[True, True]", done.stderr


def test_a_program_ends_while_a_dataset_is_drawn_from() -> None:
    """Whose threads run the operator on tensors that are large enough for Python until the iterator is gone."""
    code = """
import tensorflow as tf, multidrop as md, multidrop_tensorflow
ones = tf.ones((1024, 1024))
rows = tf.data.Dataset.range(10**9).map(
    lambda i: md.dropout_layer(ones + tf.cast(i, tf.float32), 0.5, 3), num_parallel_calls=4
)
rows = iter(rows.prefetch(8))
for _ in range(3):
    next(rows)
print("done")
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stdout.strip()) == (0, "done"), done.stderr


def test_a_program_ends_once_a_dataset_that_xla_runs_in_is_gone() -> None:
    """XLA's handler calls Python for tensors of this size."""
    code = """
import tensorflow as tf, multidrop as md, multidrop_tensorflow
ones = tf.ones((1024, 1024))
drop = tf.function(lambda i: md.dropout_layer(ones + tf.cast(i, tf.float32), 0.5, 3), jit_compile=True)
rows = iter(tf.data.Dataset.range(10**9).map(drop, num_parallel_calls=4).prefetch(8))
for _ in range(3):
    next(rows)
del rows
print("done")
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stdout.strip()) == (0, "done"), done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_a_forked_process_ends_without_the_threads_of_its_parent() -> None:
    """Which were with Python when it was forked."""
    code = """
import os
from multidrop_tensorflow import native
native._shared[1] = 1
if child := os.fork():
    print(os.waitpid(child, 0)[1])
    native._shared[1] = 0
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stdout.strip()) == (0, "0"), done.stderr


def test_a_compiled_kernel_that_is_registered_twice() -> None:
    """An exception from a signal handler may come after the first time, before it is noted."""
    code = """
import numpy as np, tensorflow as tf, multidrop as md
from multidrop_tensorflow import native
for _ in range(2):
    native._compiled = False
    Y = tf.function(lambda X: md.dropout_layer(X, 0.5, 1), autograph=False)(tf.ones((4, 8)))
    assert native._compiled
    print(np.array_equal(Y.numpy(), 2.0 * md.keep_mask((4, 8), 0.5, 1)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout.split() == ["True", "True"], done.stderr


def test_in_a_dataset() -> None:
    """Which runs its functions in threads of its own."""
    import tensorflow as tf

    rows = tf.data.Dataset.range(100).map(
        lambda i: md.dropout_layer(tf.fill((64,), tf.cast(i, tf.float32)), 0.5, 1), num_parallel_calls=4
    )
    mask = 2.0 * md.keep_mask((64,), 0.5, 1)
    assert all(np.array_equal(row.numpy(), i * mask) for i, row in enumerate(rows))


def test_a_saved_program_runs_where_the_backend_is_imported(tmp_path: Path) -> None:
    import tensorflow as tf

    module = tf.Module()
    module.dropout = traced(lambda X: md.dropout_layer(X, 0.5, 1), input_signature=[tf.TensorSpec((None, 8))])
    tf.saved_model.save(module, str(tmp_path))
    code = f"""
import numpy as np, tensorflow as tf, multidrop as md
try:
    tf.saved_model.load({str(tmp_path)!r})
except RuntimeError as error:
    print("Op type not registered 'MultidropDropout'" in str(error))
import multidrop_tensorflow
Y = tf.saved_model.load({str(tmp_path)!r}).dropout(tf.ones((4, 8)))
print(np.array_equal(Y.numpy(), 2.0 * md.keep_mask((4, 8), 0.5, 1)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["True", "True"], done.stderr


def test_a_call_without_a_key_cannot_be_saved(tmp_path: Path) -> None:
    """Its position is no part of the model; that of a layer is."""
    import keras
    import multidrop_tensorflow

    def model(drop: Any) -> Any:
        return keras.Sequential([keras.Input((8,)), Within(drop)])

    class Within(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
        def __init__(self, drop: Any) -> None:
            super().__init__()
            self.drop = drop

        def call(self, X: Any) -> Any:
            return self.drop(X)

    with pytest.raises(AssertionError, match="untracked' resource"):
        model(lambda X: md.dropout_layer(X, 0.5)).export(tmp_path / "call", verbose=False)
    model(lambda X: md.dropout_layer(X, 0.5, 1)).export(tmp_path / "key", verbose=False)
    model(multidrop_tensorflow.Dropout(0.5)).export(tmp_path / "layer", verbose=False)


def test_tensorflow_lite_says_what_it_cannot_convert() -> None:
    """And returns: its converter holds Python's lock, so that a function of Python's that it waited for, to infer a
    shape or to compute a constant, would never come. A model that drops in training alone is converted."""
    code = """
import keras, tensorflow as tf, multidrop as md, multidrop_tensorflow
dense, ones = keras.layers.Dense(8), tf.ones(8)
class Drops(keras.layers.Layer):
    def call(self, x):
        return self.drop(x)
def converted(drop):
    layer = Drops()
    layer.drop = drop
    model = keras.Sequential([keras.Input((8,)), dense, layer, multidrop_tensorflow.Dropout(0.5, seed=1)])
    try:
        return len(tf.lite.TFLiteConverter.from_keras_model(model).convert())
    except Exception as error:
        return "MultidropDropout" in str(error)
drops = [lambda x: md.dropout_layer(x, 0.5, 1), lambda x: x + md.dropout_layer(ones, 0.5, 1), lambda x: x]
print(*map(converted, drops))
"""
    command, quiet = [sys.executable, "-c", code], {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, env=quiet)
    sequence, constant, plain = done.stdout.splitlines()[-1].split()
    assert (sequence, constant) == ("True", "True"), done.stderr
    assert int(plain) > 0


@pytest.mark.parametrize("xla", [None, False], ids=["eager", "function"])
@pytest.mark.parametrize("name", ["ragged", "sparse", "slices"])
def test_tensors_that_are_more_than_memory(name: str, xla: bool | None) -> None:
    """An error with the remedy, which takes no mask, at p = 0 too."""
    import multidrop_tensorflow as backend
    import tensorflow as tf

    X = {
        "ragged": lambda: tf.ragged.constant([[1.0, 2.0], [3.0]]),
        "sparse": lambda: tf.sparse.from_dense(tf.eye(3)),
        "slices": lambda: tf.IndexedSlices(tf.ones((1, 2)), tf.constant([0]), tf.constant([4, 2])),
    }[name]()
    md.manual_seed(3)
    for call in (
        lambda X: md.dropout_layer(X, 0.5),
        lambda X: md.dropout_layer(X, 0.0),
        lambda X: backend.relu_dropout(X, 0.5),
        lambda X: md.apply(md.family.DropPath(0.5), X),
        lambda X: md.apply(md.family.ConcreteDropout(), tf.ones((4, 2)), learned=X),
    ):
        with pytest.raises(TypeError, match=r"(X|learned): expected a tensor of type .*to_tensor\(\) or tf\.sparse"):
            (call if xla is None else traced(call))(X)
    root = md.Key(3).fold_in("calls")
    assert np.array_equal(md.dropout_layer(tf.ones(64), 0.5), 2.0 * md.keep_mask(64, 0.5, md.Key(root.seed)))


def test_autograph_leaves_the_library_alone(caplog: pytest.LogCaptureFixture) -> None:
    """It would try to convert what it calls, and warn of what it cannot."""
    import multidrop_tensorflow as backend
    import tensorflow as tf

    layer = backend.Dropout(0.5, seed=1)

    @tf.function
    def both(X: Any) -> Any:
        return md.dropout_layer(X, 0.5, 1) + layer(X, training=True) + tf.cast(backend.keep_mask((4,), 0.5, 1), X.dtype)

    both(tf.ones((4,)))
    assert "AutoGraph" not in caplog.text


def test_without_what_is_not_public(monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorFlow may take back the function that records a gradient: then `tf.custom_gradient` does."""
    import multidrop_tensorflow as backend
    import tensorflow as tf

    monkeypatch.setattr(backend.internals, "record_operation", None)
    X = tf.ones((8, 8))

    def gradient(X: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(X)
            Y = md.dropout_layer(X, 0.5, 1)
        return tape.gradient(Y, X)

    for run in (gradient, traced(gradient), traced(gradient, jit_compile=True)):
        assert np.array_equal(run(X).numpy(), 2.0 * md.keep_mask((8, 8), 0.5, 1))


def test_an_empty_tensor_of_unknown_shape_draws_nothing() -> None:
    """Along shared axes too, where the mask of any other tensor is drawn for the rest."""
    import tensorflow as tf

    function = tf.function(lambda X: md.dropout_layer(X, 0.5, 1, axes=1), [tf.TensorSpec((None, None))])
    assert function(tf.zeros((2**40, 0))).shape == (2**40, 0)
    X = np.ones((5, 3), np.float32)
    assert np.array_equal(function(X), md.masks.dropout(X, 0.5, 1, 0, (1,)))
