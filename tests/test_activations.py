"""Activations by layer name, in every framework, and their statistics over a training run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import multidrop as md

SIZES = {"num_inputs": 4, "num_outputs": 3, "num_hiddens1": 8, "num_hiddens2": 8}
X = np.random.default_rng(1).normal(size=(6, 4))
BATCHES = [(X, np.arange(6) % 3)]


def net(build: Callable[..., Any] = md.Net, seed: int | None = 1) -> Any:
    return build(**SIZES, dropout1=0.5, dropout2=0.25, seed=seed, dtype="float64")


def forward(backend: Any, model: Any, training: bool) -> Any:
    """The model's output, by the backend's own trainer of comparisons; takes the next masks."""
    return backend.Probe(model).forward(X, training)[0]


def expected(training: bool) -> dict[str, Any]:
    """What the layers of the net compute, in NumPy."""
    with md.use_backend("numpy"):
        reference: Any = net()
        w = reference.parameters
        found, H = {}, X
        for number, layer in ((1, reference.dropout1), (2, reference.dropout2)):
            H = np.maximum(H @ w[f"W{number}"] + w[f"b{number}"], 0)
            if training:
                H = md.dropout_layer(H, layer.p, layer.stream.key)
            found[f"dropout{number}"] = H
    return found | {"": H @ w["W3"] + w["b3"]}


@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
def test_every_framework_gives_the_same(backend: Any, training: bool) -> None:
    found = md.activations(net(), X, ["", "dropout2", "dropout1"], training=training)
    assert list(found) == ["", "dropout2", "dropout1"]
    for path, values in expected(training).items():
        np.testing.assert_allclose(np.asarray(found[path]), values, rtol=1e-12, atol=1e-15)
    assert md.activations(net(), X, training=training).keys() >= found.keys()


@pytest.mark.parametrize("seed", [1, None], ids=["keyed", "unkeyed"])
@pytest.mark.parametrize("build", [md.Net, md.concise_net], ids=["from-scratch", "concise"])
def test_the_next_call_draws_the_same_masks(backend: Any, build: Callable[..., Any], seed: int | None) -> None:
    model = net(build, seed)
    for _ in range(2):
        recorded = md.activations(model, X, training=True)
        if seed is not None:  # without a key, recording again seeds MXNet's generator again
            assert np.array_equal(recorded[""], md.activations(model, X, training=True)[""])
        assert np.array_equal(recorded[""], forward(backend, model, True))
    assert not np.array_equal(recorded[""], md.activations(model, X, training=True)[""])


@pytest.mark.parametrize("training", [False, True])
def test_the_model_is_left_as_it_was(backend: Any, training: bool) -> None:
    model = net()
    forward(backend, model, True)
    before, mask = backend.get_state(model), md.last_mask(model.dropout1)
    mode = getattr(model, "training", None), getattr(model, "is_training", None)
    md.activations(model, X[:2], training=training)
    after = backend.get_state(model)
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert md.last_mask(model.dropout1) == mask
    assert (getattr(model, "training", None), getattr(model, "is_training", None)) == mode


def test_an_error_leaves_it_too(backend: Any) -> None:
    model = net()
    before = backend.get_state(model)
    with pytest.raises(Exception, match=r"."):  # each framework has its own error for a wrong shape
        md.activations(model, np.ones((2, 5)), training=True)
    assert all(np.array_equal(before[name], values) for name, values in backend.get_state(model).items())


def test_statistics_of_a_norm(need: Any) -> None:
    """A batch norm keeps its running statistics, also in training mode; a layer that runs twice has a list."""
    need("torch")
    from torch import nn

    shared = nn.Linear(4, 4)
    model = nn.Sequential(shared, nn.BatchNorm1d(4), nn.Dropout(0.5), shared).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = md.activations(model, X, training=True)
    assert all((model.state_dict()[name] == value).all() for name, value in before.items())
    assert not model.training
    assert [len(values) for values in (found["0"], found["1"])] == [2, 6]
    assert found["1"].mean() == pytest.approx(0, abs=1e-6)  # type: ignore[union-attr]
    recorder = md.RecordActivations(X, "0")
    recorder.record(model)
    assert recorder.variances["0"] == [pytest.approx(np.var(found["0"]), rel=1e-6)]


def test_inputs(backend: Any) -> None:
    given = md.activations(net(), X, "dropout2", of="input")["dropout2"]
    np.testing.assert_allclose(np.maximum(np.asarray(given), 0), expected(False)["dropout2"], rtol=1e-12)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"layers": "dropout3"}, ValueError, r"layers: expected paths among '', .*'dropout1'.*; got 'dropout3'"),
        ({"layers": 3}, ValueError, r"layers: expected paths of layers; got 3"),
        ({"layers": [3]}, ValueError, r"layers: expected paths among .*; got 3"),
        ({"training": 1}, ValueError, r"training: expected True or False; got 1"),
        ({"of": "gradient"}, ValueError, r"of: expected one of 'output', 'input'; got 'gradient'"),
        ({"X": [[1.0]]}, TypeError, r"X: expected a NumPy array or a tensor; got "),
        ({"X": np.array(["a"])}, TypeError, r"X: expected integers or floating numbers; got an array of type <U1"),
        ({"model": 3.0}, TypeError, r"model: expected a model of .*; got "),
    ],
)
def test_bad_arguments(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        md.activations(**({"model": net(), "X": X} | options))


def test_a_layer_that_does_not_run(need: Any) -> None:
    need("torch")
    from torch import nn

    model = nn.Sequential(nn.Linear(4, 2))
    model[0].unused = nn.Linear(2, 2)
    with pytest.raises(ValueError, match=r"layers: expected layers that run, .*'0\.unused' did not"):
        md.activations(model, X, "0.unused")
    assert list(md.activations(model, X)) == ["0", ""]


def test_variances_over_a_run(backend: Any) -> None:
    """Recording by epochs changes nothing in the run, and every framework records the same numbers."""
    recorder = md.RecordActivations(X, ["dropout1", "dropout2"])
    recorder.record(model := net())
    history = md.train(model, BATCHES, BATCHES, 3, callbacks=[recorder])
    alone = md.train(net(), BATCHES, BATCHES, 3)
    assert [e.train_loss for e in history.epochs] == [e.train_loss for e in alone.epochs]
    assert recorder.epochs == [0, 1, 2, 3]
    assert recorder.variances["dropout1"][0] == pytest.approx(np.var(expected(True)["dropout1"]), rel=1e-12)
    assert recorder.means["dropout2"][0] == pytest.approx(np.mean(expected(True)["dropout2"]), rel=1e-12)
    with md.use_backend("numpy"):
        reference = md.RecordActivations(X, ["dropout1", "dropout2"])
        reference.record(model := net())
        md.train(model, BATCHES, BATCHES, 3, callbacks=[reference])
    for path, values in reference.variances.items():
        assert recorder.variances[path] == pytest.approx(values, rel=1e-10)
    assert str(recorder).splitlines()[1].split()[0] == "dropout1"


def test_a_layer_that_does_not_run_in_each_epoch() -> None:
    """Its numbers stay those of the epochs: NaN stands for an epoch without it."""
    import multidrop_numpy as backend

    class Some(backend.Sequential):
        used: tuple[int, ...] = ()

        def forward(self, X: Any) -> Any:
            for number in self.used:
                X = self.layers[number](X)
            return X

    model = Some(backend.ReLU(), backend.ReLU())
    recorder = md.RecordActivations(X, training=False)
    for epoch, used in enumerate(((0,), (1,), (0, 1))):
        model.used = used
        recorder.record(model, epoch)
    number = pytest.approx(np.maximum(X, 0).mean())
    assert recorder.means["0"] == [number, pytest.approx(np.nan, nan_ok=True), number]
    assert recorder.means["1"] == [pytest.approx(np.nan, nan_ok=True), number, number]
    assert all(len(values) == 3 for values in recorder.variances.values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": 3}, "layers: expected paths of layers; got 3"),
        ({"X": X[:0]}, r"X: expected at least one example; got the shape \(0, 4\)"),
    ],
)
def test_bad_arguments_of_the_recorder(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        md.RecordActivations(**({"X": X} | options))
