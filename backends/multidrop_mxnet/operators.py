"""Custom operators for layers and calls in the program of a hybridized net."""

from __future__ import annotations

import atexit
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import mxnet as mx
import numpy as np

from multidrop import checks
from multidrop.spec.keys import Key
from multidrop.spec.masks import Mask

from . import draw
from .functional import check_dense
from .internals import Array, dense_operators
from .position import BITS, bits, key_at, key_of_bits, move

# At exit MXNet ends the threads that run custom operators, and then waits forever for those still queued.
atexit.register(mx.nd.waitall)

Prop = TypeVar("Prop", bound=type)


def register(name: str) -> Callable[[Prop], Prop]:
    """`mx.operator.register` for operators of dense arrays."""

    def registered(prop: Prop) -> Prop:
        with dense_operators():
            return mx.operator.register(name)(prop)

    return registered


STREAM, GENERATOR, GIVEN = "stream", "generator", "given"
"""Where an operator gets its keys: from a stream, from MXNet's generator, or from its settings."""


def node(op: str, source: str, inputs: Sequence[mx.sym.Symbol], always: bool = False, **settings: Any) -> Any:
    """Adds an operator to the program of a hybridized net.

    Args:
        op: the operator's name.
        source: where it gets its keys.
        inputs: its inputs; with `STREAM` the last one is the stream.
        always: whether it draws in evaluation mode as well.
        **settings: its settings.

    Returns:
        The symbol of its result, of the kind of the first input.
    """
    plain = [x.as_nd_ndarray() for x in inputs]
    if source == GENERATOR:
        plain.append(bits(mx.sym, mx.sym.ones((BITS,), dtype="float16"), always))
    Y = mx.sym.Custom(*plain, source=source, **settings, op_type=op)[0]
    return Y if plain[0] is inputs[0] else Y.as_np_ndarray()


def identity(X: mx.sym.Symbol) -> mx.sym.Symbol:
    """Adds a copy of X, for a layer that drops nothing and draws nothing."""
    plain = X.as_nd_ndarray()
    Y = mx.sym.identity(plain)
    return Y if plain is X else Y.as_np_ndarray()


def symbol(X: mx.sym.Symbol, p: float, stream: mx.sym.Symbol | None, axes: tuple[int, ...] = ()) -> mx.sym.Symbol:
    """Adds a `Dropout`: X through the next mask of a stream, or without a stream, through a mask whose key MXNet's
    generator draws. Passes X on in evaluation mode."""
    if stream is None and p == 0.0:
        return identity(X)
    source, inputs = (GENERATOR, [X]) if stream is None else (STREAM, [X, stream])
    return node("multidrop_dropout", source, inputs, p=repr(p), axes=" ".join(map(str, axes)))


@register("multidrop_dropout")
class DropoutProp(mx.operator.CustomOpProp):
    """Declares the operator of a `Dropout`. Its second output is for the gradient: int64 (seed, call, whether a mask
    was drawn). A stream is an auxiliary state, which the engine lets one run after the other change, in the order of
    the program."""

    inputs: tuple[str, ...] = ("data",)

    def __init__(self, p: str, source: str, axes: str) -> None:
        super().__init__(need_top_grad=True)
        self.p, self.source, self.axes = float(p), source, tuple(map(int, axes.split()))

    def list_arguments(self) -> list[str]:
        return [*self.inputs, "bits"] if self.source == GENERATOR else [*self.inputs]

    def list_auxiliary_states(self) -> list[str]:
        return ["stream"] if self.source == STREAM else []

    def list_outputs(self) -> list[str]:
        return ["output", "drawn"]

    def infer_shape(self, in_shape: list[Any]) -> tuple[list[Any], list[Any], list[Any]]:
        given = in_shape[: len(self.inputs)] + [(BITS,)] * (self.source == GENERATOR)
        return given, [in_shape[0], (3,)], [(2,)] * (self.source == STREAM)

    def infer_type(self, in_type: list[Any]) -> tuple[list[Any], list[Any], list[Any]]:
        if in_type[0] is not None:  # MXNet asks before it knows, too
            checks.floating(np.dtype(in_type[0]).name, 'X.astype("float32")')
        given = in_type[: len(self.inputs)]
        if self.source == GENERATOR:
            given.append(in_type[-1] or np.float16)  # mixed precision casts all inputs to float32
        return given, [in_type[0], np.int64], [np.int64] * (self.source == STREAM)

    def infer_storage_type(self, in_stype: list[str]) -> tuple[list[str], ...]:
        """Refuses sparse inputs: MXNet prints the error and raises one of its own."""
        for name, stype in zip(self.list_arguments(), in_stype, strict=True):
            check_dense(stype, {"data": "X"}.get(name, name))
        return super().infer_storage_type(in_stype)

    def infer_storage_type_backward(self, *storage_types: list[str]) -> tuple[list[str], ...]:
        """Works around an MXNet bug: it indexes the types of the states by the number of outputs, not of inputs, and
        reads past the end of its list."""
        *others, states = super().infer_storage_type_backward(*storage_types)
        states.extend(states * (len(self.list_outputs()) - len(self.list_arguments())))
        return *others, states

    def declare_backward_dependency(self, out_grad: list[int], in_data: list[int], out_data: list[int]) -> list[int]:
        return [out_grad[0], out_data[1]]

    def create_operator(self, ctx: Any, in_shapes: Any, in_dtypes: Any) -> Operator:
        return _Dropout(self.p, checks.axes(self.axes, len(in_shapes[0])))


class Operator(mx.operator.CustomOp):
    """Applies a mask or noise of the next key in training mode; passes its first input on in evaluation mode."""

    always = False  # whether it does so in evaluation mode as well

    def forward(
        self, is_train: bool, req: list[str], in_data: list[Array], out_data: list[Array], aux: list[Array]
    ) -> None:
        X, (Y, drawn) = in_data[0], out_data
        key = self._key(in_data[-1], aux) if is_train or self.always else None
        if key is None:
            drawn[:] = 0
            self.assign(Y, req[0], X)
            return
        move(drawn[:2], key)
        drawn[2:] = 1
        self._run(Y, req[0], in_data, key)

    def backward(
        self,
        req: list[str],
        out_grad: list[Array],
        in_data: list[Array],
        out_data: list[Array],
        in_grad: list[Array],
        aux: list[Array],
    ) -> None:
        drawn = out_data[1]
        for target, request in zip(in_grad[1:], req[1:], strict=True):
            self.assign(target, request, 0)
        if drawn[2].asscalar():
            self._differentiate(in_grad, req, out_grad[0], in_data, key_at(drawn[:2]))
        else:
            self.assign(in_grad[0], req[0], out_grad[0])

    def _key(self, drawn: Array, aux: list[Array]) -> Key | None:
        """The stream's next key; without a stream, the key that MXNet's generator drew as bits.

        None where nothing was drawn: MXNet removes dropout from executors without gradients. Never draw a key here:
        each thread that runs operators has a generator of its own, all with the same seed.
        """
        return draw.take(aux[0]) if aux else key_of_bits(drawn.asnumpy())

    def _run(self, target: Array, request: str, inputs: list[Array], key: Key) -> None:
        """Writes the output."""
        raise NotImplementedError(f"{type(self).__name__}._run")  # each operator's own

    def _differentiate(
        self, targets: list[Array], requests: list[str], dY: Array, inputs: list[Array], key: Key
    ) -> None:
        """Writes the gradients of the inputs; those that it leaves alone are 0."""
        raise NotImplementedError(f"{type(self).__name__}._differentiate")  # each operator's own


class _Dropout(Operator):
    def __init__(self, p: float, axes: tuple[int, ...]) -> None:
        super().__init__()
        self.p, self.axes = p, axes

    def _run(self, target: Array, request: str, inputs: list[Array], key: Key) -> None:
        self._masked(target, request, inputs[0], key)

    def _differentiate(
        self, targets: list[Array], requests: list[str], dY: Array, inputs: list[Array], key: Key
    ) -> None:
        self._masked(targets[0], requests[0], dY, key)

    def _masked(self, target: Array, request: str, X: Array, key: Key) -> None:
        if self.p == 0.0:
            self.assign(target, request, X)
        else:
            draw.assign(target, request, X, Mask(self.p, key, 0, self.axes))
