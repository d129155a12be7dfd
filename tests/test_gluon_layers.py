"""Gluon blocks of the family: their names, what they show, hooks, mixed precision, and a p that is learned."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import numpy as np
import pytest
from gluon_nets import layers_of_all, net_around, small_batch, small_dense, small_net, trained_step

import multidrop as md
from multidrop import family


@pytest.fixture(autouse=True)
def mxnet(need: Any) -> None:
    need("mxnet")


@pytest.fixture(params=[False, True], ids=["nd", "np"])
def arrays(request: pytest.FixtureRequest) -> Any:
    """Both kinds of arrays that Gluon may be set to."""
    import mxnet as mx

    with mx.util.np_shape(request.param), mx.util.np_array(request.param):
        yield


def test_the_named_layers() -> None:
    """Of every member: Gluon's `rate`, `prefix` and `params`, and its way of showing itself."""
    import multidrop_mxnet as backend

    wrappers = ("DropConnect", "EmbeddingDropout")  # around a block; of the member itself, `MemberLayer`
    for name, kind in family.MEMBERS.items():
        with md.use_backend("mxnet"):
            layer = md.layer(kind())
        named = backend.MemberLayer if name in wrappers else getattr(backend, name)
        assert type(layer) is named
        if name in wrappers:
            continue
        amount = "rate" if dataclasses.fields(kind)[0].name == "p" else "stddev"
        layer = named(**{amount: np.float32(0.25)}, seed=3, prefix="mine_")
        assert layer.prefix == "mine_"
        assert next(iter(layer.collect_params())) == "mine_stream"
        assert amount == "stddev" or layer.rate == 0.25
        if name != "Dropout":
            assert getattr(layer, "member", None) == kind(0.25)
            assert repr(layer).startswith(f"{name}({amount}=0.25")
            assert repr(layer).endswith("seed=3)")
            assert next(iter(inspect.signature(named).parameters)) == amount
            assert f"\n    {amount}: " in inspect.getdoc(named)
            if amount == "rate" and not kind.learns:
                layer.rate = 0.5
                assert layer.member == kind(0.5)
        with pytest.raises(ValueError, match=rf"^{amount}: expected .*; got 2|^{amount}: .*; got -1"):
            named(**{amount: -1})
    with pytest.raises(ValueError, match=r"^rate: expected a probability, a number in \[0, 1\]; got 2"):
        backend.DropConnect(small_dense(), 2)
    with pytest.raises(TypeError, match="size"):
        backend.DropBlock(0.1, size=3)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_regularizer_in_a_program(arrays: Any, dtype: str) -> None:
    """Is the imperative one, and NumPy's, with its gradients."""
    import multidrop_mxnet as backend
    import multidrop_numpy
    import mxnet as mx

    class Loss(mx.gluon.HybridBlock):
        def __init__(self) -> None:
            super().__init__()
            self.drop = backend.ConcreteDropout(0.3)

        def hybrid_forward(self, F: Any, weight: Any) -> Any:
            return self.drop.regularizer(weight, length_scale=0.5)

    w = np.random.default_rng(0).normal(size=(3, 4)).astype(dtype)
    results = []
    for hybridized in (False, True):
        loss = Loss()
        loss.initialize()
        loss.cast(dtype)
        loss.hybridize(hybridized)
        W = mx.np.array(w, dtype) if mx.util.is_np_array() else mx.nd.array(w, dtype=dtype)
        W.attach_grad()
        with mx.autograd.record():
            L = loss(W)
        L.backward()
        results.append([L.asnumpy(), W.grad.asnumpy(), loss.drop.logit.grad().asnumpy()])
    assert all(np.allclose(a, b, 1e-6) for a, b in zip(*results, strict=True))
    layer = multidrop_numpy.ConcreteDropout(0.3)
    of_logit, of_weight = layer.regularizer_gradients(w.T, length_scale=0.5)
    expected = [layer.regularizer(w.T, length_scale=0.5), of_weight.T, of_logit]
    assert all(np.allclose(a, b, 1e-5) for a, b in zip(results[1], expected, strict=True))


@pytest.mark.parametrize("training", [True, False])
def test_hooks_on_the_layers_of_a_net(training: bool) -> None:
    """See the hidden activations, and change no value."""
    import mxnet as mx

    with md.use_backend("mxnet"):
        nets = [md.Net(6, 3, 5, 4, is_training=training, seed=1) for _ in range(2)]
    X, seen = mx.np.array(np.random.default_rng(0).normal(size=(2, 6)).astype(np.float32)), []
    for layer in (nets[1].dropout1, nets[1].dropout2):
        layer.register_forward_hook(lambda layer, inputs, output: seen.append((inputs[0], output)))
    results = []
    for net in nets:
        with mx.autograd.record():
            Y = net(X)
        Y.backward()
        results.append([Y.asnumpy(), *(w.grad.asnumpy() for w in net.params)])
    assert all(map(np.array_equal, *results))  # a gradient of 0 may get another sign
    (H1, dropped1), (H2, dropped2) = seen
    W1, b1, *_, W3, b3 = nets[1].params
    assert np.allclose(H1.asnumpy(), np.maximum(X.asnumpy() @ W1.asnumpy() + b1.asnumpy(), 0), atol=1e-6)
    assert np.allclose(dropped2.asnumpy() @ W3.asnumpy() + b3.asnumpy(), results[1][0], atol=1e-6)
    assert (dropped1 is H1, dropped2 is H2) == (not training, not training)


def test_a_net_shows_itself() -> None:
    with md.use_backend("mxnet"):
        net = md.Net(6, 3, 5, 4, dropout1=0.0, dropout2=0.5, is_training=False)
    assert repr(net) == "Net(6 -> 5 -> 4 -> 3, dropout1=0.0, dropout2=0.5, is_training=False)"


@pytest.mark.parametrize("number", [np.float32(0.5), np.float64(0.5), np.array(0.5), 0.5])
def test_a_rate_of_numpy(number: Any) -> None:
    import multidrop_mxnet as backend
    import mxnet as mx

    for hybridized in (False, True):
        layer, X = backend.Dropout(number, seed=3), mx.nd.ones((4, 5))
        net = net_around(layer) if hybridized else layer
        with mx.autograd.record():
            assert np.array_equal(net(X).asnumpy() != 0, md.keep_mask((4, 5), 0.5, 3))
    assert repr(layer) == "Dropout(p = 0.5, axes=(), seed=3)"
    layer.rate = number
    with mx.autograd.record():
        layer(X)


def test_an_unkeyed_layer_is_stateless() -> None:
    """No parameter, as Gluon's own, in whatever holds it; and the masks follow `mx.random.seed`, as its do."""
    import mxnet as mx

    for layer in layers_of_all(0.25):
        assert {name for name in layer.collect_params() if not name.endswith("_logit")} == set()
    nets = [small_net(None, hybridized) for hybridized in (False, True)]
    assert all(len([*net.collect_params()]) == 6 for net in nets)
    for net in nets:
        runs = []
        for _ in range(2):
            mx.random.seed(11)
            runs.append([trained_step(net, small_batch())[0] for _ in range(2)])
        assert all(map(np.array_equal, *runs))
        assert not np.array_equal(*runs[0])


@pytest.mark.filterwarnings("ignore:Cannot decide type")
@pytest.mark.parametrize("seed", [3, None])
def test_mixed_precision(seed: int | None) -> None:
    """MXNet's conversion casts the inputs of the operator, the bits of its key among them; a position stays whole."""
    import multidrop_mxnet as backend
    import mxnet as mx
    from mxnet.contrib import amp

    layer, X = backend.Dropout(0.5, seed=seed), mx.nd.ones((16, 16))
    net = net_around(layer)
    net(X)
    net = amp.convert_hybrid_block(net, ctx=mx.cpu())
    assert np.array_equal(net(X).asnumpy(), X.asnumpy())
    with mx.autograd.record():
        first, second = (net(X).asnumpy() for _ in range(2))
    assert not np.array_equal(first, second)
    assert {0.0, 2.0} == {*first.flat}
    if seed is not None:
        assert np.array_equal(first != 0, md.keep_mask(X.shape, 0.5, seed))
