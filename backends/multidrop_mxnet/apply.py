"""Members of the dropout family as MXNet runs and differentiates them: imperatively, and as nodes of a hybridized net.

A member that is a mask goes where `dropout_layer` goes. The others run on the host, in NumPy, on an array's own memory:
an operator of MXNet's takes longer than the arithmetic of a small array.
"""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import mxnet as mx
import numpy as np
import numpy.typing as npt

from multidrop import checks, family, streams
from multidrop.family import MaskMember, Member, extent, oracle
from multidrop.spec.keys import Key, as_key
from multidrop.spec.masks import Mask
from multidrop.streams import call_key

from . import ops
from .functional import NAME, Array, check_floating, draw_key, masked, tensor


def apply(
    member: Member, X: Array, key: int | Key | None = None, *, start: int = 0, learned: Array | None = None
) -> Array:
    """`multidrop.apply` for arrays, differentiable once. Of a symbol, in `hybrid_forward`, it gives a symbol: a node
    that takes the next key in each run, where it is given none.

    Args:
        member: the member.
        X: array of either kind, any context; float16, float32 or float64. Or a symbol.
        key: what names the numbers; without one, the next after `multidrop.manual_seed`, or one from MXNet's generator.
        start: the index of X's first element.
        learned: the array that the member learns; not with a symbol.

    Returns:
        An array of X's kind, shape, type and context; X itself where the member is idle, or X is empty.

    Raises:
        ValueError: for what is no member, a shape that it does not take, or a bad key, start or `learned`.
        TypeError: for an array that is not floating.
    """
    start = checks.word64("start", start)
    if isinstance(X, mx.sym.Symbol):
        return _symbol(family.checked(member), X, key, start, learned)
    X = tensor(X)
    check_floating(X)
    if learned is not None:
        check_floating(learned, "learned")
    member = family.checked(member, learned, X.shape)
    axes, margin = member.axes(len(X.shape)), member.margin(len(X.shape))
    _, first = extent(X.shape, start, axes, margin)
    key = (call_key(NAME) or draw_key()) if key is None else as_key(key)
    if isinstance(member, MaskMember):
        return masked(X, Mask(member.p, key, first, axes))
    if member.idle and learned is None:
        return X
    return _applied(member, X, key, start, learned)


def _applied(member: Member, X: Array, key: Key, start: int, learned: Array | None) -> Array:
    at = None if learned is None else learned.asnumpy()

    def run(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return oracle.apply(member, values, key, start, learned=at)

    with mx.autograd.pause(train_mode=mx.autograd.is_training()):
        Y = ops.through_host(X, run)
    if not mx.autograd.is_recording():
        return Y
    if learned is None or at is None:
        return ops.record(Y, [(X, partial(_assign_gradient, member=member, key=key, start=start))])
    logit, x = at, X.asnumpy()

    def of_learned(target: Array, request: str, dY: Array) -> None:
        ops.assign_values(target, request, oracle.learned_gradient(member, dY.asnumpy(), x, logit, key, start))

    def of_X(target: Array, request: str, dY: Array) -> None:
        ops.assign_values(target, request, run(dY.asnumpy()))  # linear in X, so that its gradient is the member itself

    return ops.record(Y, [(X, of_X), (learned, of_learned)])


def _assign_gradient(target: Array, request: str, dY: Array, member: Member, key: Key, start: int) -> None:
    ops.assign_values(target, request, oracle.apply(member, dY.asnumpy(), key, start, gradient=True))


def _symbol(member: Member, X: mx.sym.Symbol, key: int | Key | None, start: int, learned: Any) -> mx.sym.Symbol:
    if learned is not None:
        raise ValueError(f"learned: expected None with a symbol; got {checks.shown(learned)}")
    given = "" if key is None else json.dumps([as_key(key).seed, as_key(key).call])
    plain = X.as_nd_ndarray() if isinstance(X, mx.sym.np._Symbol) else X
    if key is None:
        words = mx.sym.random.randint(0, 2**32, shape=(2,), dtype="int64")
    else:
        words = mx.sym.zeros((2,), dtype="int64")
    Y = mx.sym.Custom(plain, words, member=member.text, key=given, start=str(start), op_type="multidrop_member")[0]
    return Y if plain is X else Y.as_np_ndarray()


@mx.operator.register("multidrop_member")
class _MemberProp(ops.DropoutProp):
    """The node of a hybridized net for a member, given as text."""

    def __init__(self, member: str, key: str, start: str) -> None:
        super().__init__(p="0.0", keyed="0", axes="")
        self.member, self.start = family.of_text(member), int(start)
        self.key = Key(*json.loads(key)) if key else None

    def create_operator(self, ctx: Any, in_shapes: Any, in_dtypes: Any) -> _Member:
        return _Member(self.member, self.key, self.member.check(in_shapes[0], self.start))


class _Member(mx.operator.CustomOp):
    def __init__(self, member: Member, key: Key | None, start: int) -> None:
        super().__init__()
        self.member, self.key, self.start = member, key, start

    def forward(
        self, is_train: bool, req: list[str], in_data: list[Array], out_data: list[Array], aux: list[Array]
    ) -> None:
        (X, words), (Y, drawn) = in_data, out_data
        key = self.key or call_key(NAME)
        if key is None:
            low, high = words.asnumpy().tolist()
            key = streams.in_this_process(Key(low | high << 32))
        ops.move(drawn[:2], key)
        ops.assign_values(Y, req[0], self._values(X, key))

    def backward(
        self,
        req: list[str],
        out_grad: list[Array],
        in_data: list[Array],
        out_data: list[Array],
        in_grad: list[Array],
        aux: list[Array],
    ) -> None:
        key = ops.key_at(out_data[1][:2])
        ops.assign_values(in_grad[0], req[0], self._values(out_grad[0], key, gradient=True))
        in_grad[1][:] = 0

    def _values(self, X: Array, key: Key, gradient: bool = False) -> npt.NDArray[np.floating]:
        return oracle.apply(self.member, X.asnumpy(), key, self.start, gradient=gradient)
