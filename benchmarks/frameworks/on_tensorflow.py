"""TensorFlow: eager, in a `tf.function`, and compiled by XLA."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow's start-up messages would break the progress bar

import keras
import multidrop_tensorflow
import numpy as np
import tensorflow as tf

import multidrop as md

from ..section import on_tensorflow as section
from ..workers import threads
from . import APART, COPY, EAGER, FUSED, NONE, OURS, OWN, OWN_PAIR, P1, P2, SECTION, Candidate, Case, inputs
from .memory import resident

GRAPH, XLA = "tf.function", "XLA"

Drop = Callable[[tf.Tensor], tf.Tensor]


class Measured:
    """See `Framework`."""

    name = "tensorflow"
    modes = (EAGER, GRAPH, XLA)
    dtypes = ("float16", "bfloat16", "float32", "float64")
    layouts = ("contiguous",)  # TensorFlow's tensors have no other

    def __init__(self, device: str) -> None:
        tf.get_logger().setLevel("ERROR")  # hides warnings about retracing, which each size needs
        if device == "gpu" and not tf.config.list_physical_devices("GPU"):
            raise ImportError("this TensorFlow has no GPU")
        if device == "cpu":
            tf.config.set_visible_devices([], "GPU")
        tf.config.threading.set_intra_op_parallelism_threads(threads() or 0)
        self.device = f"/{device.upper()}:0"
        md.manual_seed(0)

    def candidates(self, case: Case) -> dict[str, Callable[[], Candidate]]:
        return self._builders(case, self._drops(case))

    def rectified(self, case: Case) -> dict[str, Callable[[], Candidate]]:
        drops: dict[str, Drop] = {
            FUSED: lambda X: md.relu_dropout(X, case.p),
            APART: lambda X: md.dropout_layer(tf.nn.relu(X), case.p),
            OWN_PAIR: lambda X: tf.nn.dropout(tf.nn.relu(X), case.p),
        }
        return self._builders(case, drops)

    def _builders(self, case: Case, drops: dict[str, Drop]) -> dict[str, Callable[[], Candidate]]:
        X, dY = self._inputs(case)

        def candidate(who: str) -> Candidate:
            drop = drops[who]

            def both(X: tf.Tensor, dY: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
                return (drop(X), drop(dY)) if who == COPY else _both(drop, X, dY)

            forward, both = _traced(drop, case.mode), _traced(both, case.mode)
            return Candidate(lambda: forward(X), lambda: both(X, dY))

        return {who: functools.partial(candidate, who) for who in drops}

    def _drops(self, case: Case) -> dict[str, Drop]:
        p = case.p
        ours: Drop = functools.partial(md.dropout_layer, dropout=p)
        if case.mode != EAGER:  # traced programs usually consist of layers
            layer: Any = multidrop_tensorflow.Dropout(p, seed=0, dtype=case.dtype)
            ours = functools.partial(layer, training=True)
        return {
            OURS: ours,
            OWN: lambda X: tf.nn.dropout(X, p),
            SECTION: lambda X: section.dropout_layer(X, p),
            # XLA has no DeepCopy, but copies the result of an identity; elsewhere an identity copies nothing.
            COPY: (lambda X: tf.identity(X)) if case.mode == XLA else (lambda X: tf.raw_ops.DeepCopy(x=X)),
        }

    def ways(self, case: Case) -> dict[str, Callable[[], Any]]:
        (X, _), p, key, function = self._inputs(case), case.p, md.Key(0), md.dropout_layer
        layer, own = multidrop_tensorflow.Dropout(p, seed=0), keras.layers.Dropout(p)
        md.manual_seed(None)
        unseeded = multidrop_tensorflow.Dropout(p)
        md.manual_seed(0)
        return {
            "framework: keras.layers.Dropout": lambda: own(X, training=True),
            "framework: tf.nn.dropout": lambda: tf.nn.dropout(X, p),
            "multidrop: the layer, seeded": lambda: layer(X, training=True),
            "multidrop: the layer, by TensorFlow's generator": lambda: unseeded(X, training=True),
            "multidrop: the function, with a key": lambda: function(X, p, key),
            "multidrop: the function, after manual_seed": lambda: function(X, p),
        }

    def chain(self, who: str, depth: int, case: Case) -> tuple[Callable[[], Any], Callable[[Any], Any]]:
        (X, dY), drop = self._inputs(case), self._drops(case)[who]

        def forward() -> tuple[tf.GradientTape, tf.Tensor]:
            with tf.GradientTape() as tape:
                tape.watch(X)
                Y = X
                for _ in range(depth):
                    Y = drop(Y)
            return tape, Y

        return forward, lambda kept: kept[0].gradient(kept[1], X, output_gradients=dY)

    def nets(self) -> dict[str, Callable[[], Any]]:
        net = functools.partial(section.Net, dropout1=P1, dropout2=P2)
        return {
            OURS: lambda: md.Net(seed=0),
            OWN: lambda: net(keras.layers.Dropout),
            SECTION: lambda: net(section.Formula),
            NONE: lambda: net(None),
        }

    def train_as_in_section(self, net: Any, train_iter: Any, test_iter: Any, epochs: int, lr: float) -> float:
        return section.train(net, train_iter, test_iter, epochs, lr)

    def scope(self) -> AbstractContextManager[Any]:
        return tf.device(self.device)

    def accounted(self, who: str, case: Case) -> int | None:
        return None  # a tape does not report what it holds

    def in_use(self) -> int:
        return tf.config.experimental.get_memory_info("GPU:0")["current"] if "GPU" in self.device else resident()

    def synchronise(self) -> None:
        tf.test.experimental.sync_devices()

    def to_numpy(self, tensor: tf.Tensor) -> Any:
        return tf.cast(tensor, tf.float64).numpy()

    def _inputs(self, case: Case) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.device(self.device):
            X, dY = (tf.identity(tf.cast(tf.constant(np.asarray(x)), case.dtype)) for x in inputs(case))
        return X, dY


def _both(drop: Drop, X: tf.Tensor, dY: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    with tf.GradientTape() as tape:
        tape.watch(X)
        Y = drop(X)
    return Y, tape.gradient(Y, X, output_gradients=dY)


def _traced(function: Callable[..., Any], mode: str) -> Callable[..., Any]:
    return function if mode == EAGER else tf.function(function, autograph=False, jit_compile=mode == XLA)
