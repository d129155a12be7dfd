"""NumPy. It has no dropout and no autograd of its own, so the backward pass is written out."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import multidrop_numpy
import numpy as np

import multidrop as md
from multidrop.host import relu_gradient
from multidrop.spec import masks

from ..section import on_numpy as section
from . import APART, COPY, EAGER, FUSED, NONE, OURS, P1, P2, SECTION, Candidate, Case, inputs
from .memory import resident

OUT = "out="  # the mode that writes into an existing array


class Measured:
    """See `Framework`."""

    name = "numpy"
    modes = (OUT, EAGER)
    dtypes = ("float16", "float32", "float64")
    layouts = ("contiguous", "channels-last")

    def __init__(self, device: str) -> None:
        if device != "cpu":
            raise ImportError(f"device: expected cpu for NumPy; got {device}")
        md.manual_seed(0)

    def candidates(self, case: Case) -> dict[str, Callable[[], Candidate]]:
        X, dY = self._inputs(case)
        Y, dX = (np.zeros_like(X), np.zeros_like(X)) if case.mode == OUT else (None, None)
        keys, p = md.Stream(md.Key(0)), case.p

        def ours() -> tuple[Any, Any]:
            key = keys.next()
            return dropout_layer(X, p, key, out=Y), dropout_layer(dY, p, key, out=dX)

        def by_section() -> tuple[Any, Any]:
            mask = section.draw_mask(X, p)
            return section.apply_mask(mask, X, p, Y), section.apply_mask(mask, dY, p, dX)

        dropout_layer, copy = multidrop_numpy.dropout_layer, functools.partial(_copy, X, Y)
        return {
            OURS: lambda: Candidate(lambda: dropout_layer(X, p, out=Y), ours),
            SECTION: lambda: Candidate(lambda: section.dropout_layer(X, p, Y), by_section),
            COPY: lambda: Candidate(copy, lambda: (copy(), _copy(dY, dX))),
        }

    def rectified(self, case: Case) -> dict[str, Callable[[], Candidate]]:
        if case.mode == OUT:
            return {}
        (X, dY), p, keys = self._inputs(case), case.p, md.Stream(md.Key(0))

        def fused() -> tuple[Any, Any]:
            Y = md.relu_dropout(X, p, keys.next())
            return Y, relu_gradient(dY, Y, p)

        def apart() -> tuple[Any, Any]:
            key, H = keys.next(), masks.relu(X)
            return md.dropout_layer(H, p, key), md.dropout_layer(dY, p, key) * (H > 0)

        return {
            FUSED: lambda: Candidate(lambda: md.relu_dropout(X, p), fused),
            APART: lambda: Candidate(lambda: md.dropout_layer(masks.relu(X), p), apart),
        }

    def ways(self, case: Case) -> dict[str, Callable[[], Any]]:
        (X, _), p = self._inputs(case), case.p
        Y, key, layer, function = np.empty_like(X), md.Key(0), multidrop_numpy.Dropout(p, seed=0), md.dropout_layer
        return {
            "multidrop: the layer, seeded": lambda: layer(X),
            "multidrop: the function, with a key": lambda: function(X, p, key),
            "multidrop: the function, after manual_seed": lambda: function(X, p),
            "multidrop: the backend's function, with a key and out=": (
                lambda: multidrop_numpy.dropout_layer(X, p, key, out=Y)
            ),
        }

    def chain(self, who: str, depth: int, case: Case) -> tuple[Callable[[], Any], Callable[[Any], Any]]:
        raise NotImplementedError("NumPy has no backward pass that could keep anything")

    def nets(self) -> dict[str, Callable[[], Any]]:
        return {
            OURS: lambda: md.Net(seed=0),
            SECTION: lambda: section.net(P1, P2),
            NONE: lambda: section.net(0.0, 0.0),
        }

    def train_as_in_section(self, net: Any, train_iter: Any, test_iter: Any, epochs: int, lr: float) -> float:
        return md.train(net, train_iter, test_iter, epochs, lr).epochs[-1].test_accuracy  # the book has none

    def scope(self) -> AbstractContextManager[Any]:
        return nullcontext()

    def accounted(self, who: str, case: Case) -> int | None:
        return None

    def in_use(self) -> int:
        return resident()

    def synchronise(self) -> None:
        pass

    def to_numpy(self, tensor: Any) -> Any:
        return tensor

    def _inputs(self, case: Case) -> tuple[Any, Any]:
        X, dY = (values.astype(case.dtype) for values in inputs(case))
        if case.layout == "contiguous":
            return X, dY
        last, first = (0, 2, 3, 1), (0, 3, 1, 2)
        return tuple(np.ascontiguousarray(x.transpose(last)).transpose(first) for x in (X, dY))  # type: ignore[return-value]  # two


def _copy(X: Any, out: Any) -> Any:
    if out is None:
        return X.copy(order="K")
    np.copyto(out, X)
    return out
