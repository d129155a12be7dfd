"""Members of the dropout family as MXNet runs and differentiates them: imperatively, and as nodes of a hybridized net.

A member that is a mask runs as `dropout_layer` does. Others run in NumPy, on the array's own memory: for small arrays
MXNet's operators take longer than the arithmetic.
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

from . import draw, operators
from .autograd import masked
from .functional import NAME, Array, check_floating, next_key, tensor
from .internals import record


def apply(member: Member, X: Array, key: int | Key | None = None, *, start: int = 0, learned: Any = None) -> Array:
    """`multidrop.apply` for arrays, differentiable once. In `hybrid_forward` it takes and gives a symbol; there,
    without a key, each run of the program takes the next one.

    Args:
        member: the member.
        X: dense array of either kind, any context; float16, float32 or float64. Or a symbol.
        key: names the numbers; without one, the next key after `multidrop.manual_seed`, or one from MXNet's generator.
        start: the index of X's first element.
        learned: the array that the member learns, or host data; not with a symbol.

    Returns:
        An array of X's kind, shape, type and context; X itself if the member is idle or X is empty.

    Raises:
        ValueError: for what is no member, a shape that it does not take, or a bad key, start or `learned`.
        TypeError: for an array that is not floating, or not dense.
    """
    if isinstance(X, mx.sym.Symbol):
        if learned is not None:
            raise ValueError(f"learned: expected None with a symbol; got {checks.shown(learned)}")
        key = None if key is None else as_key(key)
        return symbol(family.checked(member), X, key=key, start=checks.word64("start", start))
    X = tensor(X)
    if learned is not None:
        learned = tensor(learned, name="learned")
    return through(member, X, next_key if key is None else lambda idle: as_key(key), start, learned)


def through(
    member: Member, X: Array, take: Callable[[bool], Key | None], start: int = 0, learned: Array | None = None
) -> Array:
    """`apply` of an array, whose key `take` gives. That is called after the checks with whether the call drops nothing,
    and may then give None."""
    start = checks.word64("start", start)
    check_floating(X)
    if learned is not None:
        check_floating(learned, "learned")
    member = family.checked(member, learned, X.shape)
    axes, margin = member.axes(len(X.shape)), member.margin(len(X.shape))
    _, first = extent(X.shape, start, axes, margin)
    idle = member.idle and learned is None
    key = take(idle or 0 in X.shape)
    if idle or key is None:
        return X
    if isinstance(member, MaskMember):
        return masked(X, Mask(member.p, key, first, axes))
    return _applied(member, X, key, start, learned)


def _applied(member: Member, X: Array, key: Key, start: int, learned: Array | None) -> Array:
    at = None if learned is None else learned.asnumpy()

    def run(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return oracle.apply(member, values, key, start, learned=at)

    with mx.autograd.pause(train_mode=mx.autograd.is_training()):
        Y = draw.computed(X, run)
    if not mx.autograd.is_recording():
        return Y
    if learned is None or at is None:
        return record(Y, [(X, partial(_assign_gradient, member=member, key=key, start=start))])
    logit, x = at, X.asnumpy()

    def of_learned(target: Array, request: str, dY: Array) -> None:
        draw.assign_values(target, request, oracle.learned_gradient(member, dY.asnumpy(), x, logit, key, start))

    def of_X(target: Array, request: str, dY: Array) -> None:
        draw.assign_values(target, request, run(dY.asnumpy()))  # linear in X: the gradient is the member itself

    return record(Y, [(X, of_X), (learned, of_learned)])


def _assign_gradient(target: Array, request: str, dY: Array, member: Member, key: Key, start: int) -> None:
    draw.assign_values(target, request, oracle.apply(member, dY.asnumpy(), key, start, gradient=True))


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
    """Adds a member to the program of a hybridized net, for `apply`, which draws in any mode, or for a layer.

    Args:
        member: the member.
        X: the symbol of its input.
        stream: the symbol of the stream that gives the keys.
        learned: the symbol of the tensor that the member learns.
        key: the key of each run. Without key and stream, a layer's key comes from MXNet's generator, and a call's is
            the next after `multidrop.manual_seed`, or from the generator.
        start: the index of X's first element.
        of_layer: whether evaluation mode passes X on.
    """
    idle = member.idle and learned is None
    if idle and of_layer and stream is None:
        return operators.identity(X)
    source = (
        operators.STREAM if stream is not None else operators.GENERATOR if key is None and not idle else operators.GIVEN
    )
    return operators.node(
        "multidrop_member",
        source,
        [x for x in (X, learned, stream) if x is not None],
        always=not of_layer,
        member=member.text,
        learned=int(learned is not None),
        key="" if key is None else json.dumps([key.seed, key.call]),
        start=start,
        of_layer=int(of_layer),
    )


@operators.register("multidrop_member")
class _MemberProp(operators.DropoutProp):
    """Declares the operator of a member, which it is given as text."""

    def __init__(self, member: str, source: str, learned: str, key: str, start: str, of_layer: str) -> None:
        super().__init__(p="0.0", source=source, axes="")
        self.inputs = ("data", "learned") if learned == "1" else ("data",)
        self.member, self.start, self.of_layer = family.of_text(member), int(start), of_layer == "1"
        self.key = Key(*json.loads(key)) if key else None

    def declare_backward_dependency(self, out_grad: list[int], in_data: list[int], out_data: list[int]) -> list[int]:
        states = super().declare_backward_dependency(out_grad, in_data, out_data)
        return [*states, *in_data[:2]] if len(self.inputs) > 1 else states

    def create_operator(self, ctx: Any, in_shapes: Any, in_dtypes: Any) -> _Member:
        start = self.member.check(in_shapes[0], self.start)
        return _Member(self.member, self.source, self.key, start, self.of_layer, len(self.inputs) > 1)


class _Member(operators.Operator):
    def __init__(self, member: Member, source: str, key: Key | None, start: int, of_layer: bool, learned: bool) -> None:
        super().__init__()
        self.member, self.source, self.key, self.start, self.learned = member, source, key, start, learned
        self.always = not of_layer

    def _key(self, drawn: Array, aux: list[Array]) -> Key | None:
        key = self.key or (call_key(NAME) if self.always else None)
        return key if key or self.source == operators.GIVEN else super()._key(drawn, aux)

    def _run(self, target: Array, request: str, inputs: list[Array], key: Key) -> None:
        learned = inputs[1].asnumpy() if self.learned else None
        values = oracle.apply(self.member, inputs[0].asnumpy(), key, self.start, learned=learned)
        draw.assign_values(target, request, values)

    def _differentiate(
        self, targets: list[Array], requests: list[str], dY: Array, inputs: list[Array], key: Key
    ) -> None:
        dy, learned = dY.asnumpy(), None
        if self.learned:
            x, learned = (values.asnumpy() for values in inputs[:2])
            slope = oracle.learned_gradient(self.member, dy, x, learned, key, self.start)
            draw.assign_values(targets[1], requests[1], slope)
        dx = oracle.apply(self.member, dy, key, self.start, gradient=True, learned=learned)
        draw.assign_values(targets[0], requests[0], dx)
