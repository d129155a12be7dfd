"""What goes on where it was: runs that a new process resumes, compiled programs whose state is loaded, and forwards
that are recomputed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import resumed
from placed import array

import multidrop as md

pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning",  # torch's own, at its first compilation: it announces what it is about to change
    "ignore::UserWarning:torch",
)


def test_a_new_process_resumes(backend: Any, tmp_path: Path) -> None:
    """Weights and streams, bit for bit, of a run that was saved after three steps of six and of one without a break."""
    whole, broken = (resumed.run_of(backend.name, seed=5) for _ in range(2))
    whole.train(resumed.steps(0, 3))
    whole.train(resumed.steps(3, 6))
    broken.train(resumed.steps(0, 3))
    broken.save(tmp_path)
    command = [sys.executable, resumed.__file__, backend.name, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    expected = whole.result()
    with np.load(tmp_path / "result.npz") as result:
        assert sorted(result) == sorted(expected)
        for name in result:
            assert result[name].tobytes() == expected[name].tobytes(), name
    streams = [value for name, value in expected.items() if "stream" in name]
    assert streams
    step = 256 if backend.name == "tensorflow" else 1  # by which its generators count
    assert all(6 * step in stream.tolist() for stream in streams)


def torch_program(compiled: bool) -> tuple[Callable[[], np.ndarray], Any, Callable[[Any], Any]]:
    import torch
    from multidrop_torch import Dropout, Dropout2d

    class Image(torch.nn.Module):
        """`nn.Unflatten`, which torch.compile does not trace while torch has another default device."""

        def forward(self, X: Any) -> Any:
            return X.reshape(len(X), 8, 4, 4)

    torch.manual_seed(0)
    flat = torch.nn.Flatten()
    net = torch.nn.Sequential(
        torch.nn.Linear(16, 128), Dropout(0.5, seed=1), Image(), Dropout2d(0.5, seed=2), flat, torch.nn.ReLU()
    )
    run = torch.compile(net, fullgraph=True) if compiled else net
    X = torch.ones(4, 16)

    def state() -> Any:
        return {name: value.clone() for name, value in net.state_dict().items()}

    return lambda: array(run(X)), state, net.load_state_dict


def keras_program(jit: bool) -> tuple[Callable[[], np.ndarray], Any, Callable[[Any], Any]]:
    """A program that XLA compiles, or not."""
    import keras
    import tensorflow as tf
    from multidrop_tensorflow import Dropout

    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.layers.Input((16,)), keras.layers.Dense(64), Dropout(0.5, seed=1), Dropout(0.5, seed=2)]
    )
    run = tf.function(lambda X: model(X, training=True), jit_compile=jit)
    return lambda: run(tf.ones((4, 16))).numpy(), model.get_weights, model.set_weights


def gluon_program(hybridized: bool) -> tuple[Callable[[], np.ndarray], Any, Callable[[Any], Any]]:
    import mxnet as mx
    from multidrop_mxnet import Dropout

    mx.random.seed(0)
    net = mx.gluon.nn.HybridSequential()
    net.add(mx.gluon.nn.Dense(64, in_units=16), Dropout(0.5, seed=1), Dropout(0.5, seed=2))
    net.initialize()
    if hybridized:
        net.hybridize()

    def run() -> np.ndarray:
        with mx.autograd.record():
            return net(mx.nd.ones((4, 16))).asnumpy()

    def state() -> Any:
        return {name: p.data().copy() for name, p in net.collect_params().items()}

    def load(state: Any) -> None:
        for name, p in net.collect_params().items():
            p.set_data(state[name])

    return run, state, load


PROGRAMS = {"torch": torch_program, "tensorflow": keras_program, "mxnet": gluon_program}


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_goes_on_from_the_state_that_is_loaded(name: str, compiled: bool, need: Any) -> None:
    """Two runs give two masks, and the same two after the state before them is loaded again."""
    need(name)
    run, state, load = PROGRAMS[name](compiled)
    run()
    before = state()
    first, second = run(), run()
    assert not np.array_equal(first, second)
    load(before)
    assert np.array_equal(run(), first)
    assert np.array_equal(run(), second)


@pytest.mark.parametrize("jit", [False, True])
def test_a_fit_goes_on_from_the_weights_that_are_loaded(jit: bool, need: Any) -> None:
    """A compiled Keras model: each epoch has masks of its own, and the same ones from the same state."""
    need("tensorflow")
    import keras
    from multidrop_tensorflow import Dropout

    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.layers.Input((16,)), Dropout(0.5, seed=1), keras.layers.Dense(4)])
    model.compile(keras.optimizers.SGD(0.0), "mse", jit_compile=jit)
    X, Y = np.ones((8, 16), np.float32), np.zeros((8, 4), np.float32)

    def losses() -> list[float]:
        return model.fit(X, Y, epochs=3, verbose=0).history["loss"]

    losses()
    before = model.get_weights()
    first = losses()
    assert len(set(first)) == 3
    model.set_weights(before)
    assert losses() == first


def torch_net(seed: int | None) -> Any:
    import torch
    from multidrop_torch import Dropout, Dropout2d
    from torch import nn

    def key(number: int) -> int | None:
        return None if seed is None else seed + number

    torch.manual_seed(0)
    first = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), Dropout(0.5, seed=key(0)), nn.Linear(32, 32))
    second = nn.Sequential(nn.Unflatten(1, (8, 2, 2)), Dropout2d(0.5, seed=key(1)), nn.ReLU(), nn.Flatten())
    third = nn.Sequential(nn.Linear(32, 32), Dropout(0.25, seed=key(2)), nn.Tanh(), Dropout(0.25, seed=key(3)))
    return nn.Sequential(first, second, third, Dropout(0.5, seed=key(4)))


@pytest.mark.parametrize("how", ["parts", "nested", "sequential"])
@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("seed", [3, None])
def test_a_recomputed_forward_is_the_plain_one(how: str, reentrant: bool, seed: int | None, need: Any) -> None:
    """Outputs, gradients and streams over two steps, where parts of a net are recomputed for the backward pass."""
    need("torch")
    import torch
    from torch.utils.checkpoint import checkpoint, checkpoint_sequential

    def recomputed(part: Any, X: Any) -> Any:
        return checkpoint(part, X, use_reentrant=reentrant)

    def forward(net: Any, X: Any) -> Any:
        if how == "sequential":
            return checkpoint_sequential(net, 2, X, use_reentrant=reentrant)
        if how == "nested":
            return net[3](recomputed(lambda X: net[2](recomputed(lambda X: net[1](recomputed(net[0], X)), X)), X))
        return net[3](recomputed(net[2], recomputed(net[1], net[0](X))))

    def train(forward: Callable[[Any, Any], Any]) -> list[np.ndarray]:
        net, found = torch_net(seed), []
        for _ in range(2):
            X = torch.linspace(-1.0, 1.0, 48).reshape(6, 8).requires_grad_()
            Y = forward(net, X)
            Y.square().sum().backward()
            found += [Y.detach(), X.grad, *(p.grad.clone() for p in net.parameters())]
        return [array(x) for x in (*found, *net.state_dict().values())]

    plain = train(lambda net, X: net(X))
    assert all(np.array_equal(a, b) for a, b in zip(plain, train(forward), strict=True))


def test_what_tensorflow_recomputes_by_itself(need: Any) -> None:
    """With a key, the masks of the first time; without, an error, for nothing tells which call is recomputed."""
    need("tensorflow")
    import tensorflow as tf
    from multidrop_tensorflow import Dropout

    X = tf.reshape(tf.linspace(-1.0, 1.0, 48), (6, 8))

    def gradient(function: Callable[[Any], Any]) -> np.ndarray:
        with tf.GradientTape() as tape:
            tape.watch(X)
            L = tf.reduce_sum(function(X) ** 2)
        return tape.gradient(L, X).numpy()

    def keyed(X: Any) -> Any:
        return md.dropout_layer(tf.tanh(md.relu_dropout(X, 0.5, 1)), 0.5, 2)

    assert np.array_equal(gradient(tf.recompute_grad(keyed)), gradient(keyed))
    assert np.array_equal(gradient(tf.recompute_grad(tf.function(keyed))), gradient(keyed))
    for layer in (Dropout(0.5, seed=1), Dropout(0.5)):
        for way in (lambda f: f, tf.function):  # which is not traced again
            with pytest.raises(RuntimeError, match="expected a function whose masks are named by a key"):
                gradient(tf.recompute_grad(way(lambda X, layer=layer: layer(X, training=True))))


@pytest.mark.parametrize("nested", [False, True], ids=["", "nested"])
@pytest.mark.parametrize("way", ["eager", "function", "xla"])
def test_a_recomputed_function_is_the_plain_one(way: str, nested: bool, need: Any) -> None:
    """Outputs, gradients, also a second time from one tape, and streams over three steps, by layers that are keyed and
    by calls without a key, where a function that is recomputed is one of another."""
    need("tensorflow")
    import tensorflow as tf
    from multidrop_tensorflow import Dropout, recompute_grad

    X = tf.reshape(tf.linspace(-1.0, 1.0, 48), (6, 8))

    def plain(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        return function

    def run(recomputed: Callable[[Any], Any]) -> tuple[list[np.ndarray], list[list[int]]]:
        md.manual_seed(3)
        W, first, second = tf.Variable(tf.reshape(tf.linspace(-1.0, 1.0, 64), (8, 8))), Dropout(0.5), Dropout(0.3)
        within = recomputed if nested else plain

        def inner(X: Any) -> Any:
            return X + second(tf.tanh(md.dropout_layer(X, 0.5) @ W), training=True)

        def outer(X: Any) -> Any:
            X = within(inner)(first(X, training=True))
            return X + within(inner)(first(X, training=True))

        def step(X: Any) -> list[Any]:
            with tf.GradientTape(persistent=True) as tape:
                tape.watch(X)
                L = tf.reduce_sum(recomputed(outer)(recomputed(outer)(X)) ** 2)
            return [L, *tape.gradient(L, [X, W]), *tape.gradient(L, [X, W])]

        steps = {"eager": plain, "function": tf.function, "xla": tf.function(jit_compile=True)}[way](step)
        values = [value.numpy() for _ in range(3) for value in steps(X)]
        return values, [layer.stream.numpy().tolist() for layer in (first, second)]

    (expected, streams), (values, moved) = run(plain), run(recompute_grad)
    assert moved == streams
    for a, b in zip(values, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * np.abs(b).max())


@pytest.mark.parametrize("way", ["eager", "function"])
def test_programs_within_what_is_recomputed(way: str, need: Any) -> None:
    """Whose positions do not come out of them: an error, and never another mask for the gradient."""
    need("tensorflow")
    import tensorflow as tf
    from multidrop_tensorflow import Dropout, recompute_grad

    layer, X = Dropout(0.5, seed=1), tf.ones((4, 16))

    def drop(X: Any) -> Any:
        return layer(X, training=True)

    def gradient(function: Callable[[Any], Any]) -> tuple[Any, Any]:
        with tf.GradientTape() as tape:
            tape.watch(X)
            Y = function(X)
        return Y, tape.gradient(Y, X)

    def outer(function: Callable[[Any], Any]) -> tuple[Any, Any]:
        return gradient(function) if way == "eager" else tf.function(lambda: gradient(function))()

    traced = tf.function(drop)
    traced(X)
    with pytest.raises(TypeError, match=r"f: expected a function that is no tf.function, .*; got <"):
        recompute_grad(traced)
    within = {
        "function": lambda X: tf.function(drop)(X),
        "branch": lambda X: tf.cond(tf.reduce_sum(X) > 0.0, lambda: drop(X), lambda: X),
        "loop": lambda X: tf.while_loop(lambda n, _: n < 1, lambda n, X: (n + 1, drop(X)), (tf.constant(0), X))[1],
    }
    for what, function in within.items():
        if way == "eager" and what != "function":  # which Python runs
            Y, dX = outer(recompute_grad(function))
            assert np.array_equal(Y, dX)
            continue
        with pytest.raises(RuntimeError, match="drops in the program that it is recomputed in; got a dropout in a "):
            outer(recompute_grad(function))
    for function in (tf.function(recompute_grad(drop)), lambda X: tf.map_fn(recompute_grad(drop), X)):
        Y, dX = outer(function)
        assert np.array_equal(Y, dX)


def test_a_program_that_was_traced_before_it_is_recomputed(need: Any) -> None:
    """Runs without Python, so that nothing tells that it runs again: its gradient has another mask."""
    need("tensorflow")
    import tensorflow as tf
    from multidrop_tensorflow import Dropout, recompute_grad

    layer, X = Dropout(0.5, seed=1), tf.ones((4, 16))
    inner = tf.function(lambda X: layer(X, training=True))
    inner(X)
    with tf.GradientTape() as tape:
        tape.watch(X)
        Y = recompute_grad(lambda X: inner(X))(X)
    assert np.array_equal(Y, 2.0 * md.keep_mask(X.shape, 0.5, md.Key(1, 1)))
    assert np.array_equal(tape.gradient(Y, X), 2.0 * md.keep_mask(X.shape, 0.5, md.Key(1, 2)))


@pytest.mark.parametrize("seed", [1, None])
def test_a_scope_in_which_keras_recomputes(seed: int | None, need: Any) -> None:
    """`keras.RematScope` leaves a layer of this library alone; the gradient of one that contains it raises."""
    need("tensorflow")
    import keras
    import tensorflow as tf
    from multidrop_tensorflow import Dropout

    class Outer(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types
        def __init__(self) -> None:
            super().__init__()
            self.drop = Dropout(0.5, seed=seed)

        def call(self, X: Any) -> Any:
            return self.drop(X, training=True)

    with keras.RematScope(mode="full"):
        layer, outer = Dropout(0.5, seed=seed), Outer()
    X = tf.ones((4, 16))
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(X)
        Y, within = layer(X, training=True), outer(X)
    assert np.array_equal(Y, tape.gradient(Y, X))
    with pytest.raises(RuntimeError, match="expected a function whose masks are named by a key"):
        tape.gradient(within, X)


def test_a_recomputed_function_drops_as_often_as_at_first(need: Any) -> None:
    need("tensorflow")
    import tensorflow as tf
    from multidrop_tensorflow import Dropout, recompute_grad

    layer, times = Dropout(0.5, seed=1), iter([1, 2])

    def function(X: Any) -> Any:
        for _ in range(next(times)):
            X = layer(X, training=True)
        return X

    X = tf.ones((4, 4))
    with tf.GradientTape() as tape:
        tape.watch(X)
        Y = recompute_grad(function)(X)
    with pytest.raises(RuntimeError, match="drops as often when it is recomputed as at first, 1 times; got one more"):
        tape.gradient(Y, X)
