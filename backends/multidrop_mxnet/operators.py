"""The custom operators that stand for layers and calls in the program of a hybridized net."""

from __future__ import annotations

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

Prop = TypeVar("Prop", bound=type)


def register(name: str) -> Callable[[Prop], Prop]:
    """`mx.operator.register` for operators of dense arrays."""

    def registered(prop: Prop) -> Prop:
        with dense_operators():
            return mx.operator.register(name)(prop)

    return registered


STREAM, GENERATOR, GIVEN = "stream", "generator", "given"
"""Where the keys of an operator come from: a stream, MXNet's generator, or neither of both."""


def node(op: str, source: str, inputs: Sequence[mx.sym.Symbol], always: bool = False, **settings: Any) -> Any:
    """The node of an operator in the program of a hybridized net.

    Args:
        op: the operator.
        source: where its keys come from.
        inputs: its inputs, of which the last one is the stream, if the keys come from one.
        always: whether it draws in evaluation mode as well.
        **settings: the operator's.
    """
    plain = [x.as_nd_ndarray() for x in inputs]
    if source == GENERATOR:
        plain.append(bits(mx.sym, mx.sym.ones((BITS,), dtype="float16"), always))
    Y = mx.sym.Custom(*plain, source=source, **settings, op_type=op)[0]
    return Y if plain[0] is inputs[0] else Y.as_np_ndarray()


def identity(X: mx.sym.Symbol) -> mx.sym.Symbol:
    """The node of a layer that drops nothing and takes nothing."""
    plain = X.as_nd_ndarray()
    Y = mx.sym.identity(plain)
    return Y if plain is X else Y.as_np_ndarray()


def symbol(X: mx.sym.Symbol, p: float, stream: mx.sym.Symbol | None, axes: tuple[int, ...] = ()) -> mx.sym.Symbol:
    """The node of a `Dropout`: X through the next mask of a stream, or without one, through a mask that MXNet's
    generator names; X itself in evaluation mode."""
    if stream is None and p == 0.0:
        return identity(X)
    source, inputs = (GENERATOR, [X]) if stream is None else (STREAM, [X, stream])
    return node("multidrop_dropout", source, inputs, p=repr(p), axes=" ".join(map(str, axes)))


@register("multidrop_dropout")
class DropoutProp(mx.operator.CustomOpProp):
    """Has two outputs: the result, and for the gradient the position that it was drawn at, and whether it was drawn. A
    stream is an auxiliary state, which the engine lets one run change after the other, in the order of the program."""

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
        if in_type[0] is not None:  # as long as MXNet does not know it
            checks.floating(np.dtype(in_type[0]).name, 'X.astype("float32")')
        given = in_type[: len(self.inputs)]
        if self.source == GENERATOR:
            given.append(in_type[-1] or np.float16)  # mixed precision casts all inputs to float32
        return given, [in_type[0], np.int64], [np.int64] * (self.source == STREAM)

    def infer_storage_type(self, in_stype: list[str]) -> tuple[list[str], ...]:
        """That all inputs are dense; else MXNet prints the error, and raises one of its own."""
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
    """Draws by the next key in training mode; passes its first input on in any other."""

    always = False  # whether it draws in any mode

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
        """The stream's next key; without a stream, the one that MXNet's generator drew as bits.

        None where it drew none: in an executor without gradients MXNet's own dropout does not drop either. A key is not
        drawn here, since each thread that runs operators has a generator of its own, with the same seed.
        """
        return draw.take(aux[0]) if aux else key_of_bits(drawn.asnumpy())

    def _run(self, target: Array, request: str, inputs: list[Array], key: Key) -> None:
        """Writes the output."""
        raise NotImplementedError(f"{type(self).__name__}._run")  # each operator's own

    def _differentiate(
        self, targets: list[Array], requests: list[str], dY: Array, inputs: list[Array], key: Key
    ) -> None:
        """Writes the gradients of the inputs that have any; the others' are 0."""
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
