"""The result of `md.mc_predict`: its statistics, what it shows, and its progress."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import uncertain
from uncertain import X, numpy_net

import multidrop as md
from multidrop.testing import same_bits


def test_statistics() -> None:
    """Of the generator's samples; the largest numbers and the smallest differences stay exact."""
    net = numpy_net()
    p, samples = md.mc_predict(net, X, 6), np.stack(list(md.mc_samples(net, X, 6)))
    np.testing.assert_allclose(p.mean, samples.mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose(p.variance, samples.var(axis=0), rtol=1e-12)
    assert p.samples == 6
    assert np.array_equal(p.classes, p.mean.argmax(axis=1))
    assert not p.mean.flags.writeable
    net.layers[3].parameters["b"] = uncertain.b2 + 1e8
    far = md.mc_predict(net, X, 6, outputs="values")
    net.layers[3].parameters["b"] = uncertain.b2
    near = md.mc_predict(net, X, 6, outputs="values")
    np.testing.assert_allclose(far.variance, near.variance, rtol=1e-6)


def test_values_have_no_entropy() -> None:
    p = md.mc_predict(numpy_net(), X, 2, outputs="values")
    for name in ("entropy", "expected_entropy", "mutual_information", "classes"):
        with pytest.raises(ValueError, match=f'^{name}: expected samples of class probabilities; got outputs="values"'):
            getattr(p, name)


def test_certain_predictions() -> None:
    """Probabilities of 0 and 1 have entropy 0, and nothing is NaN. At p = 0 all samples are equal."""
    net = numpy_net(0.0)
    net.layers[3].parameters["W"] = uncertain.W2 * 1e6
    p = md.mc_predict(net, X, 3)
    assert np.abs(p.entropy).max() == 0.0
    assert np.abs(p.variance).max() == 0.0
    assert np.array_equal(p.mean, md.predict(net, X))


def test_a_prediction_shows_itself() -> None:
    p = md.mc_predict(numpy_net(), X, 2)
    first, *lines = repr(p).splitlines()
    assert first == "Prediction (examples: 7, classes: 3, samples: 2)"
    assert [line.split("  ")[1] for line in lines] == [
        "largest probability",
        "entropy (nats)",
        "expected entropy (nats)",
        "mutual information (nats)",
    ]
    assert f"{p.entropy.mean():.4f}" in lines[1]
    html = p._repr_html_()
    assert html.startswith("<table>")
    assert html.count("<tr>") == 5
    empty = md.mc_predict(numpy_net(), X[:0], 2)
    assert repr(empty) == "Prediction (examples: 0, classes: 3, samples: 2)"
    assert "<td" not in empty._repr_html_()


def test_probabilities() -> None:
    """A model whose outputs are probabilities already."""
    import multidrop_numpy as backend

    class Softmax(backend.Layer):
        def forward(self, X: Any) -> Any:
            return np.exp(X) / np.exp(X).sum(axis=-1, keepdims=True)

    net = numpy_net()
    whole = backend.Sequential(net, Softmax())
    found, expected = md.mc_predict(whole, X, 4, outputs="probabilities"), md.mc_predict(net, X, 4)
    np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-12)
    np.testing.assert_allclose(found.mutual_information, expected.mutual_information, atol=1e-14)


@pytest.mark.parametrize("bad", [np.nan, -0.5])
def test_what_is_no_probability(bad: float) -> None:
    import multidrop_numpy as backend

    class Bad(backend.Layer):
        def forward(self, X: Any) -> Any:
            return np.full((len(X), 2), [bad, 1.0 - bad])

    net = backend.Sequential(backend.Dropout(0.5, seed=0), Bad())
    with pytest.raises(ValueError, match=r'^outputs: expected "logits" for a model whose outputs are no prob'):
        md.mc_predict(net, X, 2, outputs="probabilities")


def test_progress() -> None:
    seen: list[tuple[int, int]] = []
    md.mc_predict(numpy_net(), X, 3, batch_size=4, progress=lambda *done: seen.append(done))
    assert seen == [(n, 6) for n in range(1, 7)]


def test_a_bar_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("rich", reason="the bar needs it")
    md.mc_predict(numpy_net(), X, 2)
    assert capsys.readouterr().err == ""  # not a terminal
    md.mc_predict(numpy_net(), X, 2, progress=True)


def test_several_inputs(need: Any) -> None:
    """A tuple, or a mapping of names, of arrays or tensors; in Keras one argument."""
    backend = need("torch")
    import torch

    class Two(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop = backend.Dropout(0.5, seed=0)

        def forward(self, a: Any, b: Any) -> Any:
            return self.drop(a) + b

    expected = md.mc_predict(Two(), (X, X), 2, outputs="values", batch_size=3)
    named = md.mc_predict(Two(), {"b": torch.tensor(X), "a": X}, 2, outputs="values")
    assert np.abs(named.mean - expected.mean).max() < 1e-6  # X is cast to the model's float32


def test_several_inputs_of_keras(need: Any) -> None:
    need("tensorflow")
    import keras

    a, b = (keras.Input((6,), dtype="float64", name=name) for name in "ab")
    dropped = keras.layers.Dropout(0.5, dtype="float64")(a)
    model = keras.Model([a, b], keras.layers.Add(dtype="float64")([dropped, b]))
    md.convert(model, seed=0)
    found = md.mc_predict(model, (X, X), 2, outputs="values", batch_size=3)
    assert found.variance.max() > 0.0
    assert same_bits(md.mc_predict(model, {"a": X, "b": X}, 2, outputs="values").mean, found.mean)
