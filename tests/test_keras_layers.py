"""The Keras layers, in the place of Keras' own: arguments, masks, what is saved and built again."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drop_in import images
from named import named

import multidrop as md
from multidrop.spec import masks


@pytest.fixture(autouse=True)
def tensorflow(need: Any) -> None:
    need("tensorflow")


class TestKeras:
    def test_arguments(self) -> None:
        """Each that Keras' layers have, in their order, and no other one."""
        import keras
        import multidrop_tensorflow

        names = [name for name in dir(keras.layers) if "Dropout" in name or name == "GaussianNoise"]
        assert len(names) >= 5
        for name in names:
            ours, theirs = (inspect.signature(getattr(of, name)) for of in (multidrop_tensorflow, keras.layers))
            ours.bind(**dict.fromkeys(theirs.parameters))
            shared = [parameter for parameter in ours.parameters if parameter != "kwargs"]
            assert shared == [parameter for parameter in theirs.parameters if parameter in shared]
        with pytest.raises(TypeError, match="data_format"):
            multidrop_tensorflow.SpatialDropout1D(0.5, data_format="channels_first")

    CASES = (
        ("Dropout", {"noise_shape": (None, 1, 1, 6)}, (4, 5, 5, 6), (1, 2)),
        ("Dropout", {"noise_shape": [4, 1, 5, 6]}, (4, 5, 5, 6), (1,)),
        ("SpatialDropout1D", {}, (4, 5, 6), (1,)),
        ("SpatialDropout2D", {}, (4, 5, 5, 6), (1, 2)),
        ("SpatialDropout2D", {"data_format": "channels_first"}, (4, 6, 5, 5), (2, 3)),
        ("SpatialDropout3D", {"data_format": "channels_last"}, (2, 2, 3, 5, 6), (1, 2, 3)),
    )

    @pytest.mark.parametrize(("name", "settings", "shape", "axes"), CASES)
    def test_masks(self, name: str, settings: dict[str, Any], shape: tuple[int, ...], axes: tuple[int, ...]) -> None:
        """The mask of the specification, drawn for the smaller shape; eager, traced and under XLA."""
        import multidrop_tensorflow
        import tensorflow as tf

        layer = getattr(multidrop_tensorflow, name)(0.3, seed=7, **settings)
        x = images(shape)
        traced = [tf.function(lambda X: layer(X, training=True), jit_compile=xla) for xla in (False, True)]
        for call, run in enumerate((lambda X: layer(X, training=True), *traced)):
            assert np.array_equal(run(tf.constant(x)).numpy(), masks.dropout(x, 0.3, md.Key(7, call), axes=axes))
        assert np.array_equal(layer(x, training=False), x)
        again = type(layer).from_config(layer.get_config())
        assert np.array_equal(again(x, training=True), masks.dropout(x, 0.3, md.Key(7), axes=axes))

    @pytest.mark.parametrize("name", ["Dropout", "GaussianNoise"])
    def test_a_variable(self, name: str) -> None:
        """Is as its value, and has a gradient."""
        import keras
        import multidrop_tensorflow
        import tensorflow as tf

        kind, x = getattr(multidrop_tensorflow, name), images((4, 6))
        expected = kind(0.5, seed=1)(x, training=True)
        for X in (tf.Variable(x), keras.Variable(x)):
            layer = kind(0.5, seed=1)
            with tf.GradientTape() as tape:
                Y = layer(X, training=True)
            assert np.array_equal(Y, expected)
            assert tape.gradient(Y, X.value if isinstance(X, keras.Variable) else X) is not None
            assert np.array_equal(layer(X, training=False), x)

    @pytest.mark.parametrize("training", [True, False])
    def test_what_is_no_tensor(self, training: bool) -> None:
        """Is an error in both modes, and takes no call."""
        import multidrop_tensorflow
        import tensorflow as tf

        tensors = [tf.ragged.constant([[1.0, 2.0], [3.0]]), tf.sparse.from_dense(tf.ones((2, 2)))]
        for kind in (multidrop_tensorflow.Dropout, multidrop_tensorflow.GaussianNoise):
            layer = kind(0.5, seed=1)
            for bad in (*tensors, [tf.ones(2)], {"a": tf.ones(2)}, None):
                with pytest.raises(TypeError, match=r"(?s)X: expected a tensor of type .*; got .*: convert it with"):
                    layer(bad, training=training)
            assert np.array_equal(layer(images(), training=True), kind(0.5, seed=1)(images(), training=True))

    def test_a_shape_that_is_not_known(self) -> None:
        import multidrop_tensorflow
        import tensorflow as tf

        layer = multidrop_tensorflow.SpatialDropout2D(0.3, seed=7)
        run = tf.function(lambda X: layer(X, training=True))
        x = images((4, 5, 5, 6))
        Y = run.get_concrete_function(tf.TensorSpec((None, None, None, 6)))(tf.constant(x))
        assert np.array_equal(Y.numpy(), masks.dropout(x, 0.3, 7, axes=(1, 2)))

    @pytest.mark.parametrize("bad", ["112", 3, (0, 1), (1.0, 1), ()], ids=named)
    def test_bad_noise_shapes(self, bad: Any) -> None:
        import multidrop_tensorflow

        with pytest.raises(ValueError, match="noise_shape: expected an integer above 0 or None for each dimension"):
            multidrop_tensorflow.Dropout(0.5, noise_shape=bad)

    def test_a_noise_shape_that_does_not_fit(self) -> None:
        import multidrop_tensorflow

        layer = multidrop_tensorflow.Dropout(0.5, noise_shape=(1, 7), seed=1)
        with pytest.raises(ValueError, match=r"noise_shape: expected 1, None or the size of each dimension"):
            layer(images((4, 6)), training=True)

    def test_alpha_dropout_keeps_mean_and_variance(self) -> None:
        import multidrop_tensorflow

        x = images((1000, 1000))
        y = multidrop_tensorflow.AlphaDropout(0.2, seed=1)(x, training=True).numpy()
        assert abs(y.mean()) < 0.01
        assert abs(y.var() - 1) < 0.01

    def test_alpha_dropout_is_that_of_torch(self, need: Any) -> None:
        need("torch")
        import multidrop_tensorflow
        import multidrop_torch
        import torch

        x = images((64, 64))
        y = multidrop_tensorflow.AlphaDropout(0.2, seed=1)(x, training=True).numpy()
        assert np.allclose(y, multidrop_torch.AlphaDropout(0.2, seed=1)(torch.from_numpy(x)).numpy(), atol=1e-6)

    @pytest.mark.parametrize("jit", [True, False])
    def test_a_saved_model_goes_on(self, jit: bool, tmp_path: Path) -> None:
        """From a file, with the masks and the weights of a run without a break."""
        import keras
        import multidrop_tensorflow

        def fit(model: Any) -> None:
            model.fit(x, y, batch_size=8, epochs=1, shuffle=False, verbose=0)

        keras.utils.set_random_seed(0)
        x, y = images((32, 6, 6, 3)), np.arange(32) % 4
        model = keras.Sequential(
            [
                keras.Input((6, 6, 3)),
                keras.layers.Conv2D(8, 3),
                multidrop_tensorflow.SpatialDropout2D(0.2, seed=1),
                keras.layers.Flatten(),
                multidrop_tensorflow.Dropout(0.5, seed=2),
                keras.layers.Dense(4),
            ]
        )
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("sgd", loss, jit_compile=jit)
        fit(model)
        model.save(tmp_path / "model.keras")
        fit(model)
        loaded = keras.models.load_model(tmp_path / "model.keras")
        loaded.compile("sgd", loss, jit_compile=jit)
        fit(loaded)
        for a, b in zip(model.get_weights(), loaded.get_weights(), strict=True):
            assert np.array_equal(a, b)

    @pytest.mark.parametrize("file", ["model.keras", "model.weights.h5"])
    def test_weights_of_other_layers(self, file: str, tmp_path: Path) -> None:
        """Load, whether either has a position; a layer that has one keeps it where there is none."""
        import keras
        import multidrop_tensorflow

        def model(drop: Any) -> Any:
            return keras.Sequential([keras.Input((4,)), keras.layers.Dense(4), drop])

        x, kind = images((8, 4)), multidrop_tensorflow.Dropout
        for saved in (kind(0.5, seed=1), kind(0.5), keras.layers.Dropout(0.5)):
            of = model(saved)
            of(x, training=True)
            of.save(tmp_path / file) if file == "model.keras" else of.save_weights(tmp_path / file)
            for loaded in (kind(0.5, seed=2), kind(0.5)):
                to = model(loaded)
                to.load_weights(tmp_path / file)
                assert np.array_equal(to(x), of(x))
                to(x, training=True)
                if loaded.seed is not None:
                    key = md.Key(1, 1) if saved.seed is not None else md.Key(2)
                    assert md.last_mask(loaded).key == key

    def test_the_net_is_saved_whole(self, tmp_path: Path) -> None:
        import keras

        with md.use_backend("tensorflow"):
            net = md.Net(16, 3, 8, 8, seed=4)
        x = images((5, 16))
        net(x, training=True)
        net.save(tmp_path / "net.keras")
        loaded = keras.models.load_model(tmp_path / "net.keras")
        assert np.array_equal(loaded(x, training=True), net(x, training=True))

    def test_clones(self) -> None:
        import keras
        import multidrop_tensorflow

        model = keras.Sequential([keras.Input((4,)), multidrop_tensorflow.Dropout(0.5, seed=1)])
        clone = keras.models.clone_model(model)
        x = images((8, 4))
        assert np.array_equal(clone(x, training=True), model(x, training=True))

    def test_a_rate_that_is_changed(self) -> None:
        import multidrop_tensorflow

        layer, x = multidrop_tensorflow.Dropout(0.0, seed=1), images((8, 8))
        assert np.array_equal(layer(x, training=True), x)
        layer.rate = 0.5
        assert np.array_equal(layer(x, training=True), masks.dropout(x, 0.5, md.Key(1, 1)))

    @pytest.mark.parametrize("jit", [True, False])
    def test_a_rate_that_is_changed_between_fits(self, jit: bool) -> None:
        """A traced program keeps the rate that it was traced with, as with Keras' own layers, until it is compiled
        again; the count goes on."""
        import keras
        import multidrop_tensorflow

        layer, dense = multidrop_tensorflow.Dropout(0.0, seed=1), keras.layers.Dense(1)
        model = keras.Sequential([keras.Input((8,)), layer, dense])
        x = images((8, 8))
        for call, rate in enumerate((0.0, 1.0)):
            layer.rate = rate
            before = dense.kernel.numpy()
            model.compile("sgd", "mse", jit_compile=jit)
            model.fit(x, np.ones(8), batch_size=8, verbose=0)
            assert np.array_equal(dense.kernel.numpy(), before) == (rate == 1.0)  # where nothing comes through
            assert md.last_mask(layer, (8, 8)).key == md.Key(1, call)


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
