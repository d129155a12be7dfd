"""What is MXNet's alone: that it imports beside a NumPy that is newer than it, and changes nothing for others."""

from __future__ import annotations

import dataclasses
import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import multidrop as md
from multidrop import family
from multidrop.testing import same_bits


@pytest.fixture(autouse=True)
def mxnet(need: Any) -> None:
    need("mxnet")


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_mxnet_alone_does_not_import() -> None:
    """What the backend is to mend; when this fails, it may go."""
    with pytest.raises(AssertionError, match="AttributeError: module 'numpy' has no attribute"):
        python("import warnings; warnings.simplefilter('ignore'); import mxnet")


def test_mxnet_after_the_backend() -> None:
    """NumPy itself is what it was, and MXNet works, also where it looks names up as it runs."""
    code = """
import sys, numpy
removed = [name for name in ("bool", "PZERO", "product", "npv") if name not in vars(numpy)]
import multidrop as md
md.set_backend("mxnet")
import mxnet as mx
a = mx.np.array([1.0, 2.0, 3.0])
print(a[a > 1.5].tolist())  # looks up numpy.bool
print(sys.modules["numpy"] is numpy, [name for name in removed if name in vars(numpy)])
"""
    assert python(code).splitlines() == ["[2.0, 3.0]", "True []"]


def test_after_an_import_that_failed() -> None:
    """A user who ran into the error first, in an interactive session, need not start again."""
    code = """
import warnings
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    try:
        import mxnet
    except Exception as error:
        print(type(error).__name__)
import multidrop as md
md.set_backend("mxnet")
print(md.dropout_layer([1.0, 2.0], 0.0))
"""
    assert python(code).splitlines()[-1] == "[1. 2.]"


@pytest.mark.parametrize("order", [("torch", "tensorflow", "mxnet"), ("mxnet", "tensorflow", "torch")])
def test_all_frameworks_in_one_process(order: tuple[str, ...], need: Any) -> None:
    for name in order:
        need(name)
    code = f"""
import numpy as np, multidrop as md
from multidrop.dispatch import load
X = np.arange(8, dtype=np.float32)
drawn = [load(name).to_numpy(md.dropout_layer(load(name).tensor(X), 0.5, 1)).tolist() for name in {order}]
print(drawn[0] == drawn[1] == drawn[2])
"""
    assert python(code) == "True"


def test_saved_parameters_hold_the_position(tmp_path: Path) -> None:
    import mxnet as mx

    X = mx.np.ones((16, 16))

    def mask(layer: Any) -> np.ndarray:
        with mx.autograd.record():
            return layer(X).asnumpy()

    with md.use_backend("mxnet"):
        layer, other = md.Dropout(0.5, seed=3), md.Dropout(0.5, seed=4)
    mask(layer)
    layer.save_parameters(str(tmp_path / "layer"))
    other.load_parameters(str(tmp_path / "layer"))
    assert np.array_equal(mask(layer), mask(other))
    assert not np.array_equal(mask(layer), mask(md.use_backend("mxnet")(md.Dropout)(0.5, seed=3)))


def _net(seed: int | None, hybridized: bool) -> Any:
    """A net with two dropout layers and weights that are the same each time."""
    import multidrop_mxnet as backend
    import mxnet as mx

    net = mx.gluon.nn.HybridSequential()
    net.add(
        mx.gluon.nn.Dense(32, in_units=16),
        backend.Dropout(0.5, seed=seed),
        mx.gluon.nn.Dense(32, in_units=32),
        backend.Dropout(0.3, seed=None if seed is None else seed + 1),
        mx.gluon.nn.Dense(4, in_units=32),
    )
    net.initialize()
    for number, layer in enumerate(net):
        if hasattr(layer, "weight"):
            values = np.random.default_rng(number).normal(size=layer.weight.shape).astype(np.float32)
            layer.weight.set_data(mx.np.array(values) if mx.util.is_np_array() else mx.nd.array(values))
    if hybridized:
        net.hybridize()
    return net


def _step(net: Any, X: Any) -> tuple[np.ndarray, np.ndarray]:
    """The output of a training step and the gradient of the first weights."""
    import mxnet as mx

    with mx.autograd.record():
        Y = net(X)
        L = (Y * Y).sum()
    L.backward()
    return Y.asnumpy(), net[0].weight.grad().asnumpy()


def _input() -> Any:
    import mxnet as mx

    x = np.random.default_rng(5).normal(size=(8, 16)).astype(np.float32)
    return mx.np.array(x) if mx.util.is_np_array() else mx.nd.array(x)


@pytest.fixture(params=[False, True], ids=["nd", "np"])
def arrays(request: pytest.FixtureRequest) -> Any:
    """Both kinds of arrays that Gluon may be set to."""
    import mxnet as mx

    with mx.util.np_shape(request.param), mx.util.np_array(request.param):
        yield


@pytest.mark.parametrize("seed", [3, None])
def test_a_hybridized_net_is_the_imperative_one(seed: int | None, arrays: Any) -> None:
    """In each step, with an evaluation between, which takes no call of a keyed layer. (Of MXNet's generator a
    hybridized net draws in evaluation too.)"""
    import mxnet as mx

    runs = []
    for hybridized in (False, True):
        net, X = _net(seed, hybridized), _input()
        mx.random.seed(9)
        steps = [_step(net, X)]
        if seed is not None:
            steps.append((net(X).asnumpy(), net(X).asnumpy()))
        runs.append([*steps, _step(net, X)])
    for imperative, hybrid in zip(*runs, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(imperative, hybrid, strict=True))
    assert not np.array_equal(runs[1][0][0], runs[1][-1][0])


def test_mxnet_reads_no_memory_past_the_storage_types(arrays: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it looks for a stream's in the backward pass: what lay there was now and then taken for one."""
    import sys

    from multidrop_mxnet import operators

    infer, calls = operators.DropoutProp.infer_storage_type_backward, []

    def with_litter_behind(self: Any, *storage_types: list[str]) -> Any:
        caller = sys._getframe(1).f_locals
        types, number = caller["tensor_stypes"], caller["num_tensor"]
        types[number] = 153596448
        calls.append(number)
        return infer(self, *storage_types)

    monkeypatch.setattr(operators.DropoutProp, "infer_storage_type_backward", with_litter_behind)
    _step(_net(3, True), _input())
    assert calls


def test_nets_of_several_operators(arrays: Any) -> None:
    """MXNet takes what the gradient of the operator that was traced last needs for what the gradient of any needs."""
    nets, X = [_net(seed, True) for seed in (None, 3)], _input()
    for net in (*nets, *nets):
        _, gradient = _step(net, X)
        assert gradient.any()


def test_a_hybridized_net_used_twice_before_its_gradient(arrays: Any) -> None:
    import mxnet as mx

    gradients = []
    for hybridized in (False, True):
        net, X = _net(3, hybridized), _input()
        with mx.autograd.record():
            L = (net(X) * net(X)).sum()
        L.backward()
        gradients.append(net[0].weight.grad().asnumpy())
    assert np.array_equal(*gradients)


def test_a_hybridized_net_goes_on_where_it_was_saved(arrays: Any, tmp_path: Path) -> None:
    net, X = _net(3, True), _input()
    _step(net, X)
    net.save_parameters(str(tmp_path / "net"))
    other = _net(8, True)
    _step(other, X)
    other.load_parameters(str(tmp_path / "net"))
    assert np.array_equal(_step(net, X)[0], _step(other, X)[0])


@pytest.mark.filterwarnings("ignore:Cannot decide type")  # of the input, by which MXNet looks into its own file
def test_an_exported_net_evaluates(arrays: Any, tmp_path: Path) -> None:
    import mxnet as mx

    net, X = _net(3, True), _input()
    Y = net(X).asnumpy()
    net.export(str(tmp_path / "net"))
    files = [str(tmp_path / name) for name in ("net-symbol.json", "net-0000.params")]
    assert np.array_equal(mx.gluon.SymbolBlock.imports(files[0], ["data"], files[1])(X).asnumpy(), Y)


@pytest.mark.filterwarnings("ignore:Cannot decide type")
def test_an_exported_net_without_this_library(tmp_path: Path) -> None:
    """Once it is restored and has run again."""
    import mxnet as mx

    net = mx.gluon.nn.HybridSequential()
    net.add(mx.gluon.nn.Dense(4, in_units=16), mx.gluon.nn.Dropout(0.5))
    net.initialize()
    net.hybridize()
    X = mx.nd.ones((2, 16))
    md.convert(net, seed=1)
    for name, ours in (("ours", True), ("own", False)):
        Y = net(X).asnumpy()
        net.export(str(tmp_path / name))
        files = [str(tmp_path / f"{name}-{rest}") for rest in ("symbol.json", "0000.params")]
        assert ("multidrop_dropout" in Path(files[0]).read_text(encoding="utf-8")) == ours
        assert np.array_equal(mx.gluon.SymbolBlock.imports(files[0], ["data"], files[1])(X).asnumpy(), Y)
        md.restore(net)


def test_a_stream_in_memory_that_is_no_host_array() -> None:
    """As that of a device: it is read and moved on by way of the host."""
    import mxnet as mx
    from multidrop_mxnet import draw, position

    key = md.Key(2**64 - 1, 2**64 - 1)
    stream = position.position_of(key).as_nd_ndarray().as_in_context(mx.Context("cpu_shared", 0))
    assert draw.take(stream) == key
    assert position.key_at(stream) == md.Key(key.seed, 0)


def test_a_gradient_that_is_added() -> None:
    """To what is there, twice: by `grad_req="add"`, and within one backward pass."""
    import mxnet as mx

    X = mx.np.ones((4, 5))
    X.attach_grad(grad_req="add")
    for _ in range(2):
        with mx.autograd.record():
            Y = md.dropout_layer(X, 0.5, 1) + md.dropout_layer(X, 0.5, 2)
        Y.backward()
    expected = 4.0 * (md.keep_mask((4, 5), 0.5, 1).astype(np.float32) + md.keep_mask((4, 5), 0.5, 2))
    assert np.array_equal(X.grad.asnumpy(), expected)


def test_each_context_has_masks_of_its_own() -> None:
    import multidrop_mxnet as backend
    import mxnet as mx

    layer = backend.Dropout(0.5, seed=3)
    layer.initialize(ctx=[mx.cpu(0), mx.cpu(1)])
    with mx.autograd.record():
        first, second = (layer(mx.nd.ones((16, 16), ctx=mx.cpu(i))).asnumpy() for i in range(2))
    assert np.array_equal(first != 0, md.keep_mask((16, 16), 0.5, 3))
    assert not np.array_equal(first, second)


def test_what_autograd_recorded_is_forgotten() -> None:
    import gc

    import mxnet as mx
    from multidrop_mxnet import internals

    X = mx.np.ones((4, 5))
    X.attach_grad()
    for _ in range(10):
        with mx.autograd.record():
            Y = md.dropout_layer(X, 0.5, 1)
        Y.backward()
    del Y
    gc.collect()
    mx.nd.waitall()
    assert len(internals.recorded) <= 1  # what the array that was recorded last still holds


def test_an_empty_array_is_given_back() -> None:
    import mxnet as mx

    with mx.util.np_shape(True):  # or 0 means an unknown length
        X = mx.np.ones((0, 5))
        with mx.autograd.record():
            assert md.dropout_layer(X, 0.5, 1) is X
        assert md.dropout_layer(X, 0.5, 1) is X


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


def _layers(p: float, seed: int | None = None) -> list[Any]:
    """A layer of each kind of member, at p or a deviation of p; p that is learned begins with 1/10."""
    kinds = family.MEMBERS.values()
    first = {kind: {} if kind.learns else {dataclasses.fields(kind)[0].name: p} for kind in kinds}
    with md.use_backend("mxnet"):
        layers = [md.layer(kind(**settings), seed=seed) for kind, settings in first.items()]
    for layer in layers:
        layer.initialize()
    return layers


@pytest.mark.parametrize("hybridized", [False, True], ids=["imperative", "hybridized"])
def test_what_drops_nothing_leaves_the_generator_alone(arrays: Any, hybridized: bool) -> None:
    """An unkeyed layer at p = 0 and in evaluation mode, and a keyed one always; an unkeyed one that drops moves it."""
    import mxnet as mx

    def run(layer: Any, training: bool) -> Any:
        X = mx.np.ones(getattr(layer, "member", family.Dropout()).example_shape)
        X = X if mx.util.is_np_array() else X.as_nd_ndarray()
        if hybridized:
            layer = _within(layer)
        layer(X)  # which traces it, in evaluation mode

        def call() -> None:
            with mx.autograd.record(train_mode=training):
                layer(X)

        return call

    for layer in _layers(0.0):
        assert _moved(run(layer, True)) == hasattr(layer, "logit"), layer
    for layer in _layers(0.25):
        assert not _moved(run(layer, False)), layer
        assert _moved(run(layer, True)), layer
    for layer in _layers(0.25, seed=1) + _layers(0.0, seed=1):
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
            (backend.DropConnect(_dense(), rate), dense),
            (backend.EmbeddingDropout(embedding, rate), words),
        ):
            layer.initialize()
            net = _within(layer) if hybridized else layer
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


def _within(layer: Any) -> Any:
    import mxnet as mx

    net = mx.gluon.nn.HybridSequential()
    net.add(layer)
    net.hybridize()
    return net


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
        backend.DropConnect(_dense(), 2)
    with pytest.raises(TypeError, match="size"):
        backend.DropBlock(0.1, size=3)


def _dense() -> Any:
    import mxnet as mx

    return mx.gluon.nn.Dense(3, in_units=4)


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
        net = _within(layer) if hybridized else layer
        with mx.autograd.record():
            assert np.array_equal(net(X).asnumpy() != 0, md.keep_mask((4, 5), 0.5, 3))
    assert repr(layer) == "Dropout(p = 0.5, axes=(), seed=3)"
    layer.rate = number
    with mx.autograd.record():
        layer(X)


def test_an_unkeyed_layer_is_stateless() -> None:
    """No parameter, as Gluon's own, in whatever holds it; and the masks follow `mx.random.seed`, as its do."""
    import mxnet as mx

    for layer in _layers(0.25):
        assert {name for name in layer.collect_params() if not name.endswith("_logit")} == set()
    nets = [_net(None, hybridized) for hybridized in (False, True)]
    assert all(len([*net.collect_params()]) == 6 for net in nets)
    for net in nets:
        runs = []
        for _ in range(2):
            mx.random.seed(11)
            runs.append([_step(net, _input())[0] for _ in range(2)])
        assert all(map(np.array_equal, *runs))
        assert not np.array_equal(*runs[0])


@pytest.mark.parametrize("stype", ["row_sparse", "csr"])
def test_sparse_arrays(stype: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Are an error with the remedy, which MXNet prints for a program, where it raises one of its own; no call is
    taken."""
    import multidrop_mxnet as backend
    import mxnet as mx

    X = mx.nd.ones((4, 5)).tostype(stype)
    message = rf'X: expected an array of dense storage; got {stype}: convert it with X.tostype\("default"\)'
    layers = backend.Dropout(0.5, seed=3), backend.GaussianNoise(0.5, seed=3)
    for layer in layers:
        for run in (layer, lambda X: md.dropout_layer(X, 0.5, 1), lambda X: md.apply(family.GaussianNoise(0.5), X, 1)):
            with mx.autograd.record(), pytest.raises(TypeError, match=message):
                run(X)
        net = _within(layer)
        with mx.autograd.record(), pytest.raises(mx.MXNetError):
            net(X).wait_to_read()
        assert re.search(message, capfd.readouterr().out)
        assert layer.stream.key == md.Key(3)


@pytest.mark.filterwarnings("ignore:Cannot decide type")
def test_an_exported_net_trains(arrays: Any, tmp_path: Path) -> None:
    """As the net: from the position that was saved; without a key, by MXNet's generator. No dropout of the user's is
    found in it."""
    import mxnet as mx

    for seed in (3, None):
        net, X = _net(seed, True), _input()
        _step(net, X)
        net.export(str(tmp_path / "net"))
        files = [str(tmp_path / name) for name in ("net-symbol.json", "net-0000.params")]
        loaded, runs = mx.gluon.SymbolBlock.imports(files[0], ["data"], files[1]), []
        for each in (net, loaded):
            mx.random.seed(4)
            with mx.autograd.record():
                runs.append([each(X).asnumpy() for _ in range(2)])
        assert all(map(np.array_equal, *runs))
        assert not np.array_equal(*runs[0])
        assert md.convert(loaded, seed=1).unreached == ()


def test_an_executor_without_gradients_drops_as_mxnet_does() -> None:
    """Not at all, without a key; where it has gradients, each run draws anew."""
    import mxnet as mx
    from multidrop_mxnet import operators

    Y = operators.symbol(mx.sym.var("data"), 0.5, None)
    X = mx.nd.ones((8, 8))
    own = mx.sym.Dropout(mx.sym.var("data") * 1, p=0.5).simple_bind(mx.cpu(), data=X.shape, grad_req="null")
    for request in ("null", "write"):
        executor = Y.simple_bind(mx.cpu(), data=X.shape, grad_req=request)
        first, second = (executor.forward(is_train=True, data=X)[0].asnumpy() for _ in range(2))
        if request == "null":
            assert np.array_equal(first, own.forward(is_train=True, data=X)[0].asnumpy())
        assert np.array_equal(first, second) == (request == "null")


def test_what_is_learned_may_be_host_data() -> None:
    import mxnet as mx

    member, X = family.ConcreteDropout(0.3), mx.np.ones((3, 2))
    logit = np.array([0.1, -0.2], np.float32)
    expected = md.apply(member, X, 1, learned=mx.np.array(logit)).asnumpy()
    for data in (logit, logit.tolist()):
        assert same_bits(md.apply(member, X, 1, learned=data).asnumpy(), expected)
    with pytest.raises(TypeError, match="learned: expected a tensor of type"):
        md.apply(member, X, 1, learned="0.1")


@pytest.mark.filterwarnings("ignore:Cannot decide type")
@pytest.mark.parametrize("seed", [3, None])
def test_mixed_precision(seed: int | None) -> None:
    """MXNet's conversion casts the inputs of the operator, the bits of its key among them; a position stays whole."""
    import multidrop_mxnet as backend
    import mxnet as mx
    from mxnet.contrib import amp

    layer, X = backend.Dropout(0.5, seed=seed), mx.nd.ones((16, 16))
    net = _within(layer)
    net(X)
    net = amp.convert_hybrid_block(net, ctx=mx.cpu())
    assert np.array_equal(net(X).asnumpy(), X.asnumpy())
    with mx.autograd.record():
        first, second = (net(X).asnumpy() for _ in range(2))
    assert not np.array_equal(first, second)
    assert {0.0, 2.0} == {*first.flat}
    if seed is not None:
        assert np.array_equal(first != 0, md.keep_mask(X.shape, 0.5, seed))


def test_a_process_that_ends_while_operators_are_queued() -> None:
    """Waits for them: MXNet by itself ends the threads that run them, and aborts or waits forever."""
    code = """
import multidrop_mxnet as backend, mxnet as mx
net = mx.gluon.nn.HybridSequential()
for _ in range(20):
    net.add(backend.Dropout(0.5, seed=3))
net.hybridize()
X = mx.nd.ones((1024, 1024))
with mx.autograd.record():
    net(X), net(X)
print("done")
"""
    assert python(code) == "done"
