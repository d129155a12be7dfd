"""Models of Keras get this library's layers, and their own back."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from members import values

import multidrop as md


class TestKeras:
    @pytest.fixture(autouse=True)
    def tensorflow(self, need: Any) -> None:
        need("tensorflow")

    def functional(self) -> Any:
        import keras

        inputs = keras.Input((6, 6, 3))
        X = keras.layers.Conv2D(4, 3, name="conv")(inputs)
        X = keras.layers.SpatialDropout2D(0.25, name="spatial")(X)
        X = keras.layers.Flatten()(X)
        X = keras.Sequential([keras.layers.Dropout(0.5, name="drop"), keras.layers.Dense(4)], name="head")(X)
        return keras.Model(inputs, X)

    @pytest.mark.parametrize("jit", [True, False])
    def test_a_functional_model(self, jit: bool) -> None:
        """Is converted, also after it was compiled and trained, trains on, and is its own again."""
        import keras

        model = self.functional()
        x, y = values((16, 6, 6, 3)), np.arange(16) % 4
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("sgd", loss, jit_compile=jit)
        model.fit(x, y, verbose=0)
        count = len(model.weights)
        report = md.convert(model, seed=5)
        assert [path for path, _ in report.replaced] == ["spatial", "head.drop"]
        assert report.unreached == ()
        model.fit(x, y, epochs=2, verbose=0)
        drop = model.get_layer("head").get_layer("drop")
        key = md.Key(5).fold_in("head.drop")
        assert md.last_mask(drop, shape=(16, 108)).key == md.Key(key.seed, 1)
        assert len(model.weights) == count + 2
        for again in (keras.models.clone_model(model), copy.deepcopy(model)):
            assert type(again.get_layer("spatial")) is type(model.get_layer("spatial"))
            assert md.restore(again) == 0
        assert md.restore(model) == 2
        assert len(model.weights) == count
        assert type(drop) is keras.layers.Dropout
        model.fit(x, y, verbose=0)

    def test_a_model_within(self) -> None:
        """That was trained by itself goes on with the layers that it has now."""
        import keras

        inner = keras.Sequential([keras.Input((8,)), keras.layers.Dropout(0.5, name="drop"), keras.layers.Dense(1)])
        outer, x, y = keras.Sequential([keras.Input((8,)), inner], name="outer"), values((8, 8)), np.ones(8)
        inner.compile("sgd", "mse")
        inner.fit(x, y, verbose=0)
        md.convert(outer, seed=0)
        inner.fit(x, y, verbose=0)
        drop = inner.get_layer("drop")
        assert md.last_mask(drop, (8, 8)).key.call == 0
        md.restore(outer)
        state = np.array(drop.seed_generator.state)
        inner.fit(x, y, verbose=0)
        assert not np.array_equal(drop.seed_generator.state, state)

    @pytest.mark.parametrize(("name", "amount"), [("Dropout", "rate"), ("GaussianNoise", "stddev")])
    def test_an_amount_that_is_raised_from_0(self, name: str, amount: str) -> None:
        """Keras' layer, which has no generator at 0, gets one."""
        import keras

        layer = getattr(keras.layers, name)(0.0)
        md.convert(layer, seed=0)
        setattr(layer, amount, 0.5)
        md.restore(layer)
        assert not np.array_equal(layer(values((8,)), training=True), values((8,)))

    @pytest.mark.parametrize("kind", ["subclassed", "functional"])
    @pytest.mark.parametrize("file", ["model.keras", "model.weights.h5", None])
    def test_a_model_that_builds_layers_of_its_own(self, kind: str, file: str | None, tmp_path: Path) -> None:
        """Is built as at first, converted, and given the weights; then it goes on."""
        import keras

        class Net(keras.Model):
            def __init__(self) -> None:
                super().__init__()
                self.dense, self.drop = keras.layers.Dense(8), keras.layers.Dropout(0.5, name="drop")

            def call(self, X: Any, training: bool = False) -> Any:
                return self.drop(self.dense(X), training=training)

        def built() -> Any:
            if kind == "subclassed":
                model = Net()
            else:
                inputs = keras.Input((3, 8))
                attention = keras.layers.MultiHeadAttention(2, 4, dropout=0.5, name="attention")
                model = keras.Model(inputs, keras.layers.Dropout(0.5, name="drop")(attention(inputs, inputs)))
            model(x)
            return model

        x = values((2, 3, 8))
        model = built()
        assert md.convert(model, seed=1).unreached == ()
        model(x, training=True)
        again = built()
        md.convert(again, seed=2)
        if file is None:
            again.set_weights(model.get_weights())
        else:
            model.save(tmp_path / file) if file == "model.keras" else model.save_weights(tmp_path / file)
            again.load_weights(tmp_path / file)
        Y = model(x, training=True)
        assert np.array_equal(again(x, training=True), Y)
        assert not np.array_equal(again(x, training=True), Y)

    LAYERS = (
        ("Dropout", 1),
        ("AlphaDropout", 1),
        ("GaussianDropout", 1),
        ("GaussianNoise", 1),
        ("SpatialDropout1D", 2),
        ("SpatialDropout2D", 3),
        ("SpatialDropout3D", 4),
    )

    @pytest.mark.parametrize(("name", "ndim"), LAYERS)
    def test_every_layer(self, name: str, ndim: int) -> None:
        """Does what one that is built with its key does; is configured and restored as it was."""
        import keras
        import multidrop_tensorflow

        theirs = getattr(keras.layers, name)(0.25)
        config = theirs.get_config()
        x = values((2, *range(4, 4 + ndim)))
        key = md.Key(5).fold_in(re.sub(r"_\d+$", "", theirs.name))
        md.convert(model := keras.Sequential([theirs]), seed=5)
        ours = getattr(multidrop_tensorflow, name)(0.25, seed=key)
        expected = ours(x, training=True).numpy()
        again = type(ours).from_config(theirs.get_config())
        assert np.array_equal(model(x, training=True), expected)
        assert np.array_equal(again(x, training=True), expected)
        assert md.restore(model) == 1
        assert theirs.get_config() == config
        model(x, training=True)

    def test_a_subclassed_model(self) -> None:
        import keras

        class Net(keras.Model):
            def __init__(self) -> None:
                super().__init__()
                self.dense, self.drops = keras.layers.Dense(8), [keras.layers.Dropout(0.5, name="a")]

            def call(self, X: Any, training: bool = False) -> Any:
                for drop in self.drops:
                    X = drop(self.dense(X), training=training)
                return X

        net = Net()
        assert [path for path, _ in md.convert(net, seed=1).replaced] == ["a"]
        x = values((4, 8))
        kept = net(x, training=True).numpy() != 0
        assert np.array_equal(kept, md.keep_mask((4, 8), 0.5, md.Key(1).fold_in("a")))

    def test_paths_are_of_the_model_alone(self) -> None:
        """Layers have masks of their own, which do not depend on what was built before in the process."""
        import keras

        class Block(keras.layers.Layer):
            def __init__(self) -> None:
                super().__init__()
                self.drop, self.second = keras.layers.Dropout(0.5), keras.layers.Dropout(0.5, name="same")
                self.third, self.drops = keras.layers.Dropout(0.5, name="same"), [keras.layers.Dropout(0.5)]
                self.drops += [keras.layers.Dropout(0.5), keras.layers.Dropout(0.5, name="same_1")]

        class Recurrent(keras.layers.SimpleRNN):
            def __init__(self, units: int, **kwargs: Any) -> None:
                super().__init__(units, **kwargs)
                self.drop = keras.layers.Dropout(0.5)

        def model() -> Any:
            inner = keras.Sequential([keras.layers.Dropout(0.5), keras.layers.Dropout(0.5)])
            inputs = keras.Input((4, 4))
            X = keras.layers.Dropout(0.5)(inner(inner(inputs)))
            X = keras.layers.TimeDistributed(keras.layers.Dropout(0.5))(X)
            with keras.utils.custom_object_scope({"Recurrent": Recurrent}):
                outputs = keras.layers.Bidirectional(Recurrent(4))(X)
            return keras.Sequential([Block(), Block(), keras.Model(inputs, outputs)])

        paths = (
            *("block.drop", "block.same", "block.same_2", "block.dropout", "block.dropout_1", "block.same_1"),
            *("block_1.drop", "block_1.same", "block_1.same_2", "block_1.dropout", "block_1.dropout_1"),
            *("block_1.same_1", "functional.sequential.dropout", "functional.sequential.dropout_1"),
            *("functional.dropout", "functional.time_distributed.layer"),
            *("functional.bidirectional.forward_layer.drop", "functional.bidirectional.backward_layer.drop"),
        )
        for _ in range(2):
            report = md.convert(converted := model(), seed=1)
            layers = [layer for layer in converted._flatten_layers() if "converted" in vars(layer)]
            keys = {md.mask_at(layer, 0, (4, 4)).key for layer in layers}
            assert keys == {md.Key(1).fold_in(path) for path in paths}
            shown = [path for path, _ in report.replaced]
            assert len(set(shown)) == len(paths)
            assert {path.rpartition(".")[2] for path in shown} >= {"same", "same_2", *(x.name for x in layers)}
            assert md.restore(converted, report) == len(paths)

    def test_what_cannot_be_reached_is_said(self) -> None:
        import keras

        class Loud(keras.layers.Dropout):
            pass

        report = md.convert(
            keras.Sequential([Loud(0.5, name="loud"), keras.layers.MultiHeadAttention(2, 4, dropout=0.1)])
        )
        assert report.replaced == ()
        assert [what for _, what in report.unreached] == [
            "Loud, a subclass with a call of its own",
            "MultiHeadAttention, which makes its layers when it is built: convert after the first call",
        ]
        attention = keras.layers.MultiHeadAttention(2, 4, dropout=0.1)
        attention(values((2, 3, 4)), values((2, 3, 4)))
        report = md.convert(attention)
        assert len(report.replaced) == 1
        assert report.unreached == ()

    def test_one_conversion_is_undone(self) -> None:
        import keras
        import multidrop_tensorflow

        first, second = keras.layers.Dropout(0.5, name="first"), keras.layers.Dropout(0.5, name="second")
        md.convert(first)
        model = keras.Sequential([first, second])
        report = md.convert(model)
        assert [path for path, _ in report.replaced] == ["second"]
        assert md.restore(model, report) == 1
        assert type(first) is multidrop_tensorflow.Dropout
        assert type(second) is keras.layers.Dropout


def test_keras_layers_that_drop_by_themselves(need: Any) -> None:
    need("tensorflow")
    import keras
    from keras import layers
    from keras.src.applications.convnext import StochasticDepth

    given = keras.Input((5, 6))
    X = layers.Attention(dropout=0.2, name="attention")([given, given])
    X = layers.MultiHeadAttention(2, 3, dropout=0.5, name="heads")(X, X)
    X = StochasticDepth(0.1, name="depth")(X)
    X = layers.SimpleRNN(4, recurrent_dropout=0.2, name="rnn")(X)
    report = md.convert(keras.Model(given, X), seed=0)
    assert [path.rstrip("_0123456789") for path, _ in report.replaced] == ["heads.dropout"]
    assert [what for _, what in report.unreached] == [
        "Attention, which drops by itself: dropout = 0.2",
        "StochasticDepth, which drops by itself: drop_path_rate = 0.1",
        "SimpleRNNCell, which drops by itself: recurrent_dropout = 0.2",
    ]
