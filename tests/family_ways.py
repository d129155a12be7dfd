"""Every way in which a framework runs a member of the family, behind one face: host arrays in, host arrays out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from ml_dtypes import bfloat16

import multidrop as md
from multidrop import Key
from multidrop.dispatch import load
from multidrop.family import Member

DTYPES = {"float16": np.float16, "bfloat16": bfloat16, "float32": np.float32, "float64": np.float64}
Array = np.ndarray


@dataclass(frozen=True)
class Way:
    """One way of running.

    `both` takes (member, x, dy, key, start) and gives the output and the gradient with respect to x.
    """

    backend: str
    name: str
    both: Callable[[Member, Array, Array, Key | None, int], tuple[Array, Array]]
    repeated: Callable[[Member, Array, int], list[Array]]
    """(member, x, n): the outputs of n runs of one program without a key."""
    lacks: tuple[str, ...] = ()
    host_numbers: bool = False  # whether reals, and what is computed with them, are NumPy's own
    fuses: bool = False  # whether its compiler may round a product and a sum once


def _numpy() -> list[Way]:
    import multidrop_numpy as backend

    def both(member: Member, x: Array, dy: Array, key: Key | None, start: int) -> tuple[Array, Array]:
        y = md.apply(member, x, key, start=start)
        return y, dy if key is None else backend.gradient(member, dy, key, start=start)

    return [
        Way("numpy", "numpy", both, lambda member, x, n: [md.apply(member, x) for _ in range(n)], host_numbers=True)
    ]


def _torch() -> list[Way]:
    import multidrop_torch as backend
    import torch

    def tensor(x: Array) -> Any:
        return torch.tensor(x.astype(np.float32)).bfloat16() if x.dtype == bfloat16 else torch.tensor(x)

    def way(name: str, run: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Way:
        def both(member: Member, x: Array, dy: Array, key: Key | None, start: int) -> tuple[Array, Array]:
            X = tensor(x).requires_grad_()
            Y = run(lambda X: md.apply(member, X, key, start=start))(X)
            (dX,) = torch.autograd.grad(Y, X, tensor(dy))
            return backend.to_numpy(Y).astype(x.dtype), backend.to_numpy(dX).astype(x.dtype)

        def repeated(member: Member, x: Array, n: int) -> list[Array]:
            program = run(lambda X: md.apply(member, X))
            return [backend.to_numpy(program(tensor(x))) for _ in range(n)]

        return Way("torch", name, both, repeated)

    def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
        torch._dynamo.reset()  # which else counts each test's function as the same, compiled anew
        return torch.compile(function, fullgraph=True, backend="aot_eager")

    return [way("torch-eager", lambda function: function), way("torch-compiled", compiled)]


def _tensorflow() -> list[Way]:
    import multidrop_tensorflow  # noqa: F401  # first of what TensorFlow is told
    import tensorflow as tf

    def way(name: str, run: Callable[[Callable[..., Any]], Callable[..., Any]], **properties: Any) -> Way:
        def both(member: Member, x: Array, dy: Array, key: Key | None, start: int) -> tuple[Array, Array]:
            def function(X: Any, dY: Any) -> Any:
                with tf.GradientTape() as tape:
                    tape.watch(X)
                    Y = md.apply(member, X, key, start=start)
                return Y, tape.gradient(Y, X, output_gradients=dY)

            Y, dX = run(function)(tf.constant(x), tf.constant(dy))
            return Y.numpy(), dX.numpy()

        def repeated(member: Member, x: Array, n: int) -> list[Array]:
            program = run(lambda X: md.apply(member, X))
            return [program(tf.constant(x)).numpy() for _ in range(n)]

        return Way("tensorflow", name, both, repeated, **properties)

    def unknown_sizes(function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*tensors: Any) -> Any:
            signature = [tf.TensorSpec([None, *X.shape[1:]], X.dtype) for X in tensors]
            return tf.function(function, signature, autograph=False)(*tensors)

        return run

    return [
        way("tensorflow-eager", lambda function: function),
        way("tensorflow-function", lambda function: tf.function(function, autograph=False)),
        way("tensorflow-sizes", unknown_sizes),
        way("tensorflow-xla", lambda f: tf.function(f, autograph=False, jit_compile=True), fuses=True),
    ]


def _mxnet() -> list[Way]:
    import multidrop_mxnet as backend
    import mxnet as mx

    class Net(mx.gluon.HybridBlock):
        def __init__(self, member: Member, key: Key | None, start: int) -> None:
            super().__init__()
            self.settings = member, key, start

        def hybrid_forward(self, F: Any, X: Any) -> Any:
            member, key, start = self.settings
            return md.apply(member, X, key, start=start)

    def way(name: str, array: Callable[[Array], Any], hybrid: bool, np_arrays: bool) -> Way:
        def program(member: Member, key: Key | None, start: int) -> Callable[[Any], Any]:
            if not hybrid:
                return lambda X: md.apply(member, X, key, start=start)
            net = Net(member, key, start)
            net.hybridize()
            return net

        def both(member: Member, x: Array, dy: Array, key: Key | None, start: int) -> tuple[Array, Array]:
            with mx.util.np_shape(True), mx.util.np_array(np_arrays):
                X = array(x)
                X.attach_grad()
                with mx.autograd.record():
                    Y = program(member, key, start)(X)
                Y.backward(array(dy))
                return backend.to_numpy(Y), backend.to_numpy(X.grad)

        def repeated(member: Member, x: Array, n: int) -> list[Array]:
            with mx.util.np_shape(True), mx.util.np_array(np_arrays):
                run = program(member, None, 0)
                return [backend.to_numpy(run(array(x))) for _ in range(n)]

        return Way("mxnet", name, both, repeated, lacks=("bfloat16",), host_numbers=True)

    def np_array(x: Array) -> Any:
        return mx.np.array(x, dtype=x.dtype)

    def nd_array(x: Array) -> Any:
        return mx.nd.array(x, dtype=x.dtype)

    return [
        way("mxnet-np", np_array, False, True),
        way("mxnet-nd", nd_array, False, False),
        way("mxnet-hybrid", np_array, True, True),
    ]


WAYS = {
    "numpy": ("numpy",),
    "torch": ("torch-eager", "torch-compiled"),
    "tensorflow": ("tensorflow-eager", "tensorflow-function", "tensorflow-sizes", "tensorflow-xla"),
    "mxnet": ("mxnet-np", "mxnet-nd", "mxnet-hybrid"),
}
_MAKERS = {"numpy": _numpy, "torch": _torch, "tensorflow": _tensorflow, "mxnet": _mxnet}


def ways_of(backend: str) -> list[Way]:
    """The ways of a backend, which must be installed."""
    load(backend)
    ways = _MAKERS[backend]()
    assert tuple(way.name for way in ways) == WAYS[backend]
    return ways
