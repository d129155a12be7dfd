"""Every way in which a framework runs a layer of the family, behind one face: host arrays in, host arrays out."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from placed import array, tensor

from multidrop.dispatch import load

Array = np.ndarray


@dataclass(frozen=True)
class LayerWay:
    """One way of running.

    `program` makes of a layer what `run` takes. `run` takes (program, x, dy, training) and gives the output and the
    gradient with respect to x. `resume` takes (layer, other, folder) and gives the other the saved state of the first.
    """

    backend: str
    name: str
    program: Callable[[Any], Any]
    run: Callable[[Any, Array, Array, bool], tuple[Array, Array]]
    seed: Callable[[int], None]
    resume: Callable[[Any, Any, Path], None]
    host_numbers: bool = False  # whether reals, and what is computed with them, are NumPy's own
    fuses: bool = False  # whether its compiler may round a product and a sum once
    seen: bool = True  # whether Python sees each call
    types: tuple[str, ...] = ("float16", "float32", "float64")  # that a layer computes in as they come


def _numpy() -> list[LayerWay]:
    def run(layer: Any, x: Array, dy: Array, training: bool) -> tuple[Array, Array]:
        return layer.train(training)(x), layer.backward(dy)

    def resume(layer: Any, other: Any, folder: Path) -> None:
        vars(other).update(vars(pickle.loads(pickle.dumps(layer))))

    return [LayerWay("numpy", "numpy", lambda layer: layer, run, np.random.seed, resume, host_numbers=True)]


def _torch() -> list[LayerWay]:
    import torch

    def run(program: Any, x: Array, dy: Array, training: bool) -> tuple[Array, Array]:
        X = tensor(x).requires_grad_()
        Y = program.train(training)(X)
        (dX,) = torch.autograd.grad(Y, X, tensor(dy))
        return array(Y), array(dX)

    def resume(layer: Any, other: Any, folder: Path) -> None:
        torch.save(layer.state_dict(), folder / "state")
        other.load_state_dict(torch.load(folder / "state"))

    def compiled(layer: Any) -> Any:
        torch._dynamo.reset()
        return torch.compile(layer, fullgraph=True, backend="aot_eager")

    return [
        LayerWay("torch", "torch-eager", lambda layer: layer, run, torch.manual_seed, resume),
        LayerWay("torch", "torch-compiled", compiled, run, torch.manual_seed, resume, seen=False),
    ]


def _tensorflow() -> list[LayerWay]:
    import keras
    import multidrop_tensorflow  # noqa: F401  # first of what TensorFlow is told
    import tensorflow as tf

    def way(name: str, build: Callable[[Callable[..., Any]], Callable[..., Any]], **properties: Any) -> LayerWay:
        def program(layer: Any) -> Any:
            def both(X: Any, dY: Any, training: bool) -> Any:
                with tf.GradientTape() as tape:
                    tape.watch(X)
                    Y = layer(X, training=training)
                return Y, tape.gradient(Y, X, output_gradients=dY)

            return {training: build(partial(both, training=training)) for training in (True, False)}

        def run(program: Any, x: Array, dy: Array, training: bool) -> tuple[Array, Array]:
            Y, dX = program[training](tf.constant(x), tf.constant(dy))
            return Y.numpy(), dX.numpy()

        def resume(layer: Any, other: Any, folder: Path) -> None:
            other.set_weights(layer.get_weights())

        # Keras casts to a layer's own type.
        return LayerWay(
            "tensorflow", name, program, run, keras.utils.set_random_seed, resume, types=("float32",), **properties
        )

    def function(**options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        return lambda f: tf.function(f, autograph=False, **options)

    def unknown_sizes(f: Callable[..., Any]) -> Callable[..., Any]:
        traced: list[Any] = []

        def run(X: Any, dY: Any) -> Any:
            if not traced:
                traced.append(function(input_signature=[tf.TensorSpec([None, *X.shape[1:]], X.dtype)] * 2)(f))
            return traced[0](X, dY)

        return run

    return [
        way("tensorflow-eager", lambda f: f),
        way("tensorflow-function", function(), seen=False),
        way("tensorflow-sizes", unknown_sizes, seen=False),
        way("tensorflow-xla", function(jit_compile=True), fuses=True, seen=False),
    ]


def _mxnet() -> list[LayerWay]:
    import multidrop_mxnet as backend
    import mxnet as mx

    def way(name: str, hybrid: bool, array: Callable[..., Any]) -> LayerWay:
        def program(layer: Any) -> Any:
            layer.initialize()
            if hybrid:
                layer.hybridize()
            return layer

        def run(program: Any, x: Array, dy: Array, training: bool) -> tuple[Array, Array]:
            X = array(x, dtype=x.dtype)
            X.attach_grad()
            with mx.autograd.record(train_mode=training):
                Y = program(X)
            assert type(Y) is type(X)
            Y.backward(array(dy, dtype=dy.dtype), train_mode=training)
            return backend.to_numpy(Y), backend.to_numpy(X.grad)

        def resume(layer: Any, other: Any, folder: Path) -> None:
            layer.save_parameters(str(folder / "parameters"))
            other.load_parameters(str(folder / "parameters"))

        return LayerWay("mxnet", name, program, run, mx.random.seed, resume, host_numbers=True, seen=not hybrid)

    return [
        way("mxnet-nd", False, mx.nd.array),
        way("mxnet-np", False, mx.np.array),
        way("mxnet-hybrid-nd", True, mx.nd.array),
        way("mxnet-hybrid-np", True, mx.np.array),
    ]


LAYER_WAYS = {
    "numpy": ("numpy",),
    "torch": ("torch-eager", "torch-compiled"),
    "tensorflow": ("tensorflow-eager", "tensorflow-function", "tensorflow-sizes", "tensorflow-xla"),
    "mxnet": ("mxnet-nd", "mxnet-np", "mxnet-hybrid-nd", "mxnet-hybrid-np"),
}
_MAKERS = {"numpy": _numpy, "torch": _torch, "tensorflow": _tensorflow, "mxnet": _mxnet}


def layer_ways_of(backend: str) -> list[LayerWay]:
    """The ways of a backend, which must be installed."""
    load(backend)
    ways = _MAKERS[backend]()
    assert tuple(way.name for way in ways) == LAYER_WAYS[backend]
    return ways
