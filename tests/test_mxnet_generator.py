"""What drops nothing leaves MXNet's generator alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gluon_nets import layers_of_all, net_around, small_dense

import multidrop as md
from multidrop import family
from multidrop.testing import same_bits


@pytest.fixture(autouse=True)
def mxnet(need: Any) -> None:
    need("mxnet")


@pytest.fixture(params=[False, True], ids=["nd", "np"])
def arrays(request: pytest.FixtureRequest) -> Any:
    """Both kinds of arrays that Gluon may be set to."""
    import mxnet as mx

    with mx.util.np_shape(request.param), mx.util.np_array(request.param):
        yield


def _moved(run: Any) -> bool:
    """Whether a call moves MXNet's generator."""
    import mxnet as mx

    drawn = []
    for call in (lambda: None, run):
        mx.random.seed(5)
        call()
        mx.nd.waitall()
        drawn.append([mx.nd.random.uniform(shape=(4,)).asnumpy(), mx.nd.random.randint(0, 99, shape=(4,)).asnumpy()])
    return not all(np.array_equal(a, b) for a, b in zip(*drawn, strict=True))


@pytest.mark.parametrize("hybridized", [False, True], ids=["imperative", "hybridized"])
def test_what_drops_nothing_leaves_the_generator_alone(arrays: Any, hybridized: bool) -> None:
    """An unkeyed layer at p = 0 and in evaluation mode, and a keyed one always; an unkeyed one that drops moves it."""
    import mxnet as mx

    def run(layer: Any, training: bool) -> Any:
        X = mx.np.ones(getattr(layer, "member", family.Dropout()).example_shape)
        X = X if mx.util.is_np_array() else X.as_nd_ndarray()
        if hybridized:
            layer = net_around(layer)
        layer(X)  # which traces it, in evaluation mode

        def call() -> None:
            with mx.autograd.record(train_mode=training):
                layer(X)

        return call

    for layer in layers_of_all(0.0):
        assert _moved(run(layer, True)) == hasattr(layer, "logit"), layer
    for layer in layers_of_all(0.25):
        assert not _moved(run(layer, False)), layer
        assert _moved(run(layer, True)), layer
    for layer in layers_of_all(0.25, seed=1) + layers_of_all(0.0, seed=1):
        before = layer.stream.key
        assert not _moved(run(layer, False)), layer
        assert layer.stream.key == before
        assert not _moved(run(layer, True)), layer
        assert layer.stream.key.call > before.call, layer


@pytest.mark.parametrize("hybridized", [False, True], ids=["imperative", "hybridized"])
def test_weights_that_are_not_dropped_leave_the_generator_alone(hybridized: bool) -> None:
    import multidrop_mxnet as backend
    import mxnet as mx

    dense, words = mx.nd.ones((2, 4)), mx.nd.arange(3)
    for rate, training in ((0.0, True), (0.5, False), (0.5, True)):
        embedding = mx.gluon.nn.Embedding(11, 4)
        for layer, X in (
            (backend.DropConnect(small_dense(), rate), dense),
            (backend.EmbeddingDropout(embedding, rate), words),
        ):
            layer.initialize()
            net = net_around(layer) if hybridized else layer
            net(X)

            def run(net: Any = net, X: Any = X, training: bool = training) -> None:
                with mx.autograd.record(train_mode=training):
                    net(X)

            assert _moved(run) == (rate > 0 and training)


def test_calls_that_drop_nothing_leave_the_generator_alone() -> None:
    """Without a key, or with one; in a program too."""
    import mxnet as mx

    class Program(mx.gluon.HybridBlock):
        def hybrid_forward(self, F: Any, X: Any) -> Any:
            return md.apply(family.DropPath(0.0), X) + md.apply(family.GaussianNoise(0.5), X, 3)

    X, program = mx.np.ones((4, 5)), Program()
    program.hybridize()
    with mx.util.np_shape(True):
        empty = mx.np.ones((0, 5))
    for idle in (
        lambda: md.dropout_layer(X, 0.0),
        lambda: md.relu_dropout(X, 0.0),
        lambda: md.dropout_layer(X, 0.5, 1),
        lambda: md.apply(family.GaussianNoise(0.0), X),
        lambda: md.apply(family.DropBlock(0.0), mx.np.ones((1, 1, 8, 8))),
        lambda: md.dropout_layer(empty, 0.5),
        lambda: program(X.as_nd_ndarray()),
    ):
        assert not _moved(idle)
    for drops in (
        lambda: md.dropout_layer(X, 0.5),
        lambda: md.relu_dropout(X, 1.0),
        lambda: md.apply(family.DropPath(0.1), X),
    ):
        assert _moved(drops)
    md.manual_seed(3)  # which counts the calls, whatever p is
    md.dropout_layer(X, 0.0)
    second = md.Key(md.Key(3).fold_in("calls").seed, 1)
    assert same_bits(md.dropout_layer(X, 0.5).asnumpy(), md.dropout_layer(X, 0.5, second).asnumpy())
