"""`audit` of models of Keras: it names every random layer, nothing else, and leaves everything as it was."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from audited import names
from members import values

import multidrop as md


class TestKeras:
    @pytest.fixture(autouse=True)
    def keras(self, need: Any) -> Any:
        need("tensorflow")
        import keras

        keras.utils.set_random_seed(0)
        return keras

    def test_every_random_layer_and_no_other(self, keras: Any) -> None:
        import tensorflow as tf

        def bernoulli(X: Any) -> Any:
            return X * keras.random.binomial(keras.ops.shape(X), 1.0, 0.5)

        def noisy(X: Any) -> Any:
            return X + tf.random.normal(tf.shape(X))

        def none(X: Any) -> Any:
            return tf.nn.dropout(X, 0.0)

        layers = keras.layers
        inputs = keras.Input((4, 8))
        X = layers.Dense(8, name="dense")(inputs)
        for name, function in {"bernoulli": bernoulli, "noisy": noisy, "none": none}.items():
            X = layers.Lambda(function, name=name)(X)
        X = layers.Dropout(0.5, name="drop")(X)
        X = layers.Dropout(0.0, name="idle")(layers.BatchNormalization(name="norm")(X))
        X = layers.GaussianNoise(0.5, name="noise")(layers.SpatialDropout1D(0.5, name="spatial")(X))
        X = layers.LSTM(4, dropout=0.5, recurrent_dropout=0.5, name="rnn")(X)
        model = keras.Model(inputs, layers.Dense(2, name="head")(X))
        before, seeds = model.get_weights(), np.array(model.get_layer("drop").seed_generator.state)
        x = values((8, 4, 8))
        found = names(model, x)
        random_ = ["bernoulli", "noisy", "drop", "spatial", "noise"]
        assert found[:5] == random_
        assert [path.partition(".")[0] for path in found[5:]] == ["rnn"]
        assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
        assert np.array_equal(model.get_layer("drop").seed_generator.state, seeds)
        md.convert(model, seed=0)
        assert [path.partition(".")[0] for path in names(model, x)] == ["bernoulli", "noisy", "rnn"]
        assert md.mask_at(model.get_layer("drop"), 0, (8, 4, 8)).key == md.Key(0).fold_in("drop")
        assert int(np.array(model.get_layer("drop").stream)[1]) == 0

    def test_layers_without_a_key(self, keras: Any) -> None:
        """Are random as Keras' own are, by their generators. These are put back, as the default one is; one that a
        layer makes during the audit is gone again."""
        from multidrop_tensorflow.internals import default_generator

        def noisy(X: Any) -> Any:
            return X + keras.random.normal(keras.ops.shape(X))

        layers = keras.layers
        late = layers.Dropout(0.0, name="late")
        model = keras.Sequential(
            [layers.Dropout(0.5, name="drop"), layers.GaussianNoise(0.5, name="noise"), late, layers.Lambda(noisy)]
        )
        md.convert(model)
        model(values((8, 4)))
        late.rate = 0.5
        keras.random.normal((1,))
        generators = [model.get_layer(name).seed_generator for name in ("drop", "noise")] + [default_generator()]
        before = [np.array(generator.state) for generator in generators]
        variables = len(model.variables)
        assert names(model, values((8, 4))) == ["drop", "noise", "late", model.layers[-1].name]
        for generator, state in zip(generators, before, strict=True):
            assert np.array_equal(generator.state, state)
        assert late.seed_generator is None
        assert len(model.variables) == variables

    @pytest.mark.parametrize("traced", [False, True])
    def test_functions_after_manual_seed(self, keras: Any, traced: bool) -> None:
        """Are a stream of their own, which stays where it is; once a program is traced, in variables."""
        import tensorflow as tf

        md.manual_seed(3)
        try:
            if traced:
                tf.function(lambda X: md.dropout_layer(X, 0.5))(tf.ones(4))
            model = keras.Sequential([keras.layers.Lambda(lambda X: md.dropout_layer(X, 0.5), name="function")])
            first = model(np.ones((8, 8), np.float32)).numpy()
            assert names(model, values((8, 8))) == []
            second = md.dropout_layer(tf.ones((8, 8)), 0.5).numpy()
        finally:
            md.manual_seed(None)
        for call, Y in enumerate((first, second), start=int(traced)):
            key = md.Key(3).fold_in("calls")
            assert np.array_equal(Y, 2.0 * md.keep_mask((8, 8), 0.5, md.Key(key.seed, key.call + call)))

    def test_a_model_that_is_not_built(self, keras: Any) -> None:
        class Net(keras.Model):
            def __init__(self) -> None:
                super().__init__()
                self.attention = keras.layers.MultiHeadAttention(2, 4, dropout=0.5, name="attention")
                self.drop = keras.layers.Dropout(0.5, name="drop")

            def call(self, X: Any, training: bool = False) -> Any:
                return {"y": self.drop(self.attention(X, X, training=training), training=training)}

        model = Net()
        md.convert(model, seed=0)
        report = md.audit(model, values((2, 3, 4)))
        (path, kind, _) = report.random[0]
        assert (len(report.random), path.partition(".")[0], kind) == (1, "attention", "Dropout")
        md.convert(model, seed=0)
        assert names(model, values((2, 3, 4))) == []

    def test_an_error_leaves_no_trace(self, keras: Any) -> None:
        def fails(X: Any) -> Any:
            raise ValueError("fails")

        model = keras.Sequential([keras.layers.Dropout(0.5, name="drop", seed=3), keras.layers.Identity(name="last")])
        model(values((2, 3)))
        model.get_layer("last").call = fails
        with pytest.raises(ValueError, match="fails"):
            md.audit(model, values((2, 3)))
        assert "call" not in vars(model.get_layer("drop"))
        assert model.get_layer("last").call is fails
