"""The hand-written gradients of the NumPy backend, against finite differences."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import multidrop_numpy
import numpy as np
import pytest
from ml_dtypes import bfloat16

import multidrop as md
from multidrop import family
from multidrop.testing import same_bits

pytestmark = pytest.mark.usefixtures("numpy_only")


@pytest.fixture
def numpy_only(need: Callable[[str], object]) -> None:
    need("numpy")


def test_softmax_cross_entropy() -> None:
    from multidrop.loss import softmax_cross_entropy

    logits = np.array([[1.0, 2.0, 3.0], [1000.0, 0.0, -1000.0]])
    losses, gradients = softmax_cross_entropy(logits, np.array([2, 1]))
    assert losses == pytest.approx([-np.log(np.exp(3) / np.exp([1, 2, 3]).sum()), 1000.0])
    assert gradients.sum(axis=1) == pytest.approx([0, 0])
    numeric = [
        (softmax_cross_entropy(logits[:1] + h, np.array([2]))[0] - losses[:1])[0] / 1e-6 for h in 1e-6 * np.eye(3)
    ]
    assert gradients[0] == pytest.approx(numeric, abs=1e-5)
    for bad in (-1, 3, -100):  # which NumPy would count from the end where it can
        with pytest.raises(ValueError, match=rf"labels: expected integers in \[0, 3\); got {bad}$"):
            softmax_cross_entropy(logits, np.array([2, bad]))


@pytest.mark.parametrize("build", [md.Net, md.concise_net])
def test_backward(build: Callable[..., object]) -> None:
    """Every weight's gradient, and the input's, on a fixed mask."""
    from multidrop_numpy import get_state, set_state

    from multidrop.loss import softmax_cross_entropy

    with md.use_backend("numpy"):
        net = build(num_inputs=6, num_outputs=3, num_hiddens1=5, num_hiddens2=4, seed=1, dtype="float64")
    generator = np.random.default_rng(0)
    X, y = generator.normal(size=(7, 2, 3)), generator.integers(0, 3, size=7)
    state = {
        name: value if name.startswith("dropout") else generator.normal(size=value.shape)
        for name, value in get_state(net).items()
    }

    def loss(changed: dict[str, np.ndarray], X: np.ndarray) -> float:
        set_state(net, state | changed)  # the streams too, so that the masks are the same each time
        return softmax_cross_entropy(net(X), y)[0].sum()

    loss({}, X)
    dX = net.backward(softmax_cross_entropy(net_logits(net, state, X), y)[1])
    gradients = named_gradients(net)
    for name, gradient in gradients.items():
        for index in np.ndindex(gradient.shape):
            step = np.zeros_like(state[name])
            step[index] = 1e-6
            numeric = (loss({name: state[name] + step}, X) - loss({name: state[name] - step}, X)) / 2e-6
            assert gradient[index] == pytest.approx(numeric, abs=1e-6)
    step = np.zeros_like(X)
    step[3, 1, 2] = 1e-6
    assert dX.reshape(X.shape)[3, 1, 2] == pytest.approx((loss({}, X + step) - loss({}, X - step)) / 2e-6, abs=1e-6)


def net_logits(net: object, state: dict[str, np.ndarray], X: np.ndarray) -> np.ndarray:
    from multidrop_numpy import set_state

    set_state(net, state)
    return net(X)


def named_gradients(net: object) -> dict[str, np.ndarray]:
    if net.gradients:
        return dict(net.gradients)
    linear = [layer for layer in net.children() if layer.gradients]
    return {f"{name}{n}": layer.gradients[name] for n, layer in enumerate(linear, 1) for name in ("W", "b")}


def test_backward_after_evaluation_passes_on() -> None:
    with md.use_backend("numpy"):
        layer = md.Dropout(0.5, seed=0)
    dY = np.ones((2, 3))
    layer.eval()(dY)
    assert layer.backward(dY) is dY


@pytest.mark.parametrize("name", ["Dropout", "AlphaDropout", "GaussianDropout"])
def test_backward_goes_by_the_p_of_the_forward(name: str) -> None:
    layer, other = (getattr(multidrop_numpy, name)(0.3, seed=0) for _ in range(2))
    X, dY = np.random.default_rng(0).normal(size=(2, 40, 5))
    layer(X), other(X)
    layer.p = 0.8
    assert np.array_equal(layer.backward(dY), other.backward(dY))
    if name == "Dropout":
        layer.p = 0.3
        layer.after_relu(X), other.after_relu(X)
        layer.p = 0.8
        assert np.array_equal(layer.backward(dY), other.backward(dY))


class TestAlphaDropout:
    def test_values(self) -> None:
        """a·x + a·α·p where kept, a·α·(p − 1) where dropped, with the a that keeps the variance."""
        from multidrop_numpy import AlphaDropout

        x, p, alpha = np.random.default_rng(0).normal(size=(4, 6, 5, 5)), 0.3, 1.7580993408473766
        a = ((1 - p) * (1 + p * alpha**2)) ** -0.5
        layer = AlphaDropout(p, (2, 3), seed=7)
        for call in range(2):
            keep = md.keep_mask((4, 6, 1, 1), p, md.Key(7, call))
            assert np.allclose(layer(x), a * np.where(keep, x, -alpha) + a * alpha * p, rtol=1e-12, atol=1e-12)
            assert np.allclose(layer.backward(x), np.where(keep, a * x, 0.0), rtol=1e-12)
            assert np.array_equal(md.last_mask(layer).keep(), np.broadcast_to(keep, x.shape))
        assert layer.eval()(x) is x
        assert layer.backward(x) is x
        assert repr(layer) == "AlphaDropout(p=0.3, axes=(2, 3))"

    @pytest.mark.parametrize("p", [0.0, 0.3, 0.9, 1.0])
    def test_backward(self, p: float) -> None:
        """Against differences; the layer is linear in x but for what it moves all by."""
        from multidrop_numpy import AlphaDropout

        layer, (x, direction) = AlphaDropout(p, seed=7), np.random.default_rng(0).normal(size=(2, 64))

        def along(x: np.ndarray) -> np.ndarray:
            layer.stream.key = md.Key(7)
            return layer(x) * direction

        along(x)
        assert layer.backward(direction) == pytest.approx((along(x + 1e-4) - along(x - 1e-4)) / 2e-4, abs=1e-9)

    def test_ends(self) -> None:
        from multidrop_numpy import AlphaDropout

        x = np.array([1.0, np.nan, -np.inf])
        assert AlphaDropout(0.0)(x) is x
        assert np.array_equal(AlphaDropout(1.0)(x), np.zeros(3))

    @pytest.mark.parametrize("dtype", [np.float16, bfloat16, np.float32, np.float64])
    def test_types(self, dtype: Any) -> None:
        from multidrop_numpy import AlphaDropout

        layer, x = AlphaDropout(0.3, seed=7), np.ones(64, dtype)
        assert layer(x).dtype == layer.backward(x).dtype == x.dtype
        for call in range(2, 4):
            x = np.random.default_rng(call).normal(size=64).astype(dtype)
            assert same_bits(layer(x), md.apply(family.AlphaDropout(0.3), x, md.Key(7, call - 1)))

    def test_errors(self) -> None:
        from multidrop_numpy import AlphaDropout

        with pytest.raises(ValueError, match="p: expected a probability"):
            AlphaDropout(1.5)
        with pytest.raises(TypeError, match="X: expected a tensor of type"):
            AlphaDropout(0.5)(np.arange(4))

    def test_it_is_that_of_keras_and_torch(self, need: Callable[[str], object]) -> None:
        need("tensorflow")
        need("torch")
        import multidrop_tensorflow
        import multidrop_torch
        import torch

        x = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
        for p in (0.0, 0.2, 1.0):
            y = multidrop_numpy.AlphaDropout(p, seed=1)(x)
            assert np.allclose(y, multidrop_tensorflow.AlphaDropout(p, seed=1)(x, training=True), atol=1e-6)
            assert np.allclose(y, multidrop_torch.AlphaDropout(p, seed=1)(torch.from_numpy(x)), atol=1e-6)


def test_the_gradient_of_another_type_or_shape() -> None:
    """A gradient of NumPy's default type, through the fused ReLU of a float32 net, and what is no gradient of it."""
    X = np.random.default_rng(0).normal(size=(8, 784)).astype("float32")
    dY = np.random.default_rng(1).normal(size=(8, 10))
    gradients = []
    for given in (dY.astype("float32"), dY):
        net = multidrop_numpy.Net(seed=1)
        net(X)
        net.backward(given)
        gradients.append(net.gradients)
    for name, gradient in gradients[0].items():
        np.testing.assert_allclose(gradient, gradients[1][name], rtol=1e-4, atol=1e-6, err_msg=name)
    Y = md.relu_dropout(np.ones((2, 2), "float32"), 0.5, 3)
    with pytest.raises(ValueError, match=r"dy: expected the output's shape \(2, 2\); got \(200, 200\)"):
        md.kernel.relu_gradient(np.ones((200, 200), "float32"), Y, 0.5)


@pytest.mark.parametrize("kind", ["Dropout", "AlphaDropout", "GaussianDropout", "GaussianNoise"])
def test_a_layer_takes_gradients_of_its_output(kind: str) -> None:
    layer = getattr(multidrop_numpy, kind)(0.5, seed=1)
    layer(np.ones((2, 3), "float32"))
    with pytest.raises(ValueError, match=r"dY: expected the shape of the last output, \(2, 3\); got \(3,\)"):
        layer.backward(np.ones(3, "float32"))
    with pytest.raises(TypeError, match=r'dY: expected a tensor .* got int64: convert it with dY.astype\("float32"\)'):
        layer.backward(np.ones((2, 3), int))


@pytest.mark.parametrize("kind", ["Dropout", "AlphaDropout"])
def test_bad_axes_take_no_mask(kind: str) -> None:
    layer = getattr(multidrop_numpy, kind)(0.5, axes=5, seed=1)
    with pytest.raises(ValueError, match="axes: expected integers"):
        layer(np.ones((2, 3)))
    assert layer.stream.key == md.Key(1)


def test_a_layer_comes_once_in_a_sequence() -> None:
    layer = multidrop_numpy.Dropout(0.5, seed=1)
    with pytest.raises(ValueError, match="layers: expected each layer once; got Dropout"):
        multidrop_numpy.Sequential(layer, multidrop_numpy.ReLU(), layer)


def moved(run: Callable[[], object]) -> bool:
    """Whether a call moves NumPy's global generator."""
    before = np.random.get_state()
    run()
    after = np.random.get_state()
    return any(not np.array_equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("kind", family.MEMBERS.values(), ids=lambda kind: kind.__name__)
def test_what_drops_nothing_leaves_the_generator_alone(kind: type[family.Member]) -> None:
    """An unkeyed layer at p = 0, in evaluation mode, and for an empty array; a keyed one, which takes its call. An
    unkeyed one that drops moves it."""
    amount = dataclasses.fields(kind)[0].name
    X = np.ones(kind.example_shape)
    with md.use_backend("numpy"):
        layer, keyed = md.layer(kind(**{amount: 0.25})), md.layer(kind(**{amount: 0.25}), seed=1)
        idle = [] if kind.learns else [md.layer(kind(**{amount: 0.0})), md.layer(kind(**{amount: 0.0}), seed=1)]
    assert moved(lambda: layer(X))
    assert not moved(lambda: layer(X[:0]))
    assert not moved(lambda: layer.eval()(X))
    assert not moved(lambda: keyed(X))
    for each in idle:
        assert not moved(lambda each=each: each(X))
        assert each.backward(X) is X
    assert [each.stream.key for each in (keyed, *idle[1:])] == [md.Key(1, 1)] * (1 + len(idle[1:]))


def test_calls_that_drop_nothing_leave_the_generator_alone() -> None:
    X = np.ones((4, 5), np.float32)
    for idle in (
        lambda: md.dropout_layer(X, 0.0),
        lambda: md.relu_dropout(X, 0.0),
        lambda: md.dropout_layer(X[:0], 0.5),
        lambda: md.dropout_layer(X, 0.5, 1),
        lambda: md.apply(family.GaussianNoise(0.0), X),
        lambda: md.apply(family.DropPath(0.0), X),
    ):
        assert not moved(idle)
    for drops in (lambda: md.dropout_layer(X, 0.5), lambda: md.apply(family.DropPath(0.1), X)):
        assert moved(drops)
    md.manual_seed(3)  # which counts the calls, whatever p is
    md.dropout_layer(X, 0.0)
    second = md.Key(md.Key(3).fold_in("calls").seed, 1)
    assert np.array_equal(md.dropout_layer(X, 0.5), md.dropout_layer(X, 0.5, second))


def test_a_net_shows_and_keeps() -> None:
    """Its sizes, probabilities and mode; and its hidden activations."""
    net = multidrop_numpy.Net(6, 3, 5, 4, dropout1=0.0, dropout2=0.5, seed=1)
    assert repr(net) == "Net(6 -> 5 -> 4 -> 3, dropout1=0.0, dropout2=0.5, training=True)"
    assert repr(net.eval()).endswith("training=False)")
    X = np.ones((2, 6), np.float32)
    Y, w = net.train()(X), net.parameters
    assert np.array_equal(net.H1, np.maximum(X @ w["W1"] + w["b1"], 0))
    assert np.array_equal(Y, net.H2 @ w["W3"] + w["b3"])
    assert (net.H1.shape, net.H2.shape) == ((2, 5), (2, 4))


def test_the_regularizer_of_concrete_dropout() -> None:
    """The divergence of the paper, and its gradients by differences."""
    layer, weight = multidrop_numpy.ConcreteDropout(0.3), np.random.default_rng(0).normal(size=(4, 3))
    p = layer.p
    entropy = -(p * np.log(p) + (1 - p) * np.log(1 - p))
    expected = 0.5**2 * (1 - p) / 2 * np.square(weight / (1 - p)).sum() - 4 * entropy
    assert layer.regularizer(weight, length_scale=0.5) == pytest.approx(expected)
    of_logit, of_weight = layer.regularizer_gradients(weight, length_scale=0.5)
    step = 1e-6 * np.eye(12).reshape(12, 4, 3)[5]
    slope = [layer.regularizer(weight + sign * step, length_scale=0.5) for sign in (1, -1)]
    assert of_weight[1, 2] == pytest.approx((slope[0] - slope[1]) / 2e-6)
    ends = []
    for sign in (1, -1):
        layer.parameters["logit"][...] += sign * 1e-6
        ends.append(layer.regularizer(weight, length_scale=0.5))
        layer.parameters["logit"][...] -= sign * 1e-6
    assert of_logit == pytest.approx((ends[0] - ends[1]) / 2e-6)
    with pytest.raises(ValueError, match="length_scale: expected a finite number of at least 0; got -1"):
        layer.regularizer(weight, length_scale=-1)


@pytest.mark.parametrize("name", sorted(family.MEMBERS))
def test_named_layers(name: str) -> None:
    """Are what `md.layer` gives, but for the one that has an argument more than the member."""
    named = getattr(multidrop_numpy, name)
    with md.use_backend("numpy"):
        layer = md.layer(family.MEMBERS[name]())
    assert type(layer) is (multidrop_numpy.MemberLayer if name == "AlphaDropout" else named)
    assert repr(layer) == repr(named())
