"""Models that are there already get this library's layers, and their own back."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import multidrop as md
from multidrop.spec import masks


def values(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


class TestTorch:
    @pytest.fixture(autouse=True)
    def torch(self, need: Any) -> None:
        need("torch")

    def model(self) -> Any:
        import torch
        from torch import nn

        class Block(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.drop = nn.Dropout(0.1)
                self.again = self.drop  # shared
                self.list = nn.ModuleList([nn.Dropout2d(0.2), nn.ReLU()])
                self.dict = nn.ModuleDict({"alpha": nn.AlphaDropout(0.3)})
                self.rate = 0.4

            def forward(self, X: Any) -> Any:
                X = self.again(self.dict["alpha"](self.drop(X)))
                return torch.nn.functional.dropout(X, self.rate, self.training)

        return nn.Sequential(nn.Linear(8, 8), Block(), nn.Dropout(0.5, inplace=True), nn.Linear(8, 2))

    def test_every_layer_is_replaced_and_restored(self) -> None:
        import multidrop_torch
        import torch

        model = self.model()
        before = {name: type(module) for name, module in model.named_modules()}
        held = model[2]
        state = model.state_dict()
        report = md.convert(model)
        assert [path for path, _ in report.replaced] == ["1.drop", "1.list.0", "1.dict.alpha", "2"]
        assert report.unreached == ()
        assert str(report).endswith("md.audit(model, *inputs) names whatever else is random.")
        assert isinstance(held, multidrop_torch.Dropout)
        assert (held.p, held.inplace) == (0.5, True)
        assert model[1].drop is model[1].again
        model.load_state_dict(state)
        model(torch.ones(4, 8)).sum().backward()
        assert "replaced: 4" in str(report)
        assert "  1.dict.alpha  AlphaDropout(p=0.3, inplace=False)" in str(report)
        assert md.convert(model).replaced == ()
        assert md.restore(model) == 4
        assert {name: type(module) for name, module in model.named_modules()} == before
        assert model.state_dict().keys() == state.keys()
        model(torch.ones(4, 8))

    def test_the_model_itself(self) -> None:
        import torch

        model = torch.nn.Dropout(0.5).eval()
        report = md.convert(model, seed=1)
        assert [path for path, _ in report.replaced] == [""]
        assert str(report).splitlines()[1].startswith("  (itself)  Dropout(p=0.5, ")
        assert not model.training
        X = torch.ones(64)
        assert model(X) is X
        expected = masks.dropout(X.numpy(), 0.5, md.Key(1).fold_in(""))
        assert np.array_equal(model.train()(X).numpy(), expected)

    def test_what_the_layer_built_here_is_not_restored(self) -> None:
        import multidrop_torch

        layer = multidrop_torch.Dropout(0.5)
        assert md.convert(layer).replaced == ()
        assert md.restore(layer) == 0
        assert isinstance(layer, multidrop_torch.Dropout)

    def test_what_cannot_be_reached_is_said(self) -> None:
        import torch
        from torch import nn

        class Loud(nn.Dropout):
            def forward(self, X: Any) -> Any:
                return super().forward(X) * 2

        class Named(nn.Dropout2d):
            pass

        model = nn.ModuleDict(
            {
                "named": Named(),
                "attention": nn.MultiheadAttention(8, 2, dropout=0.1),
                "rnn": nn.LSTM(8, 8, 2, dropout=0.2),
                "loud": Loud(),
            }
        )
        unreached = dict(md.convert(model).unreached)
        assert unreached["attention"] == "MultiheadAttention, which drops 0.1 by itself"
        assert unreached["rnn"] == "LSTM, which drops 0.2 by itself"
        assert unreached["loud"] == "Loud, a subclass of torch.nn.Dropout"
        assert unreached["named"] == "Named, a subclass of torch.nn.Dropout2d"
        report = md.convert(torch.nn.TransformerEncoderLayer(8, 2, dropout=0.1))
        assert [path for path, _ in report.replaced] == ["dropout", "dropout1", "dropout2"]
        assert [path for path, _ in report.unreached] == ["self_attn"]

    def test_what_is_not_registered_is_said(self) -> None:
        from torch import nn

        class Model(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.drop = nn.Dropout(0.5)
                self.all = [self.drop, nn.Dropout(0.5)]
                self.more = {"a": (nn.Sequential(nn.ReLU(), nn.Dropout2d(0.5)),), "all": self.all}
                self.more["more"] = self.more

        report = md.convert(nn.Sequential(Model()))
        assert [path for path, _ in report.replaced] == ["0.drop"]
        assert report.unreached == (
            ("0", "Model.all[1], a Dropout that is not registered as a layer of it"),
            ("0", "Model.more['a'][0].1, a Dropout2d that is not registered as a layer of it"),
        )

    def test_a_seed_keys_by_path(self) -> None:
        import torch

        models = [self.model() for _ in range(2)]
        models[1].load_state_dict(models[0].state_dict())
        for model in models:
            md.convert(model, seed=5)
        X = torch.ones(4, 8)
        torch.manual_seed(0)
        first = models[0](X)
        torch.manual_seed(0)
        assert torch.equal(models[1](X), first)
        assert models[0][2].stream.tolist() != models[0][1].drop.stream.tolist()

    def test_copies_of_a_converted_model(self) -> None:
        import torch

        model = self.model()
        md.convert(model, seed=5)
        other = copy.deepcopy(model)
        X = torch.ones(4, 8)
        torch.manual_seed(0)
        first = model(X)
        torch.manual_seed(0)
        assert torch.equal(other(X), first)
        assert md.restore(other) == 4
        assert md.restore(model) == 4

    @pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning:torch")  # at its first compilation
    def test_wrappers_are_no_part_of_a_path(self, need: Any) -> None:
        """The same architecture draws the same masks, compiled, averaged or spread over devices."""
        need("torch")
        import torch
        from torch import nn
        from torch.optim.swa_utils import AveragedModel

        class Model(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.module = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5))  # a name that wrappers use

            def forward(self, X: Any) -> Any:
                return self.module(X)

        plain = Model()
        report = md.convert(plain, seed=3)
        assert [path for path, _ in report.replaced] == ["module.1"]
        for wrap in (torch.compile, nn.DataParallel, AveragedModel, lambda net: nn.DataParallel(torch.compile(net))):
            model = wrap(Model())
            assert [path for path, _ in md.convert(model, seed=3).replaced] == ["module.1"]
            (stream,) = (value for name, value in model.state_dict().items() if name.endswith("stream"))
            assert torch.equal(stream, plain.module[1].stream)
            assert md.restore(model, report) == 1


class TestKeras:
    @pytest.fixture(autouse=True)
    def tensorflow(self, need: Any) -> None:
        need("tensorflow")

    def functional(self) -> Any:
        import keras

        inputs = keras.Input((6, 6, 3))
        X = keras.layers.Conv2D(4, 3, name="conv")(inputs)
        X = keras.layers.SpatialDropout2D(0.25, name="spatial")(X)
        X = keras.layers.Flatten()(X)
        X = keras.Sequential([keras.layers.Dropout(0.5, name="drop"), keras.layers.Dense(4)], name="head")(X)
        return keras.Model(inputs, X)

    @pytest.mark.parametrize("jit", [True, False])
    def test_a_functional_model(self, jit: bool) -> None:
        """Is converted, also after it was compiled and trained, trains on, and is its own again."""
        import keras

        model = self.functional()
        x, y = values(16, 6, 6, 3), np.arange(16) % 4
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("sgd", loss, jit_compile=jit)
        model.fit(x, y, verbose=0)
        count = len(model.weights)
        report = md.convert(model, seed=5)
        assert [path for path, _ in report.replaced] == ["spatial", "head.drop"]
        assert report.unreached == ()
        model.fit(x, y, epochs=2, verbose=0)
        drop = model.get_layer("head").get_layer("drop")
        key = md.Key(5).fold_in("head.drop")
        assert md.last_mask(drop, shape=(16, 108)).key == md.Key(key.seed, 1)
        assert len(model.weights) == count + 2
        for again in (keras.models.clone_model(model), copy.deepcopy(model)):
            assert type(again.get_layer("spatial")) is type(model.get_layer("spatial"))
            assert md.restore(again) == 0
        assert md.restore(model) == 2
        assert len(model.weights) == count
        assert type(drop) is keras.layers.Dropout
        model.fit(x, y, verbose=0)

    def test_a_model_within(self) -> None:
        """That was trained by itself goes on with the layers that it has now."""
        import keras

        inner = keras.Sequential([keras.Input((8,)), keras.layers.Dropout(0.5, name="drop"), keras.layers.Dense(1)])
        outer, x, y = keras.Sequential([keras.Input((8,)), inner], name="outer"), values(8, 8), np.ones(8)
        inner.compile("sgd", "mse")
        inner.fit(x, y, verbose=0)
        md.convert(outer, seed=0)
        inner.fit(x, y, verbose=0)
        drop = inner.get_layer("drop")
        assert md.last_mask(drop, (8, 8)).key.call == 0
        md.restore(outer)
        state = np.array(drop.seed_generator.state)
        inner.fit(x, y, verbose=0)
        assert not np.array_equal(drop.seed_generator.state, state)

    @pytest.mark.parametrize(("name", "amount"), [("Dropout", "rate"), ("GaussianNoise", "stddev")])
    def test_an_amount_that_is_raised_from_0(self, name: str, amount: str) -> None:
        """Keras' layer, which has no generator at 0, gets one."""
        import keras

        layer = getattr(keras.layers, name)(0.0)
        md.convert(layer, seed=0)
        setattr(layer, amount, 0.5)
        md.restore(layer)
        assert not np.array_equal(layer(values(8), training=True), values(8))

    @pytest.mark.parametrize("kind", ["subclassed", "functional"])
    @pytest.mark.parametrize("file", ["model.keras", "model.weights.h5", None])
    def test_a_model_that_builds_layers_of_its_own(self, kind: str, file: str | None, tmp_path: Path) -> None:
        """Is built as at first, converted, and given the weights; then it goes on."""
        import keras

        class Net(keras.Model):
            def __init__(self) -> None:
                super().__init__()
                self.dense, self.drop = keras.layers.Dense(8), keras.layers.Dropout(0.5, name="drop")

            def call(self, X: Any, training: bool = False) -> Any:
                return self.drop(self.dense(X), training=training)

        def built() -> Any:
            if kind == "subclassed":
                model = Net()
            else:
                inputs = keras.Input((3, 8))
                attention = keras.layers.MultiHeadAttention(2, 4, dropout=0.5, name="attention")
                model = keras.Model(inputs, keras.layers.Dropout(0.5, name="drop")(attention(inputs, inputs)))
            model(x)
            return model

        x = values(2, 3, 8)
        model = built()
        assert md.convert(model, seed=1).unreached == ()
        model(x, training=True)
        again = built()
        md.convert(again, seed=2)
        if file is None:
            again.set_weights(model.get_weights())
        else:
            model.save(tmp_path / file) if file == "model.keras" else model.save_weights(tmp_path / file)
            again.load_weights(tmp_path / file)
        Y = model(x, training=True)
        assert np.array_equal(again(x, training=True), Y)
        assert not np.array_equal(again(x, training=True), Y)

    LAYERS = (
        ("Dropout", 1),
        ("AlphaDropout", 1),
        ("GaussianDropout", 1),
        ("GaussianNoise", 1),
        ("SpatialDropout1D", 2),
        ("SpatialDropout2D", 3),
        ("SpatialDropout3D", 4),
    )

    @pytest.mark.parametrize(("name", "ndim"), LAYERS)
    def test_every_layer(self, name: str, ndim: int) -> None:
        """Does what one that is built with its key does; is configured and restored as it was."""
        import keras
        import multidrop_tensorflow

        theirs = getattr(keras.layers, name)(0.25)
        config = theirs.get_config()
        x = values(2, *range(4, 4 + ndim))
        key = md.Key(5).fold_in(re.sub(r"_\d+$", "", theirs.name))
        md.convert(model := keras.Sequential([theirs]), seed=5)
        ours = getattr(multidrop_tensorflow, name)(0.25, seed=key)
        expected = ours(x, training=True).numpy()
        again = type(ours).from_config(theirs.get_config())
        assert np.array_equal(model(x, training=True), expected)
        assert np.array_equal(again(x, training=True), expected)
        assert md.restore(model) == 1
        assert theirs.get_config() == config
        model(x, training=True)

    def test_a_subclassed_model(self) -> None:
        import keras

        class Net(keras.Model):
            def __init__(self) -> None:
                super().__init__()
                self.dense, self.drops = keras.layers.Dense(8), [keras.layers.Dropout(0.5, name="a")]

            def call(self, X: Any, training: bool = False) -> Any:
                for drop in self.drops:
                    X = drop(self.dense(X), training=training)
                return X

        net = Net()
        assert [path for path, _ in md.convert(net, seed=1).replaced] == ["a"]
        x = values(4, 8)
        kept = net(x, training=True).numpy() != 0
        assert np.array_equal(kept, md.keep_mask((4, 8), 0.5, md.Key(1).fold_in("a")))

    def test_paths_are_of_the_model_alone(self) -> None:
        """Layers have masks of their own, which do not depend on what was built before in the process."""
        import keras

        class Block(keras.layers.Layer):
            def __init__(self) -> None:
                super().__init__()
                self.drop, self.second = keras.layers.Dropout(0.5), keras.layers.Dropout(0.5, name="same")
                self.third, self.drops = keras.layers.Dropout(0.5, name="same"), [keras.layers.Dropout(0.5)]
                self.drops += [keras.layers.Dropout(0.5), keras.layers.Dropout(0.5, name="same_1")]

        class Recurrent(keras.layers.SimpleRNN):
            def __init__(self, units: int, **kwargs: Any) -> None:
                super().__init__(units, **kwargs)
                self.drop = keras.layers.Dropout(0.5)

        def model() -> Any:
            inner = keras.Sequential([keras.layers.Dropout(0.5), keras.layers.Dropout(0.5)])
            inputs = keras.Input((4, 4))
            X = keras.layers.Dropout(0.5)(inner(inner(inputs)))
            X = keras.layers.TimeDistributed(keras.layers.Dropout(0.5))(X)
            with keras.utils.custom_object_scope({"Recurrent": Recurrent}):
                outputs = keras.layers.Bidirectional(Recurrent(4))(X)
            return keras.Sequential([Block(), Block(), keras.Model(inputs, outputs)])

        paths = (
            *("block.drop", "block.same", "block.same_2", "block.dropout", "block.dropout_1", "block.same_1"),
            *("block_1.drop", "block_1.same", "block_1.same_2", "block_1.dropout", "block_1.dropout_1"),
            *("block_1.same_1", "functional.sequential.dropout", "functional.sequential.dropout_1"),
            *("functional.dropout", "functional.time_distributed.layer"),
            *("functional.bidirectional.forward_layer.drop", "functional.bidirectional.backward_layer.drop"),
        )
        for _ in range(2):
            report = md.convert(converted := model(), seed=1)
            layers = [layer for layer in converted._flatten_layers() if "converted" in vars(layer)]
            keys = {md.mask_at(layer, 0, (4, 4)).key for layer in layers}
            assert keys == {md.Key(1).fold_in(path) for path in paths}
            shown = [path for path, _ in report.replaced]
            assert len(set(shown)) == len(paths)
            assert {path.rpartition(".")[2] for path in shown} >= {"same", "same_2", *(x.name for x in layers)}
            assert md.restore(converted, report) == len(paths)

    def test_what_cannot_be_reached_is_said(self) -> None:
        import keras

        class Loud(keras.layers.Dropout):
            pass

        report = md.convert(
            keras.Sequential([Loud(0.5, name="loud"), keras.layers.MultiHeadAttention(2, 4, dropout=0.1)])
        )
        assert report.replaced == ()
        assert [what for _, what in report.unreached] == [
            "Loud, a subclass with a call of its own",
            "MultiHeadAttention, which makes its layers when it is built: convert after the first call",
        ]
        attention = keras.layers.MultiHeadAttention(2, 4, dropout=0.1)
        attention(values(2, 3, 4), values(2, 3, 4))
        report = md.convert(attention)
        assert len(report.replaced) == 1
        assert report.unreached == ()

    def test_one_conversion_is_undone(self) -> None:
        import keras
        import multidrop_tensorflow

        first, second = keras.layers.Dropout(0.5, name="first"), keras.layers.Dropout(0.5, name="second")
        md.convert(first)
        model = keras.Sequential([first, second])
        report = md.convert(model)
        assert [path for path, _ in report.replaced] == ["second"]
        assert md.restore(model, report) == 1
        assert type(first) is multidrop_tensorflow.Dropout
        assert type(second) is keras.layers.Dropout


class TestGluon:
    @pytest.fixture(autouse=True)
    def mxnet(self, need: Any) -> None:
        need("mxnet")

    @pytest.mark.parametrize("hybridized", [False, True])
    def test_a_net(self, hybridized: bool) -> None:
        import mxnet as mx
        from mxnet import gluon

        net = gluon.nn.HybridSequential()
        net.add(gluon.nn.Dense(64, in_units=8), gluon.nn.Dropout(0.5), gluon.nn.Dropout(0.25, axes=(1,)))
        net.initialize()
        if hybridized:
            net.hybridize()
        net[2]._axes = 1  # as Gluon takes them too
        X = mx.nd.ones((16, 8))
        with mx.autograd.record():
            net(X)
        count = len(net.collect_params().keys())
        report = md.convert(net, seed=5)
        assert [path for path, _ in report.replaced] == ["1", "2"]
        Y = net[0](X).asnumpy()
        with mx.autograd.record():
            Z = net(X).asnumpy()
        expected = masks.dropout(Y, 0.5, md.Key(5).fold_in("1"))
        assert np.array_equal(Z, masks.dropout(expected, 0.25, md.Key(5).fold_in("2"), axes=(1,)))
        assert md.restore(net) == 2
        assert len(net.collect_params().keys()) == count
        assert type(net[1]) is gluon.nn.Dropout
        with mx.autograd.record():
            net(X).asnumpy()

    @pytest.mark.parametrize("hybridized", [False, True])
    @pytest.mark.parametrize("in_units", [8, 0])
    def test_a_net_on_two_contexts(self, hybridized: bool, in_units: int) -> None:
        """Its streams are where its weights are, or are to be; each has masks of its own, which a trainer leaves it."""
        import mxnet as mx
        from mxnet import gluon

        contexts = [mx.cpu(0), mx.cpu(1)]
        net = gluon.nn.HybridSequential()
        net.add(gluon.nn.Dense(8, in_units=in_units), gluon.nn.Dropout(0.5))
        net.initialize(mx.init.One(), ctx=contexts)
        md.convert(net, seed=5)
        if hybridized:
            net.hybridize()
        key = md.Key(5).fold_in("1")
        trainer = gluon.Trainer(net.collect_params(), "sgd", {"learning_rate": 0.0})
        for call in range(2):
            with mx.autograd.record():
                outputs = [net(mx.nd.ones((16, 8), ctx=ctx)) for ctx in contexts]
            mx.autograd.backward(outputs)
            trainer.step(16)
            for Y, own in zip(outputs, (key, key.fold_in(1)), strict=True):
                assert np.array_equal(Y.asnumpy() != 0, md.keep_mask((16, 8), 0.5, md.Key(own.seed, call)))

    def test_layers_with_one_prefix(self) -> None:
        """Have streams of other names."""
        from mxnet import gluon

        net = gluon.nn.HybridSequential()
        net.add(gluon.nn.Dropout(0.5, prefix="d_"), gluon.nn.Dropout(0.5, prefix="d_"))
        md.convert(net, seed=5)
        assert list(net.collect_params()) == ["d_stream", "d_stream_"]

    def test_cells_and_graphs_are_said(self) -> None:
        import mxnet as mx
        from mxnet.gluon import SymbolBlock, contrib, nn, rnn

        class Holder(nn.HybridSequential):
            def __init__(self) -> None:
                super().__init__()
                self.drops = [nn.Dropout(0.5)]

        X = mx.sym.Variable("X", dtype="float32")
        graph = mx.sym.Dropout(mx.sym.Dropout(X, p=0.0), p=0.25, name="drop")
        net = nn.Sequential()
        net.add(rnn.DropoutCell(0.5), rnn.DropoutCell(0.0), rnn.ZoneoutCell(rnn.LSTMCell(4), 0.2))
        net.add(contrib.rnn.VariationalDropoutCell(rnn.LSTMCell(4), drop_states=0.3))
        net.add(rnn.LSTM(4, 2, dropout=0.2), rnn.LSTM(4, 2))
        net.add(SymbolBlock(graph, X), SymbolBlock(mx.sym.relu(X), X), Holder())
        assert md.convert(net).unreached == (
            ("0", "DropoutCell, which drops by itself: _rate = 0.5"),
            ("2", "ZoneoutCell, which drops by itself: zoneout_outputs = 0.2"),
            ("3", "VariationalDropoutCell, which drops by itself: drop_states = 0.3"),
            ("4", "LSTM, which drops 0.2 between its layers in a fused operation"),
            ("6", "SymbolBlock, whose graph drops 0.25 in drop"),
            ("8", "Holder.drops[0], a Dropout that is not registered as a layer of it"),
        )


def test_the_same_architecture_draws_the_same_masks(need: Any) -> None:
    for name in ("torch", "mxnet"):
        need(name)
    import mxnet as mx
    import torch

    of_torch = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Dropout(0.5))
    of_mxnet = mx.gluon.nn.Sequential()
    of_mxnet.add(mx.gluon.nn.Activation("relu"), mx.gluon.nn.Dropout(0.5))
    for model in (of_torch, of_mxnet):
        md.convert(model, seed=0)
    x = values(16, 16)
    with mx.autograd.record():
        Y = of_mxnet(mx.nd.array(x)).asnumpy()
    assert np.array_equal(of_torch(torch.from_numpy(x)).numpy(), Y)


def test_attributes_are_paths_in_every_framework(need: Any) -> None:
    for name in ("torch", "tensorflow", "mxnet"):
        need(name)
    import keras
    import torch
    from mxnet import gluon

    keys = []
    for base, dropout in (
        (torch.nn.Module, torch.nn.Dropout),
        (keras.Model, keras.layers.Dropout),
        (gluon.Block, gluon.nn.Dropout),
    ):

        class Model(base):  # type: ignore[misc, valid-type]
            def __init__(self, dropout: Any) -> None:
                super().__init__()
                self.drop = dropout(0.5)

        md.convert(model := Model(dropout), seed=0)
        keys.append(md.mask_at(model.drop, 0, (4, 4)).key)
    assert keys == [md.Key(0).fold_in("drop")] * 3


def test_what_is_no_model(backend: Any) -> None:
    for bad in ("model", [1.0], np.ones(3), None, backend.tensor(np.ones(3))):
        for function in (md.convert, md.restore):
            with pytest.raises(TypeError, match="expected a"):
                function(bad)


def test_keras_layers_that_drop_by_themselves(need: Any) -> None:
    need("tensorflow")
    import keras
    from keras import layers
    from keras.src.applications.convnext import StochasticDepth

    given = keras.Input((5, 6))
    X = layers.Attention(dropout=0.2, name="attention")([given, given])
    X = layers.MultiHeadAttention(2, 3, dropout=0.5, name="heads")(X, X)
    X = StochasticDepth(0.1, name="depth")(X)
    X = layers.SimpleRNN(4, recurrent_dropout=0.2, name="rnn")(X)
    report = md.convert(keras.Model(given, X), seed=0)
    assert [path.rstrip("_0123456789") for path, _ in report.replaced] == ["heads.dropout"]
    assert [what for _, what in report.unreached] == [
        "Attention, which drops by itself: dropout = 0.2",
        "StochasticDepth, which drops by itself: drop_path_rate = 0.1",
        "SimpleRNNCell, which drops by itself: recurrent_dropout = 0.2",
    ]
