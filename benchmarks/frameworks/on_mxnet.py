"""MXNet. Its calls return before the work is done, so each candidate waits for its results."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import multidrop_mxnet  # makes the next import work
import mxnet as mx

import multidrop as md

from ..section import on_mxnet as section
from . import APART, COPY, EAGER, FUSED, NONE, OURS, OWN, OWN_PAIR, P1, P2, SECTION, Candidate, Case, inputs
from .memory import resident

Drop = Callable[[mx.np.ndarray], mx.np.ndarray]


class Measured:
    """See `Framework`."""

    name = "mxnet"
    modes = (EAGER,)
    dtypes = ("float16", "float32", "float64")
    layouts = ("contiguous",)  # MXNet's arrays have no other

    def __init__(self, device: str) -> None:
        if device == "gpu" and not mx.context.num_gpus():
            raise ImportError("this MXNet has no GPU")
        mx.npx.set_np()
        self.device = mx.gpu() if device == "gpu" else mx.cpu()
        md.manual_seed(0)

    def candidates(self, case: Case) -> dict[str, Callable[[], Candidate]]:
        return self._builders(case, self._drops(case.p))

    def rectified(self, case: Case) -> dict[str, Callable[[], Candidate]]:
        drops: dict[str, Drop] = {
            FUSED: lambda X: md.relu_dropout(X, case.p),
            APART: lambda X: md.dropout_layer(mx.npx.relu(X), case.p),
            OWN_PAIR: lambda X: mx.npx.dropout(mx.npx.relu(X), p=case.p, mode="always"),
        }
        return self._builders(case, drops)

    def _builders(self, case: Case, drops: dict[str, Drop]) -> dict[str, Callable[[], Candidate]]:
        X, dY = self._inputs(case)
        leaf = X.copy()
        leaf.attach_grad()

        def candidate(who: str) -> Candidate:
            drop = drops[who]
            if who == COPY:
                return Candidate(lambda: _wait(drop(X)), lambda: (_wait(drop(X)), _wait(drop(dY))))
            return Candidate(lambda: _wait(drop(X)), lambda: _both(drop, leaf, dY))

        return {who: functools.partial(candidate, who) for who in drops}

    def _drops(self, p: float) -> dict[str, Drop]:
        return {
            OURS: lambda X: md.dropout_layer(X, p),
            OWN: lambda X: mx.npx.dropout(X, p=p, mode="always"),
            SECTION: lambda X: section.dropout_layer(X, p),
            COPY: lambda X: X.copy(),
        }

    def ways(self, case: Case) -> dict[str, Callable[[], Any]]:
        (X, _), p, key, function = self._inputs(case), case.p, md.Key(0), md.dropout_layer
        layer, own = multidrop_mxnet.Dropout(p, seed=0), mx.gluon.nn.Dropout(p)
        own.initialize()
        md.manual_seed(None)
        unseeded = multidrop_mxnet.Dropout(p)
        md.manual_seed(0)

        def training(layer: Drop) -> Callable[[], Any]:
            def call() -> Any:
                with mx.autograd.train_mode():
                    return _wait(layer(X))

            return call

        return {
            "framework: gluon.nn.Dropout": training(own),
            "framework: npx.dropout": lambda: _wait(mx.npx.dropout(X, p=p, mode="always")),
            "multidrop: the layer, seeded": training(layer),
            "multidrop: the layer, by MXNet's generator": training(unseeded),
            "multidrop: the function, with a key": lambda: _wait(function(X, p, key)),
            "multidrop: the function, after manual_seed": lambda: _wait(function(X, p)),
        }

    def chain(self, who: str, depth: int, case: Case) -> tuple[Callable[[], Any], Callable[[Any], Any]]:
        (X, dY), drop = self._inputs(case), self._drops(case.p)[who]
        X.attach_grad()

        def forward() -> mx.np.ndarray:
            with mx.autograd.record():
                Y = X
                for _ in range(depth):
                    Y = drop(Y)
            return _wait(Y)

        def backward(Y: mx.np.ndarray) -> mx.np.ndarray:
            Y.backward(dY)
            return _wait(X.grad)

        return forward, backward

    def nets(self) -> dict[str, Callable[[], Any]]:
        return {
            OURS: lambda: md.Net(seed=0),
            APART: lambda: section.net(functools.partial(multidrop_mxnet.Dropout, seed=0), P1, P2),
            OWN: lambda: section.net(mx.gluon.nn.Dropout, P1, P2),
            SECTION: lambda: section.net(section.Formula, P1, P2),
            NONE: lambda: section.net(None, P1, P2),
        }

    def train_as_in_section(self, net: Any, train_iter: Any, test_iter: Any, epochs: int, lr: float) -> float:
        return section.train(net, train_iter, test_iter, epochs, lr)

    def scope(self) -> AbstractContextManager[Any]:
        return self.device

    def accounted(self, who: str, case: Case) -> int | None:
        return None  # MXNet's profiler counts allocations, not what is kept

    def in_use(self) -> int:
        if self.device.device_type == "gpu":
            free, total = mx.context.gpu_memory_info()
            return total - free
        return resident()

    def synchronise(self) -> None:
        mx.nd.waitall()

    def to_numpy(self, tensor: mx.np.ndarray) -> Any:
        return tensor.asnumpy()

    def _inputs(self, case: Case) -> tuple[mx.np.ndarray, mx.np.ndarray]:
        X, dY = (mx.np.array(x, case.dtype, ctx=self.device) for x in inputs(case))
        return _wait(X), _wait(dY)


def _wait(array: mx.np.ndarray) -> mx.np.ndarray:
    array.wait_to_read()
    return array


def _both(drop: Drop, leaf: mx.np.ndarray, dY: mx.np.ndarray) -> tuple[mx.np.ndarray, mx.np.ndarray]:
    with mx.autograd.record():
        Y = drop(leaf)
    Y.backward(dY)
    return _wait(Y), _wait(leaf.grad)
