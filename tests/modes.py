"""Every way in which a framework computes a dropout, behind one face: host arrays in, host arrays out.

The tests compare each of them with the oracle, `multidrop.spec.masks`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any
from unittest.mock import patch

import numpy as np
import placed

from multidrop.dispatch import load
from multidrop.host import relu_gradient
from multidrop.spec.keys import Key

DTYPES: dict[str, Any] = {"float16": np.float16, "float32": np.float32, "float64": np.float64}
if find_spec("ml_dtypes"):  # which the other frameworks bring: without it, arrays have no bfloat16
    DTYPES["bfloat16"] = import_module("ml_dtypes").bfloat16


@dataclass(frozen=True)
class Mode:
    """One way of computing."""

    backend: str
    name: str
    keep_mask: Callable[[tuple[int, ...], float, Key, int], np.ndarray]
    dropout: Callable[..., np.ndarray]
    """(x, p, key, start, axes=())"""
    gradient: Callable[..., np.ndarray]
    """(x, dy, p, key, start, axes=()): the gradient with respect to x, from dy, the one with respect to the output."""
    relu_dropout: Callable[[np.ndarray, np.ndarray, float, Key, int], tuple[np.ndarray, np.ndarray]]
    """(x, dy, p, key, start): the output of ReLU then dropout, and the gradient with respect to x."""
    lacks: tuple[str, ...] = ()  # dtypes that the framework does not have


def _numpy() -> list[Mode]:
    import multidrop_numpy as backend

    def dropout(x: np.ndarray, p: float, key: Key, start: int, axes: tuple[int, ...] = ()) -> np.ndarray:
        return backend.dropout_layer(x, p, key, start=start, axes=axes)

    # NumPy has no autograd: by the specification the gradient is the same dropout of the output's gradient.
    def relu_dropout(x: np.ndarray, dy: np.ndarray, p: float, key: Key, start: int) -> tuple[np.ndarray, np.ndarray]:
        y = backend.relu_dropout(x, p, key, start=start)
        return y, relu_gradient(dy, y, p)

    def gradient(
        x: np.ndarray, dy: np.ndarray, p: float, key: Key, start: int, axes: tuple[int, ...] = ()
    ) -> np.ndarray:
        return dropout(dy, p, key, start, axes)

    return [Mode("numpy", "numpy", backend.keep_mask, dropout, gradient, relu_dropout)]


def _torch() -> list[Mode]:
    import multidrop_torch as backend
    import torch

    def tensor(x: np.ndarray) -> Any:
        if x.dtype.name == "bfloat16":
            return placed.tensor(x.astype(np.float32)).to(torch.bfloat16)
        return placed.tensor(x)

    def host(y: Any, like: np.ndarray) -> np.ndarray:
        return backend.to_numpy(y).astype(like.dtype)

    def dropout(x: np.ndarray, p: float, key: Key, start: int, axes: tuple[int, ...] = ()) -> np.ndarray:
        return host(backend.dropout_layer(tensor(x), p, key, start=start, axes=axes), x)

    def gradient(
        x: np.ndarray, dy: np.ndarray, p: float, key: Key, start: int, axes: tuple[int, ...] = ()
    ) -> np.ndarray:
        X = tensor(x).requires_grad_()
        (dX,) = torch.autograd.grad(backend.dropout_layer(X, p, key, start=start, axes=axes), X, tensor(dy))
        return host(dX, x)

    def keep_mask(shape: tuple[int, ...], p: float, key: Key, start: int) -> np.ndarray:
        return placed.array(backend.keep_mask(shape, p, key, start, placed.PLACE))

    def relu_dropout(x: np.ndarray, dy: np.ndarray, p: float, key: Key, start: int) -> tuple[np.ndarray, np.ndarray]:
        X = tensor(x).requires_grad_()
        Y = backend.relu_dropout(X, p, key, start=start)
        (dX,) = torch.autograd.grad(Y, X, tensor(dy))
        return host(Y, x), host(dX, x)

    return [Mode("torch", "torch-eager", keep_mask, dropout, gradient, relu_dropout)]


def _tensorflow() -> list[Mode]:
    import multidrop_tensorflow as backend
    import tensorflow as tf

    def modes(name: str, run: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Mode:
        def keep_mask(shape: tuple[int, ...], p: float, key: Key, start: int) -> np.ndarray:
            return run(lambda: backend.keep_mask(shape, p, key, start))().numpy()

        def dropout(x: np.ndarray, p: float, key: Key, start: int, axes: tuple[int, ...] = ()) -> np.ndarray:
            return run(lambda X: backend.dropout_layer(X, p, key, start=start, axes=axes))(tf.constant(x)).numpy()

        def gradient(
            x: np.ndarray, dy: np.ndarray, p: float, key: Key, start: int, axes: tuple[int, ...] = ()
        ) -> np.ndarray:
            def both(X: Any, dY: Any) -> Any:
                with tf.GradientTape() as tape:
                    tape.watch(X)
                    Y = backend.dropout_layer(X, p, key, start=start, axes=axes)
                return tape.gradient(Y, X, output_gradients=dY)

            return run(both)(tf.constant(x), tf.constant(dy)).numpy()

        def relu_dropout(
            x: np.ndarray, dy: np.ndarray, p: float, key: Key, start: int
        ) -> tuple[np.ndarray, np.ndarray]:
            def both(X: Any, dY: Any) -> Any:
                with tf.GradientTape() as tape:
                    tape.watch(X)
                    Y = backend.relu_dropout(X, p, key, start=start)
                return Y, tape.gradient(Y, X, output_gradients=dY)

            Y, dX = run(both)(tf.constant(x), tf.constant(dy))
            return Y.numpy(), dX.numpy()

        return Mode("tensorflow", name, keep_mask, dropout, gradient, relu_dropout)

    def traced(**options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        return lambda function: tf.function(function, autograph=False, **options)

    def by_operators(**options: Any) -> Callable[..., Callable[..., Any]]:
        """Traced as on a machine where the kernel is no operator of TensorFlow's, nor a call of XLA's."""

        def trace(function: Callable[..., Any]) -> Callable[..., Any]:
            def run(*tensors: Any) -> Any:
                with patch.object(backend.draw.native, "available", lambda: False):
                    return traced(**options)(function)(*tensors)

            return run

        return trace

    return [
        modes("tensorflow-eager", lambda function: function),
        modes("tensorflow-function", traced()),
        modes("tensorflow-operators", by_operators()),
        modes("tensorflow-xla", traced(jit_compile=True)),
        modes("tensorflow-xla-operators", by_operators(jit_compile=True)),
    ]


def _mxnet() -> list[Mode]:
    import multidrop_mxnet as backend
    import mxnet as mx

    def mode(name: str, array: Callable[[np.ndarray], Any]) -> Mode:
        def keep_mask(shape: tuple[int, ...], p: float, key: Key, start: int) -> np.ndarray:
            return backend.to_numpy(backend.keep_mask(shape, p, key, start)).astype(bool)

        def dropout(x: np.ndarray, p: float, key: Key, start: int, axes: tuple[int, ...] = ()) -> np.ndarray:
            return backend.to_numpy(backend.dropout_layer(array(x), p, key, start=start, axes=axes))

        def gradient(
            x: np.ndarray, dy: np.ndarray, p: float, key: Key, start: int, axes: tuple[int, ...] = ()
        ) -> np.ndarray:
            X = array(x)
            X.attach_grad()
            with mx.autograd.record():
                Y = backend.dropout_layer(X, p, key, start=start, axes=axes)
            Y.backward(array(dy))
            return backend.to_numpy(X.grad)

        def relu_dropout(
            x: np.ndarray, dy: np.ndarray, p: float, key: Key, start: int
        ) -> tuple[np.ndarray, np.ndarray]:
            X = array(x)
            X.attach_grad()
            with mx.autograd.record():
                Y = backend.relu_dropout(X, p, key, start=start)
            Y.backward(array(dy))
            return backend.to_numpy(Y), backend.to_numpy(X.grad)

        return Mode("mxnet", name, keep_mask, dropout, gradient, relu_dropout, lacks=("bfloat16",))

    def np_array(x: np.ndarray) -> Any:
        with mx.util.np_shape(True):
            return mx.np.array(x, dtype=x.dtype)

    def nd_array(x: np.ndarray) -> Any:
        with mx.util.np_shape(True):
            return mx.nd.array(x, dtype=x.dtype)

    return [mode("mxnet-np", np_array), mode("mxnet-nd", nd_array)]


MODES = {
    "numpy": ("numpy",),
    "torch": ("torch-eager",),
    "tensorflow": (
        *("tensorflow-eager", "tensorflow-function", "tensorflow-operators"),
        *("tensorflow-xla", "tensorflow-xla-operators"),
    ),
    "mxnet": ("mxnet-np", "mxnet-nd"),
}
_MAKERS = {"numpy": _numpy, "torch": _torch, "tensorflow": _tensorflow, "mxnet": _mxnet}


def modes_of(backend: str) -> list[Mode]:
    """The modes of a backend, which must be installed."""
    load(backend)
    modes = _MAKERS[backend]()
    assert tuple(mode.name for mode in modes) == MODES[backend]
    return modes
