"""The custom operators that stand for layers and calls in the program of a hybridized net."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import mxnet as mx
import numpy as np

from multidrop import checks, streams
from multidrop.spec.keys import Key
from multidrop.spec.masks import Mask

from .ops import Array, assign, key_at, move, next_key

Prop = TypeVar("Prop", bound=type)


def register(name: str) -> Callable[[Prop], Prop]:
    """`mx.operator.register` for operators of dense arrays.

    Works around an MXNet bug: in the backward pass it takes the dependencies that any operator declared last for this
    operator's, and raises for an array among them that was not kept, as it has no storage type to ask for.
    """

    def registered(prop: Prop) -> Prop:
        theirs = mx.operator._ndarray_cls
        mx.operator._ndarray_cls = lambda handle, writable=True, stype=0: mx.nd.NDArray(handle, writable=writable)
        try:
            with mx.util.np_array(False):  # else it takes its other kind of array
                return mx.operator.register(name)(prop)
        finally:
            mx.operator._ndarray_cls = theirs

    return registered


def symbol(X: mx.sym.Symbol, p: float, stream: mx.sym.Symbol | None, axes: tuple[int, ...] = ()) -> mx.sym.Symbol:
    """The node of a hybridized net: X through the next mask of a stream, or without one, through a mask that MXNet's
    generator names; X itself in evaluation mode."""
    keyed = stream is not None
    if stream is None:
        stream = mx.sym.random.randint(0, 2**32, shape=(2,), dtype="int64")
    plain, stream = (x.as_nd_ndarray() if isinstance(x, mx.sym.np._Symbol) else x for x in (X, stream))
    settings = {"p": repr(p), "keyed": int(keyed), "axes": " ".join(map(str, axes))}
    Y = mx.sym.Custom(plain, stream, **settings, op_type="multidrop_dropout")[0]
    return Y if plain is X else Y.as_np_ndarray()


@register("multidrop_dropout")
class DropoutProp(mx.operator.CustomOpProp):
    """Has two outputs: the result, and what alone the gradient needs: the position that it was drawn at, and whether it
    was. A stream is an auxiliary state, which the engine lets one run change after the other, in the order of the
    program."""

    inputs: tuple[str, ...] = ("data",)

    def __init__(self, p: str, keyed: str, axes: str) -> None:
        super().__init__(need_top_grad=True)
        self.p, self.keyed, self.axes = float(p), keyed == "1", tuple(map(int, axes.split()))

    def list_arguments(self) -> list[str]:
        return [*self.inputs] if self.keyed else [*self.inputs, "words"]

    def list_auxiliary_states(self) -> list[str]:
        return ["stream"] if self.keyed else []

    def list_outputs(self) -> list[str]:
        return ["output", "drawn"]

    def infer_shape(self, in_shape: list[Any]) -> tuple[list[Any], list[Any], list[Any]]:
        given, outputs = in_shape[: len(self.inputs)], [in_shape[0], (3,)]
        return (given, outputs, [(2,)]) if self.keyed else ([*given, (2,)], outputs, [])

    def infer_type(self, in_type: list[Any]) -> tuple[list[Any], list[Any], list[Any]]:
        if in_type[0] is not None:  # as long as MXNet does not know it
            checks.floating(np.dtype(in_type[0]).name, 'X.astype("float32")')
        given, outputs = in_type[: len(self.inputs)], [in_type[0], np.int64]
        return (given, outputs, [np.int64]) if self.keyed else ([*given, np.int64], outputs, [])

    def infer_storage_type_backward(self, *storage_types: list[str]) -> tuple[list[str], ...]:
        """Beside what it is asked for, the type of the state once more: MXNet looks for it as far behind the gradients
        as there are outputs, though there are as many gradients as inputs, and so takes what the memory there holds."""
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
        if not (is_train or self.always):
            drawn[:] = 0
            self.assign(Y, req[0], X)
            return
        key = self._key(in_data[-1], aux)
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

    def _key(self, words: Array, aux: list[Array]) -> Key:
        """The stream's next key; without a stream, the one that MXNet's generator drew as `words`."""
        if aux:
            return next_key(aux[0])
        low, high = words.asnumpy().tolist()
        return streams.in_this_process(Key(low | high << 32))

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
            assign(target, request, X, Mask(self.p, key, 0, self.axes))
