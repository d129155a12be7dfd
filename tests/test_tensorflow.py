"""What is TensorFlow's alone: the kernel as an operator of its graphs, gradients without `tf.custom_gradient`, and
what programs do that hold the operator."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import multidrop as md
from multidrop.host import memory


@pytest.fixture(autouse=True)
def tensorflow(need: Any) -> None:
    need("tensorflow")


def traced(function: Any, **options: Any) -> Any:
    import tensorflow as tf

    return tf.function(function, autograph=False, **options)


def operators(function: Any, *arguments: Any) -> set[str]:
    return {node.type for node in function.get_concrete_function(*arguments).graph.get_operations()}


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


@pytest.mark.parametrize("signature", [(None,), (None, 3), (2, None, 3, None), (0, None), (5, 1), (), None])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_shapes_that_xla_learns_when_it_compiles(dtype: str, signature: tuple[int | None, ...] | None) -> None:
    import tensorflow as tf

    spec = [tf.TensorSpec(signature, dtype)]
    dropout = traced(lambda X: md.dropout_layer(X, 0.5, 1, start=2**63 + 5), jit_compile=True, input_signature=spec)
    for number in (1, 2, 300):
        shape = tuple(number if size is None else size for size in signature or ())
        expected = 2.0 * md.keep_mask(shape, 0.5, 1, start=2**63 + 5)
        assert np.array_equal(tf.cast(dropout(tf.ones(shape, dtype)), tf.float64).numpy(), expected)


def test_a_call_of_xlas_without_the_sizes() -> None:
    """XLA hands over what it has not looked at before, and where it knew the result's shape, not the sizes."""
    from ctypes import POINTER, c_int64, pointer, sizeof

    from multidrop_tensorflow import position, xla

    key, X, Y = md.Key(7, 2**63), np.ones(20, np.float32), np.zeros(20, np.float32)
    settings = np.array([np.float64(0.5).view(np.int64), 3])
    parts = [(X, 11), (position.words_of(key), 5), (settings, 5), (Y, 11)]
    buffers = [
        xla._BUFFER(sizeof(xla._BUFFER), None, code, part.ctypes.data, 1, (c_int64 * 1)(part.size))
        for part, code in parts
    ]
    given, result = (POINTER(xla._BUFFER) * 4)(*map(pointer, buffers[:3])), pointer(pointer(buffers[3]))
    api = xla._sized(xla._API)
    api.create_error = type(api.create_error)(lambda error: pytest.fail(error.contents.message.decode()) or 0)
    call = xla._sized(xla._CALL, api=pointer(api))
    call.arguments.count, call.arguments.items = 3, given  # behind which lies what is no buffer
    call.results.count, call.results.items = 1, result
    assert xla._handler(pointer(call)) is None
    assert np.array_equal(Y, 2.0 * md.keep_mask(20, 0.5, key, start=3))


def test_a_gradient_under_xla() -> None:
    import tensorflow as tf
    from multidrop_tensorflow import Dropout

    layer = Dropout(0.5, seed=3)

    @tf.function(jit_compile=True)
    def gradient(X: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(X)
            Y = layer(X, training=True)
        return Y, tape.gradient(Y, X)

    for call in range(3):
        Y, dX = gradient(tf.ones(100))
        assert np.array_equal(Y.numpy(), dX.numpy())
        assert np.array_equal(Y.numpy(), 2.0 * md.keep_mask(100, 0.5, md.Key(3, call)))


def test_a_function_that_was_traced_for_xla_runs_without() -> None:
    import tensorflow as tf

    inner = tf.function(lambda X: md.dropout_layer(X, 0.5, 1))
    outer = tf.function(lambda X: inner(X), jit_compile=True)
    for size in (7, 2**20):
        expected = 2.0 * md.keep_mask(size, 0.5, 1)
        for function in (outer, inner):
            assert np.array_equal(function(tf.ones(size)).numpy(), expected)


def test_a_function_that_was_traced_without_xla_is_traced_anew_for_it() -> None:
    import tensorflow as tf

    X, expected = tf.ones(7), 2.0 * md.keep_mask(7, 0.5, 1)
    inner = traced(lambda X: md.dropout_layer(X, 0.5, 1))
    inner(X)
    with pytest.raises(tf.errors.InvalidArgumentError, match="MultidropDropout"):
        traced(lambda X: inner(X), jit_compile=True)(X)
    for function in (inner.python_function, traced(inner.python_function)):
        assert np.array_equal(traced(lambda X, f=function: f(X), jit_compile=True)(X).numpy(), expected)


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


@pytest.mark.parametrize("xla", [False, True], ids=["function", "xla"])
def test_a_fault_in_the_operator_is_raised_where_it_is_run(xla: bool) -> None:
    code = f"""
import tensorflow as tf, multidrop as md
f = tf.function(lambda X: md.dropout_layer(X, 0.5, 1), autograph=False, jit_compile={xla})
f(tf.ones(16))
try:
    f(tf.ones(2**20))
except tf.errors.OpError as error:
    print(error.message)
print(int(tf.math.count_nonzero(f(tf.ones(16)))) > 0)
"""
    environment = {"MULTIDROP_NUM_THREADS": "many", "PATH": "", "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert "MULTIDROP_NUM_THREADS: expected" in done.stdout
    assert done.stdout.splitlines()[-1] == "True"


@pytest.mark.parametrize("run", [lambda f: f, traced], ids=["eager", "function"])
def test_gradients_of_gradients(run: Any) -> None:
    """Of (x m)³: 3 (x m)² m, then 6 x m³; reverse over reverse, and forward over reverse."""
    import tensorflow as tf

    m = 2.0 * md.keep_mask((64,), 0.5, 1).astype(np.float32)
    X = tf.linspace(1.0, 2.0, 64)

    def cube(X: Any) -> Any:
        return md.dropout_layer(X, 0.5, 1) ** 3

    def reverse(X: Any) -> Any:
        with tf.GradientTape() as outer:
            outer.watch(X)
            with tf.GradientTape() as inner:
                inner.watch(X)
                Y = cube(X)
            first = inner.gradient(Y, X)
        return first, outer.gradient(first, X)

    def forward(X: Any) -> Any:
        with tf.autodiff.ForwardAccumulator(X, tf.ones_like(X)) as accumulator:
            with tf.GradientTape() as tape:
                tape.watch(X)
                Y = cube(X)
            first = tape.gradient(Y, X)
        return accumulator.jvp(Y), accumulator.jvp(first)

    first, second = run(reverse)(X)
    assert np.allclose(first, 3 * X.numpy() ** 2 * m**3)
    assert np.allclose(second, 6 * X.numpy() * m**3)
    along, second = run(forward)(X)
    assert np.allclose(along, 3 * X.numpy() ** 2 * m**3)
    assert np.allclose(second, 6 * X.numpy() * m**3)


def test_a_gradient_through_a_traced_function() -> None:
    """Whose gradient TensorFlow builds from the operators that it holds."""
    import tensorflow as tf

    dropout = traced(lambda X: md.dropout_layer(X, 0.5, 1))
    X = tf.ones((8, 8))
    with tf.GradientTape() as tape:
        tape.watch(X)
        Y = dropout(X)
    assert np.array_equal(tape.gradient(Y, X).numpy(), 2.0 * md.keep_mask((8, 8), 0.5, 1))


def taped(function: Any, X: Any) -> tuple[Any, Any]:
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(X)
        Y = function(X)
    return Y, tape.gradient(Y, X)


def in_cond(drop: Any) -> Any:
    import tensorflow as tf

    return lambda X: tf.cond(tf.reduce_sum(X) > 0.0, lambda: drop(X), lambda: X)


def in_while(drop: Any) -> Any:
    import tensorflow as tf

    return lambda X: tf.while_loop(lambda i, Y: i < 2, lambda i, Y: (i + 1, drop(Y)), (0, X), maximum_iterations=2)[1]


def in_map(drop: Any) -> Any:
    import tensorflow as tf

    return lambda X: tf.map_fn(drop, X)


def in_vectorized_map(drop: Any) -> Any:
    import tensorflow as tf

    return lambda X: tf.vectorized_map(drop, X)


@pytest.mark.parametrize("xla", [False, True], ids=["function", "xla"])
@pytest.mark.parametrize("layer", [False, True], ids=["key", "layer"])
@pytest.mark.parametrize("part", [in_cond, in_while, in_map, in_vectorized_map])
def test_gradients_of_parts_of_programs(part: Any, layer: bool, xla: bool) -> None:
    """Which TensorFlow takes of the operators that they hold."""
    import tensorflow as tf
    from multidrop_tensorflow import Dropout

    drop = Dropout(0.5, seed=3) if layer else lambda X, training: md.dropout_layer(X, 0.5, 3)
    run = traced(lambda X: taped(part(lambda X: drop(X, training=True)), X), jit_compile=xla)
    Y, dX = (tensor.numpy() for tensor in run(tf.ones((4, 64))))
    assert np.array_equal(Y, dX)
    assert 0 < np.count_nonzero(Y) < Y.size


@pytest.mark.parametrize("xla", [False, True], ids=["function", "xla"])
@pytest.mark.parametrize("outer", [lambda f: f, traced], ids=["eager", "function"])
def test_gradients_outside_of_the_program(outer: Any, xla: bool) -> None:
    """Of a dropout, of an `AlphaDropout`, and of a gradient."""
    import tensorflow as tf
    from multidrop_tensorflow import AlphaDropout

    X, mask = tf.ones((4, 64)), 2.0 * md.keep_mask((4, 64), 0.5, 3, start=2**63)
    drop = lambda X: md.dropout_layer(X, 0.5, 3, start=2**63)  # noqa: E731  # as the program that is traced
    dropout, cube = traced(drop, jit_compile=xla), traced(lambda X: drop(X) ** 3, jit_compile=xla)
    for tensor in outer(lambda X: taped(dropout, X))(X):
        assert np.array_equal(tensor.numpy(), mask)
    second = outer(lambda X: taped(lambda X: taped(cube, X)[1], X))(X)
    assert np.allclose(second[0], 3 * mask**3)
    assert np.allclose(second[1], 6 * mask**3)
    layer = AlphaDropout(0.5, seed=3)
    alpha = traced(lambda X: layer(X, training=True), jit_compile=xla)
    Y, dX = (tensor.numpy() for tensor in outer(lambda X: taped(alpha, X))(X))
    assert np.array_equal(Y > 0, dX != 0)
    assert 0 < np.count_nonzero(dX) < dX.size


@pytest.mark.parametrize("xla", [False, True], ids=["function", "xla"])
def test_a_gradient_where_training_is_a_tensor(xla: bool) -> None:
    import tensorflow as tf
    from multidrop_tensorflow import Dropout

    layer = Dropout(0.5, seed=3)
    run = traced(lambda X, training: taped(lambda X: layer(X, training=training), X), jit_compile=xla)
    for training in (True, False):
        Y, dX = run(tf.ones(64), tf.constant(training))
        assert np.array_equal(Y.numpy(), dX.numpy())
        assert np.array_equal(Y.numpy(), 2.0 * md.keep_mask(64, 0.5, md.Key(3)) if training else np.ones(64))


@pytest.mark.parametrize("xla", [False, True], ids=["function", "xla"])
@pytest.mark.parametrize("way", ["loop", "map", "cell", "function"])
def test_keras_trains_what_it_differentiates_as_a_graph(way: str, xla: bool) -> None:
    """By the mask of the output: the weight's gradient is what was kept of its inputs, of ones."""
    import keras
    import tensorflow as tf
    from multidrop_tensorflow import Dropout

    class Cell(keras.layers.Layer):
        state_size = 64

        def __init__(self, layer: Any) -> None:
            super().__init__()
            self.layer = layer

        def call(self, x: Any, states: Any) -> Any:
            y = self.layer(x, training=True)
            return y, [y]

    class Model(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.dropout = Dropout(0.5, seed=3)
            if way == "cell":
                self.recurrent = keras.layers.RNN(Cell(self.dropout))
            self.weight = self.add_weight(shape=(64,), initializer="ones")
            self.call_traced = traced(self.drop)

        def drop(self, x: Any) -> Any:
            return self.dropout(x, training=True)

        def call(self, x: Any) -> Any:
            x = x * self.weight
            if way == "loop":
                loop = (lambda i, y: i < 1, lambda i, y: (i + 1, self.drop(y)), (0, x))
                return keras.ops.while_loop(*loop, maximum_iterations=1)[1]
            if way == "map":
                return keras.ops.vectorized_map(self.drop, x)
            return self.recurrent(x[:, tf.newaxis]) if way == "cell" else self.call_traced(x)

    model = Model()
    model.compile(keras.optimizers.SGD(1.0), lambda y, output: tf.reduce_sum(output), jit_compile=xla)
    model.fit(np.ones((1, 64), np.float32), np.zeros((1, 64), np.float32), verbose=0)
    kept = {tuple(2.0 * md.keep_mask(64, 0.5, md.Key(3, call))) for call in range(4)}  # some are taken to build it
    assert tuple(1.0 - model.weight.numpy()) in kept


def test_an_eager_gradient_keeps_no_tensor() -> None:
    """The output's memory is free again while the tape still waits for its gradient."""
    import tensorflow as tf

    memory.release_memory()
    X = tf.ones((memory.LARGE // 4,))
    with tf.GradientTape() as tape:
        tape.watch(X)
        Y = md.dropout_layer(X, 0.5, 1)
        Z = -Y  # whose own gradient needs no tensor
        assert len(memory._free) == 0
        del Y
        gc.collect()
        assert len(memory._free) == 1
    assert np.array_equal(tape.gradient(Z, X).numpy(), -2.0 * md.keep_mask(X.shape[0], 0.5, 1))


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
import numpy as np, tensorflow as tf, multidrop as md, multidrop_tensorflow
Y = tf.saved_model.load({str(tmp_path)!r}).dropout(tf.ones((4, 8)))
print(np.array_equal(Y.numpy(), 2.0 * md.keep_mask((4, 8), 0.5, 1)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "True", done.stderr


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


@pytest.fixture(params=["float32", "float64"])
def concise(request: pytest.FixtureRequest) -> Any:
    """A net of `concise_net` that has begun to train."""
    with md.use_backend("tensorflow"):
        net = md.concise_net(16, 3, 8, 8, seed=4, dtype=request.param)
    net(examples(), training=True)
    return net


def examples() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(5, 1, 4, 4))


def test_the_concise_net_is_saved_whole(concise: Any, tmp_path: Path) -> None:
    """Weights and streams; and it takes images and rows, in its own type, as before."""
    import keras

    concise.save(tmp_path / "net.keras")
    loaded, x = keras.models.load_model(tmp_path / "net.keras"), examples()
    assert type(loaded) is type(concise)
    assert loaded.autocast is False
    for X in (x, x.reshape(5, 16)):
        assert np.array_equal(loaded(X), concise(X))
        Y = concise(X, training=True)
        assert np.array_equal(loaded(X, training=True), Y)
        assert Y.dtype == concise.layers[0].compute_dtype
    assert not np.array_equal(concise(x, training=True), Y)


def test_the_concise_net_is_built_again(concise: Any) -> None:
    """From its configuration, with streams at the start; then by `keras.models.clone_model`, which makes a plain
    `Sequential` of it, that takes rows alone."""
    import keras

    x = examples()
    again = type(concise).from_config(concise.get_config())
    again.set_weights(concise.get_weights())
    assert np.array_equal(again(x, training=True), concise(x, training=True))
    if concise.layers[0].compute_dtype == "float64":
        return  # which a plain `Sequential` casts to float32
    clone = keras.models.clone_model(concise)
    clone.set_weights(concise.get_weights())
    rows = x.reshape(5, 16).astype(np.float32)
    assert np.array_equal(clone(rows, training=True), concise(rows, training=True))


@pytest.mark.parametrize("seed", [None, 3])
def test_layers_have_the_arguments_of_keras(seed: int | None) -> None:
    """Of each: those of its own, by the same names and in the same places; and what can be asked of it afterwards."""
    import inspect

    import keras
    import multidrop_tensorflow as backend

    spatial = ("SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D")
    for name in ("Dropout", "AlphaDropout", *spatial, "GaussianDropout"):
        ours, theirs = getattr(backend, name), getattr(keras.layers, name)
        own = [argument for argument in inspect.signature(theirs).parameters if argument != "kwargs"]
        assert list(inspect.signature(ours).parameters)[: len(own)] == own
        layer = ours(0.25, seed=seed, name="its_name", dtype="float64")
        assert (layer.rate, layer.seed, layer.name, layer.compute_dtype) == (0.25, seed, "its_name", "float64")
        configuration = theirs(0.25, seed=seed, name="its_name", dtype="float64").get_config()
        assert set(configuration) <= set(layer.get_config())
        assert ours.from_config(configuration).get_config() == layer.get_config()


def test_an_empty_tensor_of_unknown_shape_draws_nothing() -> None:
    """Along shared axes too, where the mask of any other tensor is drawn for the rest."""
    import tensorflow as tf

    function = tf.function(lambda X: md.dropout_layer(X, 0.5, 1, axes=1), [tf.TensorSpec((None, None))])
    assert function(tf.zeros((2**40, 0))).shape == (2**40, 0)
    X = np.ones((5, 3), np.float32)
    assert np.array_equal(function(X), md.masks.dropout(X, 0.5, 1, 0, (1,)))


def test_versions_of_xla(need: Any) -> None:
    """A version whose structures are not known is refused, and not read wrongly."""
    need("tensorflow")
    from multidrop_tensorflow import xla

    assert xla._registered, "XLA refused the handler: see what changed in xla/ffi/api/c_api.h, then KNOWN_VERSIONS"
    assert xla.answered((0, 1)) == (0, 1)
    for other in ((0, 3), (1, 0)):
        assert xla.answered(other) != other


def test_xla_refuses_a_handler_of_another_version(need: Any) -> None:
    need("tensorflow")
    code = """
import multidrop_tensorflow
from multidrop_tensorflow import xla
xla.KNOWN_VERSIONS, xla._TARGET = ((9, 9),), "multidrop_of_another_version"
xla._register()
assert not xla._registered
"""
    quiet = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=quiet)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "XLA's calls are of version" in done.stderr
