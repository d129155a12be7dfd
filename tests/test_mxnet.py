"""What is MXNet's alone: that it imports beside a NumPy that is newer than it, and changes nothing for others."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gluon_nets import net_around, small_batch, small_net, trained_step

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
        net, X = small_net(seed, hybridized), small_batch()
        mx.random.seed(9)
        steps = [trained_step(net, X)]
        if seed is not None:
            steps.append((net(X).asnumpy(), net(X).asnumpy()))
        runs.append([*steps, trained_step(net, X)])
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
    trained_step(small_net(3, True), small_batch())
    assert calls


def test_nets_of_several_operators(arrays: Any) -> None:
    """MXNet takes what the gradient of the operator that was traced last needs for what the gradient of any needs."""
    nets, X = [small_net(seed, True) for seed in (None, 3)], small_batch()
    for net in (*nets, *nets):
        _, gradient = trained_step(net, X)
        assert gradient.any()


def test_a_hybridized_net_used_twice_before_its_gradient(arrays: Any) -> None:
    import mxnet as mx

    gradients = []
    for hybridized in (False, True):
        net, X = small_net(3, hybridized), small_batch()
        with mx.autograd.record():
            L = (net(X) * net(X)).sum()
        L.backward()
        gradients.append(net[0].weight.grad().asnumpy())
    assert np.array_equal(*gradients)


def test_a_hybridized_net_goes_on_where_it_was_saved(arrays: Any, tmp_path: Path) -> None:
    net, X = small_net(3, True), small_batch()
    trained_step(net, X)
    net.save_parameters(str(tmp_path / "net"))
    other = small_net(8, True)
    trained_step(other, X)
    other.load_parameters(str(tmp_path / "net"))
    assert np.array_equal(trained_step(net, X)[0], trained_step(other, X)[0])


@pytest.mark.filterwarnings("ignore:Cannot decide type")  # of the input, by which MXNet looks into its own file
def test_an_exported_net_evaluates(arrays: Any, tmp_path: Path) -> None:
    import mxnet as mx

    net, X = small_net(3, True), small_batch()
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
        net = net_around(layer)
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
        net, X = small_net(seed, True), small_batch()
        trained_step(net, X)
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
