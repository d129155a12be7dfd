"""Keras' and Gluon's layers that drop the weights of others, and that learn p."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from members import values

import multidrop as md
from multidrop import Key, family
from multidrop.family import oracle
from multidrop.testing import same_bits

SEED = 7
Array = np.ndarray


class TestKeras:
    @pytest.fixture(autouse=True)
    def ours(self, need: Any) -> Any:
        return need("tensorflow")

    @pytest.mark.parametrize("jit", [False, True])
    def test_concrete_dropout_learns(self, ours: Any, jit: bool) -> None:
        """The regulariser moves p to 1/2, from both sides; without it the data move it down."""
        import keras

        x = values((32, 4))
        for rate, regularizer, rises in ((0.1, 1.0, True), (0.9, 1.0, False), (0.3, 0.0, False)):
            dropout = ours.ConcreteDropout(rate, regularizer=regularizer, seed=SEED)
            model = keras.Sequential([dropout, keras.layers.Dense(1, kernel_initializer="ones", trainable=False)])
            model.compile(keras.optimizers.SGD(0.05), "mse", jit_compile=jit)
            model.fit(x, x.sum(1, keepdims=True), epochs=4, verbose=0)
            assert (dropout.p > rate) == rises
            dropout.p = 0.5
            assert float(dropout.logit) == 0.0

    def test_the_regulariser_of_concrete_dropout(self, ours: Any) -> None:
        """Minus the entropy of the numbers of an example."""
        layer = ours.ConcreteDropout(0.2, regularizer=0.5)
        layer(values((3, 4)))
        (loss,) = layer.losses
        assert float(loss) == pytest.approx(0.5 * 4 * (0.2 * np.log(0.2) + 0.8 * np.log(0.8)))
        with pytest.raises(ValueError, match="p: expected a probability above 0"):
            ours.ConcreteDropout(0.0)
        with pytest.raises(ValueError, match="inputs: expected a last axis of known size"):
            ours.ConcreteDropout().build((3, None))

    def test_weights_of_an_unkeyed_layer(self, ours: Any, tmp_path: Path) -> None:
        """Load into a keyed one, whose position they leave."""
        import keras

        plain, keyed = (keras.Sequential([ours.ConcreteDropout(0.2, seed=seed)]) for seed in (None, SEED))
        for model in (plain, keyed):
            model(values((3, 4)), training=True)
        plain.layers[0].logit.assign(0.25)
        plain.save_weights(tmp_path / "plain.weights.h5")
        keyed.load_weights(tmp_path / "plain.weights.h5")
        assert float(keyed.layers[0].logit) == 0.25
        assert md.Key(SEED, 1) == ours.position.key_at(keyed.layers[0].stream)

    @staticmethod
    def with_weights(layer: Any, dropped: dict[str, Any], x: Array) -> Array:
        """What a layer gives with other values of the weights of those names."""
        kept = layer.get_weights()
        layer.set_weights([dropped.get(v.name, w) for v, w in zip(layer.weights, kept, strict=True)])
        y = layer(x).numpy()
        layer.set_weights(kept)
        return y

    @pytest.mark.parametrize("kind_of_run", ["eager", "function", "xla"])
    @pytest.mark.parametrize(
        ("kind", "settings", "shape", "names"),
        [
            ("Dense", {"units": 3}, (2, 4), ["kernel"]),
            ("Conv2D", {"filters": 3, "kernel_size": 2}, (2, 5, 5, 4), ["kernel"]),
            ("LSTM", {"units": 3}, (2, 5, 4), ["kernel", "recurrent_kernel"]),
            ("GRU", {"units": 3}, (2, 5, 4), ["recurrent_kernel"]),
        ],
    )
    def test_drop_connect(
        self,
        ours: Any,
        kind: str,
        settings: dict[str, Any],
        shape: tuple[int, ...],
        names: list[str],
        kind_of_run: str,
    ) -> None:
        """A layer with each kernel dropped by the next key, once for a call, and as it is in evaluation mode."""
        import keras
        import tensorflow as tf

        layer, x = getattr(keras.layers, kind)(**settings), values(shape)
        wrapped = ours.DropConnect(layer, 0.5, names, seed=SEED)
        assert same_bits(wrapped(x).numpy(), layer(x).numpy())
        run = lambda X: wrapped(X, training=True)  # noqa: E731  # which `tf.function` takes
        if kind_of_run != "eager":
            run = tf.function(run, jit_compile=kind_of_run == "xla")
        member, stream = family.DropConnect(0.5), md.Stream(Key(SEED))
        for _ in range(2):
            dropped = {v.name: oracle.apply(member, v.numpy(), stream.next()) for v in layer.weights if v.name in names}
            expected = self.with_weights(layer, dropped, x)
            assert np.allclose(run(tf.constant(x)).numpy(), expected, 1e-5, 1e-6)

    def test_the_gradient_of_a_dropped_weight(self, ours: Any) -> None:
        import keras
        import tensorflow as tf

        layer, X = keras.layers.Dense(3), tf.ones((2, 4))
        wrapped = ours.DropConnect(layer, 0.5, seed=SEED)
        wrapped(X)
        with tf.GradientTape() as tape:
            L = tf.reduce_sum(wrapped(X, training=True))
        gradient = tape.gradient(L, layer.kernel.value)
        assert same_bits(
            gradient.numpy(), oracle.apply(family.DropConnect(0.5), np.full((4, 3), 2, np.float32), Key(SEED))
        )

    @pytest.mark.parametrize("jit", [False, True])
    def test_a_model_with_dropped_weights_goes_on(self, ours: Any, jit: bool, tmp_path: Path) -> None:
        """Saved and loaded, to the same weights in every bit."""
        import keras

        model = keras.Sequential(
            [
                keras.Input((5,)),
                ours.EmbeddingDropout(keras.layers.Embedding(11, 4, mask_zero=True), 0.3, seed=1),
                ours.DropConnect(keras.layers.LSTM(4), 0.5, ["recurrent_kernel"], seed=Key(2, 3)),
                ours.DropConnect(keras.layers.Dense(1, activity_regularizer="l2"), 0.5, seed=4),
            ]
        )
        model.compile("sgd", "mse", jit_compile=jit)
        x = np.random.default_rng(0).integers(0, 11, (8, 5))
        model.fit(x, np.ones((8, 1)), verbose=0, shuffle=False)
        model.save(tmp_path / "model.keras")
        other = keras.saving.load_model(tmp_path / "model.keras")
        for ours_now, loaded_now in zip(model.layers, other.layers, strict=True):
            shared = ("rate", "weights", "seed", "call")
            a, b = (layer.get_config() for layer in (ours_now, loaded_now))
            assert [a.get(name) for name in shared] == [b.get(name) for name in shared]
        for each in (model, other):
            each.fit(x, np.ones((8, 1)), verbose=0, shuffle=False)
        for ours, theirs in zip(model.weights, other.weights, strict=True):
            assert same_bits(ours.numpy(), theirs.numpy()), ours.path
        assert other.losses

    def test_words_are_dropped(self, ours: Any) -> None:
        import keras

        embedding = keras.layers.Embedding(11, 3, embeddings_initializer="ones")
        y = ours.EmbeddingDropout(embedding, 0.5, seed=SEED)(np.arange(22) % 11, training=True).numpy()
        expected = oracle.apply(family.EmbeddingDropout(0.5), np.ones((11, 3), np.float32), Key(SEED))
        assert np.array_equal(y, np.concatenate([expected, expected]))

    def test_what_a_layer_writes_is_kept(self, ours: Any) -> None:
        """Running statistics, generators and positions within a layer whose weights are dropped."""
        import keras

        class Block(keras.layers.Layer):
            def __init__(self) -> None:
                super().__init__()
                self.parts = [
                    keras.layers.Dense(3),
                    keras.layers.BatchNormalization(),
                    keras.layers.Dropout(0.5),
                    ours.Dropout(0.5, seed=1),
                ]

            def build(self, input_shape: Any) -> None:
                for part in self.parts:
                    part.build((None, 3))

            def call(self, inputs: Any) -> Any:
                for part in self.parts:
                    inputs = part(inputs)
                return inputs

        block = Block()
        wrapped = ours.DropConnect(block, 0.5, seed=SEED)
        wrapped.build((None, 3))
        before = {v.path: v.numpy() for v in block.non_trainable_variables}
        wrapped(values((4, 3)), training=True)
        assert len(before) == 4
        assert not any(np.array_equal(v.numpy(), before[v.path]) for v in block.non_trainable_variables)

    @pytest.mark.parametrize("names", [None, ["nothing"], ["bias", "nothing"], "nothing"])
    def test_a_layer_without_the_weights(self, ours: Any, names: Any) -> None:
        import keras

        layer = keras.layers.BatchNormalization() if names is None else keras.layers.Dense(2)
        with pytest.raises(ValueError, match="layer: expected one that has"):
            ours.DropConnect(layer, 0.5, names).build((None, 3))

    def test_compare_counts_the_logit(self, ours: Any) -> None:
        import keras

        model = keras.Sequential([keras.Input((4,)), ours.ConcreteDropout(seed=1, name="drop")])
        assert list(ours.Probe(model).read()) == [("drop", "logit")]


class TestGluon:
    @pytest.fixture(autouse=True)
    def ours(self, need: Any) -> Any:
        return need("mxnet")

    @pytest.fixture(params=[False, True], ids=["nd", "np"])
    def array(self, request: pytest.FixtureRequest, ours: Any) -> Any:
        """Both kinds of arrays that Gluon may be set to."""
        import mxnet as mx

        with mx.util.np_shape(request.param), mx.util.np_array(request.param):
            yield lambda x: (mx.np if request.param else mx.nd).array(x, dtype=x.dtype)

    @staticmethod
    def net(hybridized: bool, *layers: Any) -> Any:
        import mxnet as mx

        net = mx.gluon.nn.HybridSequential()
        net.add(*layers)
        net.initialize()
        if hybridized:
            net.hybridize()
        return net

    @pytest.mark.parametrize("hybridized", [False, True])
    @pytest.mark.parametrize("kind", ["Dense", "Conv2D"])
    def test_drop_connect(self, ours: Any, array: Any, kind: str, hybridized: bool, tmp_path: Path) -> None:
        """A layer with its weight dropped by the next key, its gradient too, and as it is in evaluation mode."""
        import mxnet as mx
        from mxnet.gluon import nn

        def build(seed: int) -> Any:
            layer = nn.Dense(3, in_units=4) if kind == "Dense" else nn.Conv2D(3, 2, in_channels=4)
            return self.net(hybridized, ours.DropConnect(layer, 0.5, seed=seed))

        net = build(SEED)
        x = values((2, 4) if kind == "Dense" else (2, 4, 5, 5))
        layer, X, member = net[0].layer, array(x), family.DropConnect(0.5)
        weight = layer.weight.data().copy()
        plain = layer(X).asnumpy()
        assert same_bits(net(X).asnumpy(), plain)
        for call in range(2):
            if call:
                net.save_parameters(str(tmp_path / "net.params"))
                net = build(SEED + 1)
                net.load_parameters(str(tmp_path / "net.params"))
            with mx.autograd.record():
                Y = net(X)
            Y.backward()
            gradient = net[0].layer.weight.grad().asnumpy()
            layer.weight.set_data(array(oracle.apply(member, weight.asnumpy(), Key(SEED, call))))
            with mx.autograd.record():
                expected = layer(X)
            expected.backward()
            assert np.allclose(Y.asnumpy(), expected.asnumpy(), 1e-5, 1e-6)
            through = oracle.apply(member, layer.weight.grad().asnumpy(), Key(SEED, call))
            assert np.allclose(gradient, through, 1e-5, 1e-6)
            layer.weight.set_data(weight)

    def test_shapes_that_are_not_known_yet(self, ours: Any, array: Any) -> None:
        """Are found in the first call; a net that is hybridized before says what to do."""
        import mxnet as mx
        from mxnet.gluon import nn

        X = array(values((2, 4)))
        for hybridized in (False, True):
            net = self.net(hybridized, ours.DropConnect(nn.Dense(3), 0.5, seed=SEED))
            with mx.autograd.record():
                if hybridized:
                    with pytest.raises(ValueError, match="layer: expected a weight of known shape"):
                        net(X)
                else:
                    assert net(X).shape == (2, 3)

    @pytest.mark.parametrize("hybridized", [False, True])
    def test_words_are_dropped(self, ours: Any, array: Any, hybridized: bool) -> None:
        import mxnet as mx
        from mxnet.gluon import nn

        embedding = nn.Embedding(11, 3, weight_initializer="ones")
        net = self.net(hybridized, ours.EmbeddingDropout(embedding, 0.5, seed=SEED))
        with mx.autograd.record():
            Y = net(array((np.arange(22) % 11).astype(np.float32)))
        expected = oracle.apply(family.EmbeddingDropout(0.5), np.ones((11, 3), np.float32), Key(SEED))
        assert np.array_equal(Y.asnumpy(), np.concatenate([expected, expected]))

    def test_a_layer_without_the_weights(self, ours: Any) -> None:
        from mxnet.gluon import nn

        for layer, names in (
            (nn.Flatten(), None),
            (nn.Dense(3), ("kernel",)),
            (nn.HybridSequential(), None),
            (3, None),
        ):
            with pytest.raises(ValueError, match="layer: expected a HybridBlock with a hybrid_forward and"):
                ours.DropConnect(layer, 0.5, names)

    @pytest.mark.parametrize("hybridized", [False, True])
    def test_the_gradient_of_the_logit(self, ours: Any, array: Any, hybridized: bool) -> None:
        """That of `md.apply`, written or added, and none in evaluation mode."""
        import mxnet as mx

        layer = ours.ConcreteDropout(0.3, seed=SEED)
        net, (x, dy) = self.net(hybridized, layer), (values((6, 4), seed=seed) for seed in (0, 1))
        logit = layer.logit.data().asnumpy()
        for request, times in (("write", 1), ("add", 2)):
            layer.stream.key = Key(SEED)
            layer.logit.grad_req = request
            layer.logit.grad()[:] = 0
            for _ in range(2):
                with mx.autograd.record():
                    Y = net(array(x))
                Y.backward(array(dy))
                layer.stream.key = Key(SEED)
            expected = times * oracle.learned_gradient(layer.member, dy, x, logit, Key(SEED))
            assert np.allclose(layer.logit.grad().asnumpy(), expected, 1e-6)
        layer.logit.grad_req = "write"
        X = array(x)
        X.attach_grad()
        with mx.autograd.record(train_mode=False):
            Y = net(X)
        Y.backward(array(dy))
        assert same_bits(X.grad.asnumpy(), dy)

    def test_the_regulariser_of_concrete_dropout(self, ours: Any, array: Any) -> None:
        """And its gradient, against differences."""
        import mxnet as mx

        layer, weight = ours.ConcreteDropout(0.3), array(values((3, 4)))
        layer.initialize()

        def expected(logit: float) -> float:
            p = 1 / (1 + np.exp(-logit))
            entropy = -(p * np.log(p) + (1 - p) * np.log(1 - p))
            return 0.5**2 / 2 * float((values((3, 4)) ** 2).sum()) / (1 - p) - 4 * entropy

        with mx.autograd.record():
            L = layer.regularizer(weight, length_scale=0.5)
        L.backward()
        at = float(np.log(0.3 / 0.7))
        assert float(L.asnumpy()[0]) == pytest.approx(expected(at), rel=1e-5)
        slope = (expected(at + 1e-4) - expected(at - 1e-4)) / 2e-4
        assert float(layer.logit.grad().asnumpy()[0]) == pytest.approx(slope, rel=1e-4)
        assert layer.p == pytest.approx(0.3)
        layer.p = 0.5
        assert layer.logit.data().asnumpy() == 0.0
        with pytest.raises(ValueError, match="p: expected a probability above 0"):
            ours.ConcreteDropout(0.0)
