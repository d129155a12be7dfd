"""Normal noise: the oracle against the specification, and the layers that multiply by it or add it against the oracle.

The normal numbers are promised to within 16 units in the last place of float64: the quantile's published accuracy is
about 1 in 10^16, its evaluation adds a few roundings, and what was measured is 6 units or less, everywhere.
"""

from __future__ import annotations

import gc
import math
import weakref
from contextlib import nullcontext
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ml_dtypes import bfloat16
from named import named

import multidrop as md
from multidrop.family import oracle
from multidrop.spec import masks
from multidrop.spec.keys import as_key

NORMAL = NormalDist()
KEY = md.Key(7, 3)
ULPS = 16
SHAPE = (6, 35)  # no multiple of 8
BAD_PROBABILITIES = (1.5, -0.1, float("nan"), None)

# Of the specification: (key, start, the first numbers).
VECTORS = [
    (md.Key(0), 0, [1.3376878026979242, -0.25582679789309426, 0.744426693502566, 1.1775564802381424]),
    (md.Key(7, 3), 0, [-0.4145072289542464, 0.234176314748989, -0.7212078182310511, -1.1562953173473252]),
    (md.Key(11, 5), 2**35 - 4, [-0.23910802403255438, 1.1444384359210265, 0.49425246138606355, 0.45871838569914924]),
]


def ulps(a: np.ndarray, b: np.ndarray) -> float:
    """The largest difference, in units in the last place of b."""
    return float((np.abs(a - b) / np.spacing(np.abs(b))).max())


def close(a: Any, b: np.ndarray) -> bool:
    """Equal but for one rounding more or less to float32: numbers that differ in float64's last places seldom round
    apart."""
    return np.allclose(np.asarray(a, np.float64), np.asarray(b, np.float64), rtol=2.0**-22, atol=1e-12)


def values(shape: tuple[int, ...] = SHAPE, dtype: Any = np.float32) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(dtype)


def gaussian_dropout(x: np.ndarray, stddev: float, key: int | md.Key) -> np.ndarray:
    """Gaussian dropout whose noise has that deviation."""
    return oracle.apply(md.family.GaussianDropout(stddev**2 / (1.0 + stddev**2)), x, as_key(key))


def gaussian_noise(x: np.ndarray, stddev: float, key: int | md.Key) -> np.ndarray:
    return oracle.apply(md.family.GaussianNoise(stddev), x, as_key(key))


class TestOracle:
    @pytest.mark.parametrize(
        "uniforms",
        [
            np.arange(4096),
            2**32 - 1 - np.arange(4096),
            2**31 + np.arange(-2048, 2048),
            np.round((0.5 - 0.425) * 2**32) + np.arange(-2048, 2048),
            np.round((0.5 + 0.425) * 2**32) + np.arange(-2048, 2048),
            np.random.default_rng(0).integers(0, 2**32, 2**15),
            2.0 ** np.random.default_rng(0).uniform(0, 32, 2**13) // 1,
        ],
        ids=["lowest", "highest", "middle", "lower seam", "upper seam", "any", "small"],
    )
    def test_the_quantile(self, uniforms: np.ndarray) -> None:
        """Against the standard library's, and its symmetry in every bit."""
        u = (uniforms + 0.5) / 2**32
        z = masks.normal_quantile(u)
        assert ulps(z, np.array([NORMAL.inv_cdf(number) for number in u])) <= ULPS
        assert np.array_equal(masks.normal_quantile(1.0 - u), -z)

    @pytest.mark.parametrize(("key", "start", "expected"), VECTORS)
    def test_vectors(self, key: md.Key, start: int, expected: list[float]) -> None:
        assert ulps(masks.normals(4, key, start), np.array(expected)) <= ULPS

    @given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 40), st.integers(0, 40))
    def test_they_are_of_the_uniforms(self, seed: int, call: int, start: int, count: int) -> None:
        key = md.Key(seed, call)
        expected = [NORMAL.inv_cdf((u + 0.5) / 2**32) for u in masks.uniforms(count, key, start).tolist()]
        assert np.allclose(masks.normals(count, key, start), expected, rtol=ULPS * 2.0**-52, atol=0.0)

    def test_the_ends(self) -> None:
        """Of the lowest and the highest of all uniforms."""
        ends = masks.normal_quantile((np.array([0.0, 2.0**32 - 1]) + 0.5) / 2**32)
        assert ends == pytest.approx([-6.337957754553789, 6.337957754553789], rel=1e-15)

    def test_moments_and_tails(self) -> None:
        """Each within 5 deviations of what a normal distribution has; the key is fixed, so that it passes always or
        never. The deviations of the mean, of the variance, and of the fraction p beyond a bound: 1/√N, √(2/N) and
        √(p(1 − p)/N)."""
        n = 2**22
        z = masks.normals(n, md.Key(2014, 15))
        assert abs(z.mean()) < 5 / math.sqrt(n)
        assert abs((z**2).mean() - 1.0) < 5 * math.sqrt(2 / n)
        for bound in (-4.5, -3.0, -1.0, 0.0, 0.5, 2.0, 4.0):
            p = NORMAL.cdf(bound)
            assert abs((z < bound).mean() - p) < 5 * math.sqrt(p * (1 - p) / n)
        # Neighbours, and those that share a Philox word or call, have nothing to do with each other.
        for lag in (1, 2, 8):
            assert abs((z[lag:] * z[:-lag]).mean()) < 5 / math.sqrt(n)

    @given(st.integers(0, 2**62), st.integers(0, 100), st.integers(0, 100))
    def test_a_part_has_the_numbers_of_the_whole(self, start: int, first: int, count: int) -> None:
        whole = masks.normals(first + count, KEY, start)
        assert ulps(np.append(whole[first:], 1.0), np.append(masks.normals(count, KEY, start + first), 1.0)) <= 1.0

    def test_shapes(self) -> None:
        assert np.allclose(masks.normals((2, 3, 4), 1), masks.normals(24, 1).reshape(2, 3, 4), rtol=1e-15)
        assert masks.normals((3, 0), 1).shape == (3, 0)
        assert masks.normals((), 1).shape == ()

    @pytest.mark.parametrize("arguments", [(-1, 0), (8, -1), (8, "0"), (8, 0, -8), (8, 0, 2**64 - 7)], ids=str)
    def test_bad_arguments(self, arguments: Any) -> None:
        with pytest.raises(ValueError, match=r"(shape|key|start): expected"):
            masks.normals(*arguments)

    @pytest.mark.parametrize("dtype", [np.float16, bfloat16, np.float32, np.float64])
    def test_it_is_rounded_once(self, dtype: Any) -> None:
        """To the type computed in, and from there to the array's."""
        x = values(dtype=dtype)
        compute = np.float64 if dtype == np.float64 else np.float32
        z = masks.normals(SHAPE, KEY)
        expected = (x.astype(compute) * (1.0 + 0.5 * z).astype(compute)).astype(dtype)
        assert np.array_equal(gaussian_dropout(x, 0.5, KEY), expected)
        expected = (x.astype(compute) + (0.5 * z).astype(compute)).astype(dtype)
        assert np.array_equal(gaussian_noise(x, 0.5, KEY), expected)
        assert gaussian_dropout(x, 0.0, KEY) is x
        assert gaussian_noise(x, 0.0, KEY) is x

    def test_deviations(self) -> None:
        assert masks.gaussian_stddev("p", 0.5) == 1.0
        assert masks.gaussian_stddev("p", 0.2) == 0.5
        with pytest.raises(ValueError, match=r"rate: expected a probability below 1; got 1\.0"):
            masks.gaussian_stddev("rate", 1.0)


def test_alpha_affine_keeps_mean_and_variance() -> None:
    """Of a variable of mean 0 and variance 1, kept with probability 1 − p and else −α, exactly."""
    for p in (0.1, 0.5, 0.9):
        scale, shift = masks.alpha_affine(p)
        kept, dropped = scale / (1.0 - p), shift  # of x + α where kept, and in place of it where not
        mean = (1.0 - p) * (kept * masks.ALPHA + shift) + p * dropped
        variance = (1.0 - p) * (kept**2 + (kept * masks.ALPHA + shift) ** 2) + p * dropped**2 - mean**2
        assert (mean, variance) == (pytest.approx(0.0, abs=1e-15), pytest.approx(1.0))
    assert masks.alpha_affine(1.0) == (0.0, 0.0)


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
        from multidrop_tensorflow.draw import normals
        from multidrop_tensorflow.position import position_of

        z = run(lambda position: normals(tf.TensorShape((2**20 - 3,)), position))(position_of(KEY)).numpy()
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


class TestNumPy:
    @pytest.fixture(autouse=True)
    def numpy(self, need: Any) -> None:
        need("numpy")

    @pytest.mark.parametrize(
        ("name", "amount"), [("GaussianDropout", 0.3), ("GaussianDropout", 0.0), ("GaussianNoise", 0.3)]
    )
    def test_derivatives(self, name: str, amount: float) -> None:
        """Against differences, element by element, of the output along a fixed direction."""
        import multidrop_numpy

        layer, x = getattr(multidrop_numpy, name)(amount, seed=7), values(dtype=np.float64)
        direction = values(dtype=np.float64)[::-1]

        def along(x: np.ndarray) -> np.ndarray:
            layer.stream.key = md.Key(7)
            return layer(x) * direction

        along(x)
        dx, h = layer.backward(direction), 1e-6
        assert dx == pytest.approx((along(x + h) - along(x - h)) / (2 * h), rel=1e-6, abs=1e-8)

    def test_modes_and_calls(self) -> None:
        import multidrop_numpy

        x = values()
        for layer, expected in (
            (multidrop_numpy.GaussianDropout(0.5, seed=7), lambda key: gaussian_dropout(x, 1.0, key)),
            (multidrop_numpy.GaussianNoise(0.5, seed=7), lambda key: gaussian_noise(x, 0.5, key)),
        ):
            for call in range(2):
                assert np.array_equal(layer(x), expected(md.Key(7, call)))
                assert layer.eval()(x) is x
                assert layer.backward(x) is x
                layer.train()
            with pytest.raises(TypeError, match=r"layer: expected one of .*, which drop by a mask; got"):
                md.last_mask(layer)
            with pytest.raises(TypeError, match="X: expected a tensor of type"):
                layer(np.arange(4))

    @pytest.mark.parametrize("bad", [-0.1, float("inf"), float("nan"), None, "0.5", True], ids=named)
    def test_bad_amounts(self, bad: Any) -> None:
        import multidrop_numpy

        with pytest.raises(ValueError, match=r"p: expected .*; got "):
            multidrop_numpy.GaussianDropout(bad)
        with pytest.raises(ValueError, match=r"stddev: expected .*; got "):
            multidrop_numpy.GaussianNoise(bad)
        with pytest.raises(ValueError, match="p: expected a probability below 1; got "):
            multidrop_numpy.GaussianDropout(1.0)

    def test_a_probability_that_is_changed(self) -> None:
        """Is checked as it is set, and one that is bad changes nothing."""
        import multidrop_numpy

        layer, x = multidrop_numpy.GaussianDropout(0.2, seed=7), values()
        for bad in (1.0, *BAD_PROBABILITIES):
            with pytest.raises(ValueError, match="p: expected a probability"):
                layer.p = bad
        layer.p = 0.5
        assert np.array_equal(layer(x), gaussian_dropout(x, 1.0, 7))

    def test_names(self) -> None:
        import multidrop_numpy

        assert repr(multidrop_numpy.GaussianDropout(0.5)) == "GaussianDropout(p=0.5)"
        assert repr(multidrop_numpy.GaussianNoise(0.5)) == "GaussianNoise(stddev=0.5)"

    @pytest.mark.parametrize("name", ["GaussianDropout", "GaussianNoise"])
    def test_they_are_those_of_keras(self, name: str, need: Any) -> None:
        need("tensorflow")
        import multidrop_numpy
        import multidrop_tensorflow

        x = values()
        md.manual_seed(3)
        ours, keras = (getattr(backend, name)(0.4) for backend in (multidrop_numpy, multidrop_tensorflow))
        for _ in range(2):
            assert close(keras(x, training=True), ours(x))
