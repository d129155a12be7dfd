"""`audit` of nets of Gluon: it names every random layer and nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from audited import names
from members import values

import multidrop as md


class TestGluon:
    @pytest.fixture(autouse=True)
    def mxnet(self, need: Any) -> Any:
        need("mxnet")
        import mxnet

        mxnet.random.seed(0)
        return mxnet

    @pytest.mark.parametrize("hybridized", [False, True])
    def test_every_random_layer_and_no_other(self, mxnet: Any, hybridized: bool) -> None:
        nn, rnn = mxnet.gluon.nn, mxnet.gluon.rnn
        net = nn.HybridSequential()
        net.add(nn.Dense(8, flatten=False), nn.HybridLambda(lambda F, X: F.Dropout(X, p=0.3)))
        net.add(nn.BatchNorm(), nn.Dropout(0.5), nn.Dropout(0.0))
        net.add(
            rnn.LSTM(4, 2, layout="NTC"),
            nn.HybridLambda(lambda F, X: F.broadcast_mul(X, F.random.uniform(shape=(1, 1, 1)) > 0.02)),
        )
        net.initialize()
        if hybridized:
            net.hybridize()
        X = mxnet.nd.array(values((8, 3, 5)))
        assert names(net, X) == ["1", "3", "6"]
        before = {name: param.data().asnumpy() for name, param in net.collect_params().items()}
        md.convert(net, seed=0)
        assert names(net, X) == ["1", "6"]
        assert net[3].stream.key == md.Key(0).fold_in("3")
        after = {name: param.data().asnumpy() for name, param in net.collect_params().items()}
        assert all(np.array_equal(value, after[name]) for name, value in before.items())
        assert all(block._active == hybridized for block in (net, net[3]))

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_a_recurrent_layer_that_drops_between_its_layers(self, mxnet: Any, dtype: str) -> None:
        """MXNet's fused operator drops for float64. For float32 on a CPU it is oneDNN's, which drops nothing."""
        net = mxnet.gluon.nn.Sequential()
        net.add(
            mxnet.gluon.nn.Dense(6, flatten=False), mxnet.gluon.rnn.LSTM(4, 2, dropout=0.5, layout="NTC", dtype=dtype)
        )
        net.cast(dtype)
        net.initialize()
        X = mxnet.nd.array(values((4, 3, 5)), dtype=dtype)
        with mxnet.autograd.record():
            first, second = (net(X).asnumpy() for _ in range(2))
        assert names(net, X) == ([] if np.array_equal(first, second) else ["1"])
        assert dtype == "float32" or not np.array_equal(first, second)

    def test_cells_that_keep_their_mask(self, mxnet: Any) -> None:
        """The first call draws it; each run begins without one, and so does what comes afterwards."""
        rnn = mxnet.gluon.rnn
        cell = mxnet.gluon.contrib.rnn.VariationalDropoutCell(rnn.LSTMCell(4), drop_inputs=0.5)
        cell.initialize()
        X = mxnet.nd.array(values((8, 5)))
        assert names(cell, X, cell.begin_state(batch_size=8, func=mxnet.nd.zeros)) == [""]
        assert cell.drop_inputs_mask is None
