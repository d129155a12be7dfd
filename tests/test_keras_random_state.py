"""The random state of layers without a key, which is that of Keras' own layers: each program runs with both."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import multidrop as md

KINDS = {
    "Dropout": (0.5,),
    "SpatialDropout1D": (0.5,),
    "AlphaDropout": (0.5,),
    "GaussianDropout": (0.5,),
    "GaussianNoise": (0.5,),
}
every_kind = pytest.mark.parametrize("name", KINDS)
every_home = pytest.mark.parametrize("home", ["keras", "multidrop"])
every_way = pytest.mark.parametrize("xla", [None, False, True], ids=["eager", "function", "xla"])


@pytest.fixture(autouse=True)
def ours(need: Any) -> Any:
    return need("tensorflow")


def build(home: str, name: str = "Dropout", *settings: Any) -> Any:
    """A layer of Keras, or of this library, without a seed."""
    import keras
    import multidrop_tensorflow

    return getattr(keras.layers if home == "keras" else multidrop_tensorflow, name)(*(settings or KINDS[name]))


def as_program(function: Callable[..., Any], xla: bool | None) -> Callable[..., Any]:
    import tensorflow as tf

    return function if xla is None else tf.function(function, autograph=False, jit_compile=xla)


@every_home
@every_kind
def test_an_iterator_that_begins_anew(home: str, name: str) -> None:
    """Draws new masks in each epoch, and the same ones again after the same seed."""
    import keras
    import tensorflow as tf

    def epochs() -> list[bytes]:
        keras.utils.set_random_seed(3)
        layer = build(home, name)
        rows = tf.data.Dataset.range(2).map(lambda i: layer(tf.ones((4, 4, 4)), training=True))
        return [row.numpy().tobytes() for _ in range(2) for row in rows]

    first = epochs()
    assert len(set(first)) == 4
    assert epochs() == first


@every_home
@pytest.mark.parametrize("jit", [False, True])
def test_compiling_again_between_fits_changes_nothing(home: str, jit: bool) -> None:
    import keras

    def losses(again: bool) -> list[float]:
        keras.utils.set_random_seed(3)
        model = keras.Sequential([keras.Input((8,)), build(home), keras.layers.Dense(1)])
        found = []
        for _ in range(2):
            if again or not found:
                model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=jit)
            found += model.fit(np.ones((8, 8)), np.ones(8), verbose=0).history["loss"]
        return found

    first = losses(again=False)
    assert len(set(first)) == 2
    assert losses(again=True) == first


AFTER_A_SEED = """
import keras, numpy as np
import multidrop_tensorflow
keras.utils.set_random_seed(5)
layers = [multidrop_tensorflow.Dropout(0.5), multidrop_tensorflow.GaussianNoise(0.5)]
found = [layer(np.ones((1, 32), "float32"), training=True).numpy().tolist() for layer in layers]
"""


def test_a_seed_repeats_in_another_process() -> None:
    here: dict[str, Any] = {}
    exec(AFTER_A_SEED, here)
    command = [sys.executable, "-c", f"{AFTER_A_SEED}\nprint(found)"]
    there = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert there.strip() == str(here["found"])
    exec(AFTER_A_SEED, again := {})
    assert again["found"] == here["found"]


@every_kind
def test_the_state_is_that_of_keras(name: str) -> None:
    """A generator with the seed that Keras' own layer would have, and no weight; its call counts as Keras' does."""
    import keras

    found = []
    for home in ("keras", "multidrop"):
        keras.utils.set_random_seed(3)
        layer = build(home, name)
        for call in range(3):
            found.append((layer.seed_generator.state.numpy().tolist(), random.getstate()))
            assert found[-1][0][1] == call
            layer(np.ones((2, 4, 4), np.float32), training=True)
        assert layer.weights == []
        assert [variable.shape for variable in layer.variables] == [(2,)]
    assert found[:3] == found[3:]


@every_way
def test_the_state_names_the_masks(xla: bool | None) -> None:
    """`Key(seed, counter)`, for a seed and a counter of any size, as 64-bit words."""
    import tensorflow as tf

    layer = build("multidrop")
    run, X = as_program(lambda X: layer(X, training=True), xla), tf.ones((8, 8))
    for seed, call in ((7, 0), (2**30, 2**31), (-1, -3)):
        layer.seed_generator.state.assign([seed, call])
        for number in (call, call + 1):
            key = md.Key(seed % 2**64, number % 2**64)
            assert np.array_equal(run(X), 2.0 * md.keep_mask((8, 8), 0.5, key))
            assert md.last_mask(layer, (8, 8)).key == key


@every_way
def test_without_state(xla: bool | None) -> None:
    """A stateless call takes the generator's state that it is given, and gives the next; the layer's own stays."""
    import keras
    import tensorflow as tf

    layer = build("multidrop")
    model = keras.Sequential([keras.Input((8,)), layer])
    own, state = layer.seed_generator.state.numpy(), [tf.constant([5, 0], tf.int64)]
    run = as_program(lambda X, state: model.stateless_call([], state, X, training=True), xla)
    for call in range(2):
        Y, state = run(tf.ones((8, 8)), state)
        assert np.array_equal(Y, 2.0 * md.keep_mask((8, 8), 0.5, md.Key(5, call)))
    assert np.array_equal(layer.seed_generator.state, own)


def drop_connect(ours: Any) -> Any:
    import keras

    return ours.DropConnect(keras.layers.Dense(8, kernel_initializer="identity"), 0.0)


IDLE_LAYERS = {
    "dropout": lambda ours: ours.Dropout(0.0),
    "evaluation": lambda ours: ours.Dropout(0.5),
    "noise": lambda ours: ours.GaussianNoise(0.0),
    "member": lambda ours: ours.DropPath(0.0),
    "weights": drop_connect,
}
IDLE_CALLS = {
    "function": lambda X: md.dropout_layer(X, 0.0),
    "relu": lambda X: md.relu_dropout(X, 0.0),
    "apply": lambda X: md.apply(md.family.AlphaDropout(0.0), X),
}


@pytest.mark.parametrize("name", [*IDLE_LAYERS, *IDLE_CALLS])
@every_way
def test_what_drops_nothing_takes_nothing(ours: Any, name: str, xla: bool | None) -> None:
    """No generator moves: not Python's, nor TensorFlow's, nor a layer's own; what is drawn next is as without it."""
    import tensorflow as tf

    layer = IDLE_LAYERS[name](ours) if name in IDLE_LAYERS else None
    call = IDLE_CALLS[name] if layer is None else lambda X: layer(X, training=name != "evaluation")
    X = tf.ones((2, 8))
    call(X)  # which builds what is to be built
    states = [variable.numpy() for variable in layer.variables] if layer else []
    if xla:  # whose own generator no seed governs
        graph = tf.function(call, autograph=False, jit_compile=True).get_concrete_function(X).graph
        assert "RandomUniformInt" not in {node.type for node in graph.get_operations()}

    def drawn(call: Callable[..., Any]) -> tuple[Any, ...]:
        tf.random.set_seed(3)
        random.seed(3)
        Y, other = as_program(lambda X: (call(X), tf.random.uniform((4,))), False if xla else xla)(X)
        assert np.array_equal(Y, X)
        return other.numpy().tolist(), tf.random.uniform((4,)).numpy().tolist(), random.random()

    assert drawn(call) == drawn(lambda X: X)
    assert all(np.array_equal(v, state) for v, state in zip(layer.variables if layer else [], states, strict=True))


@pytest.mark.parametrize("name", ["Dropout", "GaussianDropout", "GaussianNoise"])
def test_a_layer_at_zero_has_no_generator(name: str) -> None:
    """As Keras' own; it gets one when its rate is raised."""
    import tensorflow as tf

    before = random.getstate()
    layers = [build(home, name, 0.0) for home in ("keras", "multidrop")]
    assert random.getstate() == before
    assert [layer.variables for layer in layers] == [[], []]
    ours = layers[1]
    setattr(ours, "stddev" if name == "GaussianNoise" else "rate", 0.5)
    X = tf.ones((4, 8))
    assert not np.array_equal(ours(X, training=True), ours(X, training=True))
    assert len(ours.variables) == 1


@every_way
def test_a_keyed_layer_takes_its_call_whatever_p_is(ours: Any, xla: bool | None) -> None:
    import tensorflow as tf

    layer, X = ours.Dropout(0.0, seed=1), tf.ones((2, 8))
    run = as_program(lambda X: layer(X, training=True), xla)
    for call in range(2):
        assert np.array_equal(run(X), X)
        assert md.last_mask(layer, (2, 8)).key == md.Key(1, call)
    md.manual_seed(2)
    call = as_program(lambda X: md.dropout_layer(X, 0.0), xla)
    call(X)
    root = md.Key(2).fold_in("calls")
    assert np.array_equal(md.dropout_layer(X, 0.5), 2.0 * md.keep_mask((2, 8), 0.5, md.Key(root.seed, 1)))


def test_a_converted_model_goes_on_with_the_generators_of_keras() -> None:
    """`convert` without a seed draws nothing, and leaves each layer its own generator; `restore` gives it back."""
    import keras

    model = keras.Sequential([keras.Input((8,)), keras.layers.Dropout(0.5), keras.layers.Dropout(0.0)])
    x = np.ones((2, 8), np.float32)
    model(x, training=True)
    generator, before = model.layers[0].seed_generator, random.getstate()
    for seed in (None, 1):
        md.convert(model, seed=seed)
        model(x, training=True)
        assert md.restore(model) == 2
        assert random.getstate() == before
        assert model.layers[0].seed_generator is generator
        assert "seed_generator" not in vars(model.layers[1])
        assert [v.shape for v in model.variables] == [(2,)]
    assert generator.state.numpy()[1] == 2  # once by Keras' layer, once by this library's


def test_replicas() -> None:
    """Have equal states, which advance as those of Keras' own layers do, in and out of a replica's run."""
    code = """
import keras, numpy as np, tensorflow as tf
import multidrop_tensorflow
(cpu,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
strategy, ones, states = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]), tf.ones((4, 8)), []
for home in (keras.layers, multidrop_tensorflow):
    keras.utils.set_random_seed(3)
    with strategy.scope():
        layer = home.Dropout(0.5)
    call = lambda: layer(ones, training=True)
    call()
    for run in (strategy.run, tf.function(strategy.run, autograph=False)):
        first, second = run(call).values
        assert np.array_equal(first, second)
    states.append([value.numpy().tolist() for value in layer.seed_generator.state.value.values])
assert states[0] == states[1]
assert states[0][0][1] >= 3
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
