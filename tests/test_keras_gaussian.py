"""Keras layers of normal noise, in every way that TensorFlow runs them, against the oracle."""

from __future__ import annotations

import gc
import weakref
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gaussian import BAD_PROBABILITIES, KEY, SHAPE, ULPS, close, gaussian_dropout, gaussian_noise, ulps, values
from named import named

import multidrop as md
from multidrop.spec import masks


@pytest.fixture(params=["eager", "function", "xla"])
def run(request: pytest.FixtureRequest, need: Any) -> Any:
    """Each way in which TensorFlow runs a function."""
    need("tensorflow")
    import tensorflow as tf

    if request.param == "eager":
        return lambda function: function
    return lambda function: tf.function(function, autograph=False, jit_compile=request.param == "xla")


class TestKeras:
    @pytest.fixture(autouse=True)
    def tensorflow(self, need: Any) -> None:
        need("tensorflow")

    @pytest.fixture(params=["GaussianDropout", "GaussianNoise"])
    def layer(self, request: pytest.FixtureRequest) -> Any:
        """The class of a layer."""
        import multidrop_tensorflow

        return getattr(multidrop_tensorflow, request.param)

    @staticmethod
    def expected(layer: Any, x: np.ndarray, amount: float, key: md.Key) -> np.ndarray:
        """What a layer of that class, rate or deviation makes of x in a call."""
        if layer.__name__ == "GaussianNoise":
            return gaussian_noise(x, amount, key)
        return gaussian_dropout(x, masks.gaussian_stddev("rate", amount), key)

    def test_the_numbers(self, run: Any) -> None:
        import tensorflow as tf
        from multidrop_tensorflow.draw import normal
        from multidrop_tensorflow.position import position_of

        z = run(lambda position: normal(tf.TensorShape((2**20 - 3,)), position))(position_of(KEY)).numpy()
        assert ulps(z, masks.normals(2**20 - 3, KEY)) <= ULPS

    def test_values(self, layer: Any, run: Any) -> None:
        """The next numbers in each call, those of the oracle."""
        import tensorflow as tf

        noisy, x = layer(0.3, seed=7), values()
        call = run(lambda X: noisy(X, training=True))
        drawn = [call(tf.constant(x)).numpy() for _ in range(3)]
        for number, y in enumerate(drawn):
            assert close(y, self.expected(layer, x, 0.3, md.Key(7, number)))
        assert not np.array_equal(drawn[0], drawn[1])
        assert np.array_equal(noisy(x, training=False), x)

    @pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64", "mixed_float16", "mixed_bfloat16"])
    def test_types(self, layer: Any, run: Any, dtype: str) -> None:
        """In the layer's type; the noise has that computed in."""
        import tensorflow as tf

        noisy, x = layer(0.3, seed=7, dtype=dtype), values(dtype=np.float64)
        X = tf.cast(x, noisy.compute_dtype)
        y = run(lambda X: noisy(X, training=True))(X)
        expected = self.expected(layer, X.numpy(), 0.3, md.Key(7))
        assert y.dtype == noisy.compute_dtype
        if y.dtype == tf.float64:
            assert np.allclose(y, expected, rtol=0, atol=1e-14)
        else:
            # In a half type a number that float32 rounds apart may round apart too.
            apart = y.numpy().astype(np.float64) != expected.astype(np.float64)
            assert apart.mean() <= 0.01
            assert np.allclose(y.numpy().astype(np.float32), expected.astype(np.float32), rtol=2.0**-7)

    @pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1,), (2, 3, 4, 5)])
    def test_shapes(self, layer: Any, run: Any, shape: tuple[int, ...]) -> None:
        import tensorflow as tf

        noisy, x = layer(0.3, seed=7), values(shape)
        assert close(run(lambda X: noisy(X, training=True))(tf.constant(x)), self.expected(layer, x, 0.3, md.Key(7)))

    @pytest.mark.parametrize("spec", [(None, 35), (None, None), None])
    def test_shapes_that_are_not_known(self, layer: Any, run: Any, spec: Any) -> None:
        import tensorflow as tf

        noisy, x = layer(0.3, seed=7), values()
        call = run(lambda X: noisy(X, training=True))
        if hasattr(call, "get_concrete_function"):
            call = call.get_concrete_function(tf.TensorSpec(spec))
        assert close(call(tf.constant(x)), self.expected(layer, x, 0.3, md.Key(7)))

    @pytest.mark.parametrize("training", [True, False])
    def test_training_may_be_a_tensor(self, layer: Any, run: Any, training: bool) -> None:
        import tensorflow as tf

        noisy, x = layer(0.3, seed=7), values()
        y = run(lambda X, training: noisy(X, training=training))(tf.constant(x), tf.constant(training))
        assert close(y, self.expected(layer, x, 0.3, md.Key(7)) if training else x)

    def test_gradients(self, layer: Any, run: Any) -> None:
        """That of the dropout is the output's gradient times the same noise; that of the noise, the output's."""
        import tensorflow as tf

        noisy, x, dy = layer(0.3, seed=7), values(), values()[::-1].copy()

        def gradient(X: Any, dY: Any) -> Any:
            with tf.GradientTape() as tape:
                tape.watch(X)
                Y = noisy(X, training=True)
            return tape.gradient(Y, X, output_gradients=dY)

        for call in range(2):
            dx = run(gradient)(tf.constant(x), tf.constant(dy)).numpy()
            additive = layer.__name__ == "GaussianNoise"
            assert close(dx, dy if additive else self.expected(layer, dy, 0.3, md.Key(7, call)))

    def test_gradients_of_gradients(self, layer: Any, run: Any) -> None:
        """Of y³: 3 y² n, then 6 y n², where n = dy/dx; reverse over reverse, and forward over reverse."""
        import tensorflow as tf

        x = values()

        def both(X: Any) -> Any:
            noisy = fresh()
            with tf.GradientTape() as outer, tf.autodiff.ForwardAccumulator(X, tf.ones_like(X)) as accumulator:
                outer.watch(X)
                with tf.GradientTape() as inner:
                    inner.watch(X)
                    Y = noisy(X)
                    cube = Y**3
                first = inner.gradient(cube, X)
            return Y, first, outer.gradient(first, X), accumulator.jvp(Y), accumulator.jvp(first)

        def fresh() -> Any:
            from multidrop_tensorflow.apply import applied

            member = (
                md.family.GaussianNoise(0.3) if layer.__name__ == "GaussianNoise" else md.family.GaussianDropout(0.2)
            )
            return lambda X: applied(member, X, KEY)

        Y, first, second, along, along_first = (tensor.numpy() for tensor in run(both)(tf.constant(x)))
        n = np.ones_like(x) if layer.__name__ == "GaussianNoise" else gaussian_dropout(np.ones_like(x), 0.5, KEY)
        assert np.allclose(first, 3 * Y**2 * n, rtol=1e-5)
        assert np.allclose(along, n, rtol=1e-5)
        for derivative in (second, along_first):
            assert np.allclose(derivative, 6 * Y * n**2, rtol=1e-5, atol=1e-6)

    def test_the_noise_is_drawn_again(self) -> None:
        """And not kept: a step holds the four Philox operators of two drawings, two planes each, which an optimiser of
        graphs may make one of."""
        import multidrop_tensorflow
        import tensorflow as tf

        layer = multidrop_tensorflow.GaussianDropout(0.3, seed=7)

        @tf.function(autograph=False)
        def gradient(X: Any) -> Any:
            with tf.GradientTape() as tape:
                tape.watch(X)
                Y = layer(X, training=True)
            return tape.gradient(Y, X)

        graph = gradient.get_concrete_function(tf.TensorSpec((8, 8))).graph
        assert sum(node.type == "StatelessRandomUniformFullIntV2" for node in graph.get_operations()) == 4

    def test_an_eager_tape_keeps_no_noise(self, layer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """The noise is gone while the tape still waits for its gradient."""
        import tensorflow as tf
        from multidrop_tensorflow.draw import Draw

        drawn, normal = [], Draw.normal

        def watched(*arguments: Any) -> Any:
            noise = normal(*arguments)
            drawn.append(weakref.ref(noise))
            return noise

        monkeypatch.setattr(Draw, "normal", watched)
        noisy, X = layer(0.3, seed=7), tf.constant(values())
        with tf.GradientTape() as tape:
            tape.watch(X)
            Y = noisy(X, training=True)
            gc.collect()
            assert [noise() for noise in drawn] == [None]
        assert tape.gradient(Y, X) is not None

    def test_without_what_is_not_public(self, layer: Any, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """TensorFlow may take back the functions that record a gradient: then `tf.custom_gradient` does."""
        from multidrop_tensorflow import internals

        monkeypatch.setattr(internals, "record_operation", None)
        monkeypatch.setattr(internals, "stop_recording", nullcontext)
        self.test_gradients(layer, run)

    @pytest.mark.parametrize("jit", [True, False])
    def test_a_saved_model_goes_on(self, jit: bool, tmp_path: Path) -> None:
        """From a file, with the noise and the weights of a run without a break, to which training in one go comes
        too."""
        import keras
        import multidrop_tensorflow

        x, y = values((32, 6)), np.arange(32) % 4
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

        def fit(model: Any, epochs: int = 1) -> None:
            model.compile("sgd", loss, jit_compile=jit)
            model.fit(x, y, batch_size=8, epochs=epochs, shuffle=False, verbose=0)

        def build() -> Any:
            keras.utils.set_random_seed(0)
            return keras.Sequential(
                [
                    keras.Input((6,)),
                    multidrop_tensorflow.GaussianNoise(0.2, seed=1),
                    keras.layers.Dense(16, "relu"),
                    multidrop_tensorflow.GaussianDropout(0.5, seed=2),
                    keras.layers.Dense(4),
                ]
            )

        model, at_once = build(), build()
        fit(at_once, 2)
        fit(model)
        model.save(tmp_path / "model.keras")
        loaded = keras.models.load_model(tmp_path / "model.keras")
        for each in (model, loaded):
            fit(each)
            for a, b in zip(each.get_weights(), at_once.get_weights(), strict=True):
                assert np.array_equal(a, b)

    def test_configurations(self, layer: Any) -> None:
        """An equal layer, its stream at the start; Keras' own configurations will do."""
        import keras

        noisy, x = layer(0.3, seed=7, name="noisy"), values()
        again = layer.from_config(noisy.get_config())
        assert again.get_config() == noisy.get_config()
        assert np.array_equal(again(x, training=True), noisy(x, training=True))
        own = getattr(keras.layers, layer.__name__)(0.3, name="own")
        assert set(own.get_config()) == set(layer.from_config(own.get_config()).get_config())

    def test_masks_of_time_steps_pass_through(self, layer: Any) -> None:
        import keras
        import tensorflow as tf

        embedded = keras.layers.Embedding(5, 3, mask_zero=True)(tf.constant([[1, 2, 0]]))
        noisy = layer(0.3, seed=7)(embedded, training=True)
        assert keras.src.backend.get_keras_mask(noisy).numpy().tolist() == [[True, True, False]]
        assert layer(0.3).compute_output_shape((None, 3, 4)) == (None, 3, 4)

    def test_an_amount_that_is_changed(self, layer: Any) -> None:
        """And one of 0: it changes nothing, and takes a key like any other."""
        name = "stddev" if layer.__name__ == "GaussianNoise" else "rate"
        noisy, x = layer(0.0, seed=7), values()
        assert np.array_equal(noisy(x, training=True), x)
        for call, amount in enumerate((0.5, 0.25), start=1):
            setattr(noisy, name, amount)
            assert close(noisy(x, training=True), self.expected(layer, x, amount, md.Key(7, call)))
            assert noisy.get_config()[name] == amount

    def test_without_a_seed_keras_decides(self, layer: Any) -> None:
        import keras

        x, drawn = values(), []
        for _ in range(2):
            keras.utils.set_random_seed(1)
            noisy = layer(0.3)
            drawn.append([noisy(x, training=True).numpy() for _ in range(2)])
        assert np.array_equal(drawn[0], drawn[1])
        assert not np.array_equal(*drawn[0])

    def test_manual_seed(self, layer: Any) -> None:
        """Keys it as the n-th layer; one that fails to be built takes no key."""
        md.manual_seed(5)
        with pytest.raises(ValueError, match="expected"):
            layer(2.0)
        x = values()
        key = md.Key(5).fold_in("dropout").fold_in(0)
        assert close(layer(0.3)(x, training=True), self.expected(layer, x, 0.3, key))

    @pytest.mark.parametrize("bad", [-0.1, 1.1, float("nan"), float("inf"), None, "0.5", True, [0.5]], ids=named)
    def test_bad_amounts(self, layer: Any, bad: Any) -> None:
        name = "stddev" if layer.__name__ == "GaussianNoise" else "rate"
        with pytest.raises(ValueError, match=f"{name}: expected .*; got "):
            layer(bad)

    def test_bad_seeds(self, layer: Any) -> None:
        with pytest.raises(ValueError, match="seed: expected"):
            layer(0.5, seed="one")

    def test_a_bad_amount_that_is_set(self, layer: Any) -> None:
        """Is checked by the next call, which takes no key."""
        noisy, x = layer(0.3, seed=1), values()
        name = "stddev" if layer.__name__ == "GaussianNoise" else "rate"
        setattr(noisy, name, -2)
        with pytest.raises(ValueError, match=f"{name}: expected .*; got -2"):
            noisy(x, training=True)
        setattr(noisy, name, 0.3)
        assert close(noisy(x, training=True), self.expected(layer, x, 0.3, md.Key(1)))

    def test_a_rate_of_1_is_an_error_in_training(self) -> None:
        import multidrop_tensorflow

        layer, x = multidrop_tensorflow.GaussianDropout(1.0, seed=1), values()
        assert np.array_equal(layer(x, training=False), x)
        with pytest.raises(ValueError, match="rate: expected a probability below 1; got "):
            layer(x, training=True)
        for bad in BAD_PROBABILITIES:
            layer.rate = bad
            with pytest.raises(ValueError, match="rate: expected a probability"):
                layer(x, training=True)
        layer.rate = 0.5
        assert close(layer(x, training=True), gaussian_dropout(x, 1.0, 1))  # the errors took no key

    def test_integers(self, layer: Any) -> None:
        with pytest.raises(TypeError, match="X: expected a tensor of type"):
            layer(0.5, seed=1)(np.arange(4), training=True)

    def test_it_has_no_mask(self, layer: Any) -> None:
        for view in (md.last_mask, lambda noisy: md.mask_at(noisy, 0, SHAPE)):
            with pytest.raises(TypeError, match="layer: expected a dropout layer of multidrop; got <Gaussian"):
                view(layer(0.5, seed=1))

    def test_recomputation_is_refused(self, layer: Any) -> None:
        import tensorflow as tf

        noisy, X = layer(0.5, seed=1), tf.constant(values())
        with tf.GradientTape() as tape:
            tape.watch(X)
            Y = tf.recompute_grad(lambda X: noisy(X, training=True))(X)
        with pytest.raises(RuntimeError, match="recompute_grad"):
            tape.gradient(Y, X)
