"""Gradients through TensorFlow's programs: of gradients, of parts of programs, and what they keep in memory."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest
from tensorflow_programs import taped, traced

import multidrop as md
from multidrop.host import memory


@pytest.fixture(autouse=True)
def tensorflow(need: Any) -> None:
    need("tensorflow")


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
