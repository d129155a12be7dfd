"""`audit` does the same in every framework: it names the random layers and leaves everything as it was."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from audited import names
from members import values

import multidrop as md


@pytest.mark.parametrize("build", ["Net", "concise_net"])
def test_the_sections_net(backend: Any, build: str) -> None:
    """In every framework: both dropouts where they are unkeyed, none where they are keyed, whose positions stay."""
    with md.use_backend(backend.name):
        keyed, unkeyed = (getattr(md, build)(8, 4, 16, 16, seed=seed) for seed in (1, None))
    X = values((8, 8))
    report = md.audit(unkeyed, X)
    assert [kind for _, kind, _ in report.random] == ["Dropout"] * 2
    assert all(what == "its output" for _, _, what in report.random)
    assert str(report).startswith("random: 2 (")
    before = backend.get_state(keyed)
    report = md.audit(keyed, backend.tensor(X))
    assert report.random == ()
    assert (
        repr(report)
        == str(report)
        == f"None found (layers: {report.layers}, runs: 2): equal inputs gave equal outputs."
    )
    after = backend.get_state(keyed)
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_what_is_no_model(backend: Any) -> None:
    for bad in ("model", None, backend.tensor(np.ones(3))):
        with pytest.raises(TypeError, match="expected a"):
            md.audit(bad)


def test_generators_of_python_and_numpy_are_put_back(backend: Any) -> None:
    with md.use_backend(backend.name):
        net = md.Net(8, 4, 6, 6)
    before = random.getstate(), np.random.get_state()[1].tolist()
    md.audit(net, values((2, 8)))
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before


def test_a_probe_that_cannot(backend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A third party's, that only compares."""
    with md.use_backend(backend.name):
        net = md.Net(8, 4, 6, 6)
    monkeypatch.delattr(backend.Probe, "drew")
    with pytest.raises(md.BackendError, match=r"its Probe has no drew: md\.audit needs a Probe with"):
        md.audit(net, values((2, 8)))


class TestNumPy:
    def test_every_random_layer_and_no_other(self) -> None:
        from multidrop_numpy import Dropout, Layer, ReLU, Sequential

        class Noisy(Layer):
            def forward(self, X: Any) -> Any:
                return X + np.random.rand()

        model = Sequential(Dropout(0.5), ReLU(), Noisy(), Dropout(0.5, seed=1), Dropout(0.0))
        assert names(model, values((8, 4))) == ["0", "2"]
        model.eval()
        md.audit(model, values((8, 4)))
        assert not any(layer.training for layer in model.children())
        assert model.layers[3].stream.key == md.Key(1)
