"""`md.perceptron`: nets of any depth with any noise, the same in every framework."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import multidrop as md
from multidrop import Key, family
from multidrop.family import oracle
from multidrop.testing import same_bits

SIZES = (12, 16, 9, 5)
SEED = 3
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(32, 1, 3, 4)), RNG.integers(0, 5, 32)

IMAGES = ("DropBlock", "SpatialDropout", "FeatureAlphaDropout", "LockedDropout")
"""The members that do not take X of shape (n, features)."""
NOISE = {
    **{name: (kind(), kind(), kind()) for name, kind in family.MEMBERS.items() if name not in IMAGES},
    "none": None,
    "mixed": (family.GaussianNoise(0.3), family.DropConnect(0.5), 0.2),
    "of the section": (None, 0.2, 0.5),
}

noises = pytest.mark.parametrize("noise", NOISE.values(), ids=NOISE.keys())


def trained(noise: Any, sizes: Any = SIZES, steps: int = 3) -> tuple[dict[str, Any], list[float], dict[str, Any]]:
    """The state of a net of the current backend before training, the losses, and its state afterwards."""
    backend: Any = md.dispatch.current()
    net = md.perceptron(sizes, noise, seed=SEED, dtype="float64")
    before = backend.get_state(net)
    trainer = backend.Trainer(net, 0.5, 0.1)
    losses = [float(trainer.step(backend.tensor(X), backend.tensor(Y))[0]) for _ in range(steps)]
    losses.append(float(trainer.evaluate(backend.tensor(X), backend.tensor(Y))[0]))
    return before, losses, backend.get_state(net)


@noises
def test_every_backend_trains_alike(backend: Any, noise: Any) -> None:
    found = trained(noise)
    with md.use_backend("numpy"):
        expected = trained(noise)
    before, losses, after = found
    assert list(before) == list(expected[0])
    for name, array in expected[0].items():
        assert before[name].dtype == array.dtype
        assert np.array_equal(before[name], array)
    assert np.allclose(losses, expected[1], rtol=1e-11, atol=0)
    for name, array in expected[2].items():
        assert np.allclose(after[name], array, rtol=1e-9, atol=1e-13), name


def test_a_linear_model(backend: Any) -> None:
    for sizes, noise in (((12, 5), None), ((12, 5), (0.3,)), ((12, 5), (family.DropConnect(0.3),))):
        before, losses, after = trained(noise, sizes)
        with md.use_backend("numpy"):
            assert np.allclose(losses, trained(noise, sizes)[1], rtol=1e-11, atol=0)
        assert [*before] == ["W1", "b1", *(["dropout0"] if noise else [])]
        assert losses[2] < losses[0]
        if noise:
            assert after["dropout0"][1] == 3  # a call for each step, none for the evaluation
    assert md.perceptron((20, 1), None) is not None


def test_the_net_of_the_section(backend: Any) -> None:
    """`Net`, `concise_net` and `perceptron` start alike, and so do their losses."""
    nets = [
        md.Net(12, 5, 16, 9, seed=SEED, dtype="float64"),
        md.concise_net(12, 5, 16, 9, seed=SEED, dtype="float64"),
        md.perceptron(SIZES, seed=SEED, dtype="float64"),
    ]
    states, losses = [backend.get_state(net) for net in nets], []
    for net, state in zip(nets, states, strict=True):
        assert all(same_bits(state[name], array) for name, array in states[0].items())
        trainer = backend.Trainer(net, 0.5)
        losses.append([float(trainer.step(backend.tensor(X), backend.tensor(Y))[0]) for _ in range(3)])
    assert np.allclose(losses, losses[0], rtol=1e-11, atol=0)


def test_streams_are_named_after_their_layer(backend: Any) -> None:
    state = backend.get_state(md.perceptron(SIZES, (0.1, None, family.DropConnect(0.5)), seed=4))
    assert [name for name in state if name.startswith("dropout")] == ["dropout0", "dropout2"]
    for number, name in enumerate(("dropout0", "dropout2")):  # the n-th noise has the n-th key
        key = Key(4).fold_in("dropout").fold_in(number)
        assert state[name].tolist() == [key.seed, key.call]
    assert not [name for name in backend.get_state(md.perceptron(SIZES, (0.1, None, 0.2))) if "dropout" in name]


def step(backend: Any, noise: Any, lr: float = 1.0) -> tuple[dict[str, Any], dict[str, Any]]:
    """The state of a linear model before and after one step of training, with weights of size 1."""
    net = md.perceptron((12, 5), noise, seed=SEED, dtype="float64")
    state = backend.get_state(net)
    state["W1"] = np.random.default_rng(1).normal(size=(12, 5))
    backend.set_state(net, state)
    backend.Trainer(net, lr).step(backend.tensor(X), backend.tensor(Y))
    return state, backend.get_state(net)


@pytest.mark.parametrize("member", [family.DropConnect(0.5), family.EmbeddingDropout(0.5)], ids=repr)
def test_weights_are_dropped(backend: Any, member: Any) -> None:
    """By the oracle's mask for W of shape (inputs, outputs), in the forward pass and in the gradient."""
    before, after = step(backend, (member,))
    dropped = oracle.apply(member, before["W1"], Key(*map(int, before["dropout0"])))
    logits = X.reshape(len(X), -1) @ dropped
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    gradient = X.reshape(len(X), -1).T @ (probabilities - np.eye(5)[Y]) / len(X)
    scale = np.where(dropped == 0, 0, 2.0)
    assert np.allclose(before["W1"] - after["W1"], gradient * scale, rtol=1e-10, atol=1e-13)
    assert (dropped == 0).any()


def test_noise_on_the_input(backend: Any) -> None:
    """Is drawn for X of shape (n, features)."""
    member = family.DropPath(0.5)
    before, after = step(backend, (member,))
    noisy = oracle.apply(member, X.reshape(len(X), -1), Key(*map(int, before["dropout0"])))
    logits = noisy @ before["W1"]
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    gradient = noisy.T @ (probabilities - np.eye(5)[Y]) / len(X)
    assert np.allclose(before["W1"] - after["W1"], gradient, rtol=1e-10, atol=1e-13)


def test_a_learned_p_has_no_weight_decay(backend: Any) -> None:
    """It is part of the state, in the net's type, and training changes it by its gradient alone."""
    noise, ends = (None, family.ConcreteDropout(0.3)), []
    for decay in (0.0, 0.9):
        net = md.perceptron((12, 16, 5), noise, seed=SEED)
        state = backend.get_state(net)
        assert state["logit1"].dtype == np.float32
        assert state["logit1"].shape == ()
        assert state["logit1"] == np.float32(np.log(0.3 / 0.7))
        X32 = backend.tensor(X.astype(np.float32))
        backend.Trainer(net, 1e-3, decay).step(X32, backend.tensor(Y))
        ends.append(backend.get_state(net)["logit1"])
    assert ends[0] == ends[1]
    backend.set_state(net, state | {"logit1": np.array(1.5, np.float32)})
    assert backend.get_state(net)["logit1"] == 1.5


@noises
def test_the_state_goes_on(backend: Any, noise: Any) -> None:
    """To a net of another seed, which then has the same loss."""
    net, other = (md.perceptron(SIZES, noise, seed=seed, dtype="float64") for seed in (1, 2))
    tensors = backend.tensor(X), backend.tensor(Y)
    backend.Trainer(net, 0.5).step(*tensors)
    backend.set_state(other, backend.get_state(net))
    trainers = [backend.Trainer(each, 0.5) for each in (net, other)]
    assert trainers[0].step(*tensors) == trainers[1].step(*tensors)


def test_training_is_resumed(backend: Any, tmp_path: Path) -> None:
    images = md.load_fashion_mnist("mini").subset(256, 64)
    noise = (family.GaussianNoise(0.1), family.DropConnect(0.5), family.ConcreteDropout(0.2))

    def run(epochs: int, path: Path, resume: bool) -> tuple[list[float], dict[str, Any]]:
        net = md.perceptron((784, 16, 9, 10), noise, seed=SEED)
        history = md.train(net, *images.batches(64, seed=1), epochs, checkpoint=path, resume=resume)
        return [epoch.train_loss for epoch in history.epochs], backend.get_state(net)

    whole = run(3, tmp_path / "whole", False)
    run(1, tmp_path / "broken", False)
    resumed = run(3, tmp_path / "broken", True)
    assert whole[0] == resumed[0]
    assert all(same_bits(resumed[1][name], array) for name, array in whole[1].items())


def test_without_noise_a_run_needs_no_key(backend: Any, tmp_path: Path) -> None:
    batches = md.load_fashion_mnist("mini").subset(64, 64).batches(64, seed=1)
    md.train(md.perceptron((784, 10), None), *batches, 1, checkpoint=tmp_path / "run")


@noises
def test_compare_and_audit(backend: Any, noise: Any) -> None:
    """Two nets of one seed are equal, and nothing in them is random but what a key decides."""
    with md.use_backend("numpy"):
        other = md.perceptron(SIZES, noise, seed=SEED, dtype="float64")
    net = md.perceptron(SIZES, noise, seed=SEED, dtype="float64")
    assert md.audit(net, X.reshape(32, 12)).random == ()
    result = md.compare(net, other, [X.reshape(32, 12)], seed=5)
    assert result.first is None, result


def test_the_mask_of_a_call(backend: Any) -> None:
    net = md.perceptron(SIZES, (0.5, None, None), seed=SEED)
    layers = net if backend.name == "mxnet" else net.layers if backend.name != "torch" else net
    (layer,) = (each for each in layers if "Dropout" in type(each).__name__)
    key = Key(SEED).fold_in("dropout").fold_in(0)
    assert md.mask_at(layer, 2, (32, 12)).key == Key(key.seed, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((784,),), r"sizes: expected two integers above 0 or more; got "),
        ((7,), r"sizes: expected two integers above 0 or more; got 7"),
        (("784",), r"sizes: expected two integers above 0 or more; got '784'"),
        (((784, 0),), r"sizes\[1\]: expected an integer above 0; got 0"),
        (((2**40, 2**40), None), r"sizes\[0\]: expected fewer than 2\^60 weights a layer"),
        (((784, 10),), r"noise: expected 1 members, numbers or None, one for each linear layer; got "),
        (((784, 10), 0.5), r"noise: expected 1 members, numbers or None, .*; got 0\.5"),
        (((784, 10), (1.5,)), r"noise\[0\]: expected a member of multidrop.family, a probability or None; got 1\.5"),
        (((784, 10), (True,)), r"noise\[0\]: expected a member of multidrop.family, a probability or None; got True"),
        (((784, 10), (family.Dropout,)), r"noise\[0\]: expected a member of multidrop.family, a probability or None"),
        (((784, 10), (family.DropBlock(),)), r"noise\[0\]: expected a member that takes X of shape \(n, 784\)"),
        (((784, 10), (family.LockedDropout(),)), r"noise\[0\]: expected a member that takes .*3 to 31 dimensions"),
        (((784, 10), (family.ConcreteDropout(0.0),)), r"p: expected a probability above 0"),
    ],
)
def test_bad_arguments(backend: Any, arguments: Any, message: str) -> None:
    for build in (md.perceptron, backend.perceptron):
        with pytest.raises(ValueError, match=f"^{message}"):
            build(*arguments, seed=SEED)


def test_arguments(backend: Any) -> None:
    """Are the same in the library and in the backend, with each in the documentation."""
    parameters = inspect.signature(md.perceptron).parameters
    assert inspect.signature(backend.perceptron).parameters == parameters
    assert [*parameters] == ["sizes", "noise", "seed", "dtype"]
    described = re.search(r"\n\nArgs:\n(.*?)\n\nRaises:", md.perceptron.__doc__ or "", re.DOTALL)
    assert described
    assert re.findall(r"^    (\w+): ", described[1], re.MULTILINE) == [*parameters]


def test_a_member_of_ones_own(backend: Any) -> None:
    """Disturbs weights if its class says that it is one of weights."""

    from dataclasses import dataclass

    @dataclass(frozen=True)
    class HalvedWeights(family.Member):
        of_weights = True

        def __call__(self, X: Any, draw: Any) -> Any:
            return X * 0.5

    found = trained((None, HalvedWeights(), None))
    with md.use_backend("numpy"):
        assert np.allclose(found[1], trained((None, HalvedWeights(), None))[1], rtol=1e-11, atol=0)
    assert found[1] != trained(None)[1]


def test_a_keras_perceptron_is_saved_whole(need: Any, tmp_path: Path) -> None:
    need("tensorflow")
    import keras
    import multidrop_tensorflow as ours

    with md.use_backend("tensorflow"):
        net = md.perceptron(SIZES, (0.1, family.DropConnect(0.5), family.ConcreteDropout(0.2)), seed=SEED)
        tensors = ours.tensor(X.astype(np.float32)), ours.tensor(Y)
        ours.Trainer(net, 0.5).step(*tensors)
        net.save(tmp_path / "net.keras")
        loaded = keras.saving.load_model(tmp_path / "net.keras")
        before, after = ours.get_state(net), ours.get_state(loaded)
        assert [*before] == [*after]
        assert all(same_bits(before[name], after[name]) for name in before)
        assert ours.Trainer(net, 0.5).step(*tensors) == ours.Trainer(loaded, 0.5).step(*tensors)


def test_representations(need: Any) -> None:
    """Say what the net is made of."""
    noise = (0.1, family.DropConnect(0.5), family.GaussianNoise(0.3))
    need("numpy")
    with md.use_backend("numpy"):
        text = repr(md.perceptron(SIZES, noise, seed=SEED).eval())
    assert text == (
        "Sequential(\n  (0): Flatten()\n  (1): Dropout(p=0.1)\n  (2): Linear(12, 16)\n  (3): ReLU()\n"
        "  (4): Linear(16, 9, DropConnect(p=0.5))\n  (5): ReLU()\n  (6): GaussianNoise(stddev=0.3)\n"
        "  (7): Linear(9, 5)\n  training=False\n)"
    )
    need("mxnet")
    with md.use_backend("mxnet"):
        text = repr(md.perceptron(SIZES, noise, seed=SEED))
    assert "DroppedDense(16 -> 9, Activation(relu), DropConnect(p=0.5, seed=" in text
