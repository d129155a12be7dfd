"""Normal noise: the oracle against the specification, and the layers that multiply by it or add it against the oracle.

The normal numbers are promised to within 16 units in the last place of float64: the quantile's published accuracy is
about 1 in 10^16, its evaluation adds a few roundings, and what was measured is 6 units or less, everywhere.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest
from gaussian import BAD_PROBABILITIES, KEY, SHAPE, ULPS, close, gaussian_dropout, gaussian_noise, ulps, values
from hypothesis import given
from hypothesis import strategies as st
from ml_dtypes import bfloat16
from named import named

import multidrop as md
from multidrop.spec import masks

NORMAL = NormalDist()

# Of the specification: (key, start, the first numbers).
VECTORS = [
    (md.Key(0), 0, [1.3376878026979242, -0.25582679789309426, 0.744426693502566, 1.1775564802381424]),
    (md.Key(7, 3), 0, [-0.4145072289542464, 0.234176314748989, -0.7212078182310511, -1.1562953173473252]),
    (md.Key(11, 5), 2**35 - 4, [-0.23910802403255438, 1.1444384359210265, 0.49425246138606355, 0.45871838569914924]),
]


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
