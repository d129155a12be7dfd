"""Nets of Gluon get this library's layers, and their own back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import multidrop as md
from multidrop.spec import masks


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
