"""The hand-written gradients of the NumPy backend, against finite differences."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import multidrop as md

pytestmark = pytest.mark.usefixtures("numpy_only")


@pytest.fixture
def numpy_only(need: Callable[[str], object]) -> None:
    need("numpy")


def test_softmax_cross_entropy() -> None:
    from multidrop_numpy.functional import softmax_cross_entropy

    logits = np.array([[1.0, 2.0, 3.0], [1000.0, 0.0, -1000.0]])
    losses, gradients = softmax_cross_entropy(logits, np.array([2, 1]))
    assert losses == pytest.approx([-np.log(np.exp(3) / np.exp([1, 2, 3]).sum()), 1000.0])
    assert gradients.sum(axis=1) == pytest.approx([0, 0])
    numeric = [
        (softmax_cross_entropy(logits[:1] + h, np.array([2]))[0] - losses[:1])[0] / 1e-6 for h in 1e-6 * np.eye(3)
    ]
    assert gradients[0] == pytest.approx(numeric, abs=1e-5)


@pytest.mark.parametrize("build", [md.Net, md.concise_net])
def test_backward(build: Callable[..., object]) -> None:
    """Every weight's gradient, and the input's, on a fixed mask."""
    from multidrop_numpy import get_state, set_state
    from multidrop_numpy.functional import softmax_cross_entropy

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
