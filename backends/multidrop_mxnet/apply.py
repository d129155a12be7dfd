"""Members of the dropout family as MXNet runs and differentiates them: imperatively, and as nodes of a hybridized net.

A member that is a mask goes where `dropout_layer` goes. The others run on the host, in NumPy, on an array's own memory:
an operator of MXNet's takes longer than the arithmetic of a small array.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import mxnet as mx
import numpy.typing as npt

from multidrop import checks, family
from multidrop.family import MaskMember, Member, extent, oracle
from multidrop.spec.keys import Key, as_key
from multidrop.spec.masks import Mask
from multidrop.streams import call_key

from . import operators, ops
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
    if isinstance(X, mx.sym.Symbol):
        if learned is not None:
            raise ValueError(f"learned: expected None with a symbol; got {checks.shown(learned)}")
        key = None if key is None else as_key(key)
        return symbol(family.checked(member), X, key=key, start=checks.word64("start", start))
    take = (lambda: call_key(NAME) or draw_key()) if key is None else (lambda: as_key(key))
    return through(member, tensor(X), take, start, learned)


def through(member: Member, X: Array, take: Callable[[], Key], start: int = 0, learned: Array | None = None) -> Array:
    """`apply` of an array, with the key that `take` gives, which is called after the checks."""
    start = checks.word64("start", start)
    check_floating(X)
    if learned is not None:
        check_floating(learned, "learned")
    member = family.checked(member, learned, X.shape)
    axes, margin = member.axes(len(X.shape)), member.margin(len(X.shape))
    _, first = extent(X.shape, start, axes, margin)
    key = take()
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


def symbol(
    member: Member,
    X: mx.sym.Symbol,
    stream: mx.sym.Symbol | None = None,
    learned: mx.sym.Symbol | None = None,
    *,
    key: Key | None = None,
    start: int = 0,
    of_layer: bool = False,
) -> mx.sym.Symbol:
    """The node of a hybridized net for a member: of `apply`, which draws in any mode, or of a layer.

    Args:
        member: the member.
        X: the symbol of its input.
        stream: that of a stream that gives the keys.
        learned: that of the tensor that the member learns.
        key: the key of each run; without any and without a stream, that of a layer comes from MXNet's generator.
        start: the index of X's first element.
        of_layer: whether evaluation mode passes X on.
    """
    keyed = stream is not None
    if stream is None:
        stream = mx.sym.random.randint(0, 2**32, shape=(2,), dtype="int64")
    inputs = [X, stream] if learned is None else [X, learned, stream]
    plain = [x.as_nd_ndarray() if isinstance(x, mx.sym.np._Symbol) else x for x in inputs]
    settings = {
        "member": member.text,
        "keyed": int(keyed),
        "learned": int(learned is not None),
        "key": "" if key is None else json.dumps([key.seed, key.call]),
        "start": str(start),
        "of_layer": int(of_layer),
    }
    Y = mx.sym.Custom(*plain, **settings, op_type="multidrop_member")[0]
    return Y if plain[0] is X else Y.as_np_ndarray()


@operators.register("multidrop_member")
class _MemberProp(operators.DropoutProp):
    """The node of a hybridized net for a member, given as text."""

    def __init__(self, member: str, keyed: str, learned: str, key: str, start: str, of_layer: str) -> None:
        super().__init__(p="0.0", keyed=keyed, axes="")
        self.inputs = ("data", "learned") if learned == "1" else ("data",)
        self.member, self.start, self.of_layer = family.of_text(member), int(start), of_layer == "1"
        self.key = Key(*json.loads(key)) if key else None

    def declare_backward_dependency(self, out_grad: list[int], in_data: list[int], out_data: list[int]) -> list[int]:
        states = super().declare_backward_dependency(out_grad, in_data, out_data)
        return [*states, *in_data[:2]] if len(self.inputs) > 1 else states

    def create_operator(self, ctx: Any, in_shapes: Any, in_dtypes: Any) -> _Member:
        learned = len(self.inputs) > 1
        return _Member(self.member, self.key, self.member.check(in_shapes[0], self.start), self.of_layer, learned)


class _Member(operators.Operator):
    def __init__(self, member: Member, key: Key | None, start: int, of_layer: bool, learned: bool) -> None:
        super().__init__()
        self.member, self.key, self.start, self.learned = member, key, start, learned
        self.always = not of_layer

    def _key(self, words: Array, aux: list[Array]) -> Key:
        return self.key or (self.always and call_key(NAME)) or super()._key(words, aux)

    def _run(self, target: Array, request: str, inputs: list[Array], key: Key) -> None:
        learned = inputs[1].asnumpy() if self.learned else None
        values = oracle.apply(self.member, inputs[0].asnumpy(), key, self.start, learned=learned)
        ops.assign_values(target, request, values)

    def _differentiate(
        self, targets: list[Array], requests: list[str], dY: Array, inputs: list[Array], key: Key
    ) -> None:
        dy, learned = dY.asnumpy(), None
        if self.learned:
            x, learned = (values.asnumpy() for values in inputs[:2])
            slope = oracle.learned_gradient(self.member, dy, x, learned, key, self.start)
            ops.assign_values(targets[1], requests[1], slope)
        dx = oracle.apply(self.member, dy, key, self.start, gradient=True, learned=learned)
        ops.assign_values(targets[0], requests[0], dx)
