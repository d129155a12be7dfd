"""The nets: the same function in every framework, from scratch and concise."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import multidrop as md
from multidrop.section.architecture import Architecture
from multidrop.spec import masks

SIZES = {"num_inputs": 12, "num_outputs": 5, "num_hiddens1": 16, "num_hiddens2": 9}
BUILDERS = (md.Net, md.concise_net)

build = pytest.mark.parametrize("build", BUILDERS, ids=["from-scratch", "concise"])


def forward(backend: Any, net: Any, X: np.ndarray, training: bool) -> np.ndarray:
    """The net's logits, in the mode that each framework has its own way to ask for."""
    tensor = backend.tensor(X)
    if backend.name == "tensorflow":
        return backend.to_numpy(net(tensor, training=training))
    if backend.name == "mxnet":
        from mxnet import autograd

        with autograd.record(training):
            return backend.to_numpy(net(tensor))
    net.train() if training else net.eval()
    return backend.to_numpy(net(tensor))


def by_hand(state: dict[str, np.ndarray], X: np.ndarray, probabilities: tuple[float, float] | None) -> np.ndarray:
    """The section's formulas on the oracle's masks."""
    H = X.reshape(len(X), -1)
    for number in (1, 2):
        H = np.maximum(H @ state[f"W{number}"] + state[f"b{number}"], 0)
        if probabilities:
            H = masks.dropout(H, probabilities[number - 1], md.Key(*map(int, state[f"dropout{number}"])))
    return H @ state["W3"] + state["b3"]


@build
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_section_formulas(backend: Any, build: Callable[..., Any], dtype: str) -> None:
    net = build(**SIZES, dropout1=0.2, dropout2=0.5, seed=4, dtype=dtype)
    X = np.random.default_rng(0).normal(size=(8, 1, 3, 4)).astype(dtype)
    state = backend.get_state(net)
    for name, weight in state.items():  # larger than the initial ones, so that every term shows in the result
        if not name.startswith("dropout"):
            state[name] = (weight + 0.5 * np.random.default_rng(1).normal(size=weight.shape)).astype(dtype)
    backend.set_state(net, state)
    tolerance = {"rtol": 1e-12, "atol": 1e-12} if dtype == "float64" else {"rtol": 1e-4, "atol": 1e-5}
    np.testing.assert_allclose(forward(backend, net, X, False), by_hand(state, X, None), **tolerance)
    np.testing.assert_allclose(forward(backend, net, X, True), by_hand(state, X, (0.2, 0.5)), **tolerance)
    after = backend.get_state(net)
    for name in ("dropout1", "dropout2"):  # the evaluation took no mask, the training step one
        assert after[name].tolist() == [state[name][0], state[name][1] + 1]
    np.testing.assert_allclose(forward(backend, net, X, True), by_hand(after, X, (0.2, 0.5)), **tolerance)


def test_arguments(backend: Any) -> None:
    """Are the same in the library and in the backend, with each in the documentation."""
    for ours, own in ((md.Net, backend.Net), (md.concise_net, backend.concise_net)):
        parameters = inspect.signature(ours).parameters
        assert inspect.signature(own).parameters == parameters
        assert [*parameters][:4] == ["num_inputs", "num_outputs", "num_hiddens1", "num_hiddens2"]
        assert ("is_training" in parameters) == (ours is md.Net)
        described = re.search(r"\n\nArgs:\n(.*?)\n\nRaises:", ours.__doc__ or "", re.DOTALL)
        assert described
        assert re.findall(r"^    (\w+): ", described[1], re.MULTILINE) == [*parameters]
        for build in (ours, own):
            with pytest.raises(TypeError, match=r"\w+\(\) got an unexpected keyword argument 'hiddens'"):
                build(hiddens=3)
            with pytest.raises(TypeError, match=r"\w+\(\) too many positional arguments"):
                build(784, 10, 256, 256, 0.5)
    for build in (md.Net, backend.Net):
        with pytest.raises(ValueError, match="is_training: expected True or False; got 2"):
            build(is_training=2)


@build
def test_initial_state(backend: Any, build: Callable[..., Any]) -> None:
    """Every backend starts with the weights and the keys that the seed stands for."""
    seeds = md.Key(4)
    state = backend.get_state(build(**SIZES, seed=4))
    expected = Architecture(**SIZES).perceptron.initial_weights(seeds.fold_in("weights").fold_in(0))
    assert list(state) == ["W1", "b1", "W2", "b2", "W3", "b3", "dropout1", "dropout2"]
    for name, weight in expected.items():
        assert state[name].dtype == np.float32
        assert np.array_equal(state[name], weight)
    for number in (0, 1):
        key = seeds.fold_in("dropout").fold_in(number)
        assert state[f"dropout{number + 1}"].dtype == np.uint64
        assert state[f"dropout{number + 1}"].tolist() == [key.seed, key.call]


def test_initial_weights() -> None:
    weights = Architecture(dtype="float64").perceptron.initial_weights(md.Key(0))
    assert not weights["b1"].any()
    # 200,704 draws: mean and deviation of a normal(0, 0.01) to five standard errors.
    assert abs(weights["W1"].mean()) < 5 * 0.01 / np.sqrt(weights["W1"].size)
    assert abs(weights["W1"].std() - 0.01) < 5 * 0.01 / np.sqrt(2 * weights["W1"].size)


@build
def test_manual_seed_and_seed_are_the_same(backend: Any, build: Callable[..., Any]) -> None:
    md.manual_seed(4)
    first, second = backend.get_state(build(**SIZES)), backend.get_state(build(**SIZES, seed=4))
    assert all(np.array_equal(first[name], second[name]) for name in second)


@build
def test_state_goes_to_a_net_of_another_backend(backend: Any, build: Callable[..., Any]) -> None:
    with md.use_backend("numpy"):
        import multidrop_numpy

        source = md.Net(**SIZES, seed=2**64 - 5)
        source.dropout1.stream.key = md.Key(2**63 + 1, 2**64 - 1)
        state = multidrop_numpy.get_state(source)
    net = build(**SIZES, seed=9)
    backend.set_state(net, state)
    received = backend.get_state(net)
    assert all(np.array_equal(received[name], state[name]) for name in state)
    forward(backend, net, np.zeros((2, 12), np.float32), True)
    assert backend.get_state(net)["dropout1"].tolist() == [2**63 + 1, 0]  # the call after 2^64 − 1


@build
def test_state_that_does_not_fit(backend: Any, build: Callable[..., Any]) -> None:
    net = build(**SIZES, seed=0)
    state = backend.get_state(net)
    with pytest.raises(ValueError, match=r"state: expected .*missing \['W1'\]"):
        backend.set_state(net, {name: array for name, array in state.items() if name != "W1"})
    with pytest.raises(ValueError, match=r"expected b1 of shape \(16,\); got \(3,\)"):
        backend.set_state(net, state | {"b1": np.zeros(3, np.float32)})


def test_is_training_false_never_drops(backend: Any) -> None:
    net = md.Net(**SIZES, dropout1=1.0, dropout2=1.0, is_training=False, seed=0)
    X = np.ones((4, 12), np.float32)
    if backend.name in ("numpy", "torch"):
        assert net.training is False  # where the mode is the net's, it begins so
        logits = backend.to_numpy(net(backend.tensor(X)))
    else:
        logits = forward(backend, net, X, True)
    assert logits.any()


def test_layers_take_a_mask_a_call_in_training_alone(backend: Any) -> None:
    layer = md.Dropout(0.5, seed=3)
    X = np.ones((32, 32), np.float32)
    drawn = [forward(backend, layer, X, training) for training in (True, False, True)]
    expected = [masks.dropout(X, 0.5, md.Key(3, 0)), X, masks.dropout(X, 0.5, md.Key(3, 1))]
    assert all(np.array_equal(a, b) for a, b in zip(drawn, expected, strict=True))


def test_a_layer_at_p_zero_still_takes_its_call(backend: Any) -> None:
    """Every training-mode forward takes one call, whatever p is, so that changing p changes no other mask."""
    net = md.Net(**SIZES, dropout1=0.0, dropout2=1.0, seed=3)
    forward(backend, net, np.ones((2, 12), np.float32), True)
    state = backend.get_state(net)
    assert [int(state[name][1]) for name in ("dropout1", "dropout2")] == [1, 1]


def test_unseeded_nets_differ(backend: Any) -> None:
    first, second = backend.get_state(md.Net(**SIZES)), backend.get_state(md.Net(**SIZES))
    assert not np.array_equal(first["W1"], second["W1"])
    assert "dropout1" not in first
    X = np.ones((32, 32), np.float32)
    layer = md.Dropout(0.5)
    assert not np.array_equal(forward(backend, layer, X, True), forward(backend, layer, X, True))
