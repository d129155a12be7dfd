"""Runs and differentiates members of the dropout family: eagerly, in a `tf.function` or under XLA.

A member that is a mask is computed as `dropout_layer` is, by the fused kernel on a CPU. The others are computed by
TensorFlow's operators.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from multidrop import checks, family
from multidrop.family import MaskMember, Member
from multidrop.spec.keys import Key, as_key
from multidrop.spec.masks import Mask

from . import internals
from .draw import Draw, first_of
from .functional import check_floating, masked, tensor, with_gradient
from .position import calls


@tf.autograph.experimental.do_not_convert
def apply(member: Member, X: Any, key: int | Key | None = None, *, start: int = 0, learned: Any = None) -> tf.Tensor:
    """`multidrop.apply` for tensors, differentiable any number of times; eager, in a `tf.function` or under XLA. Keys
    behave as in `dropout_layer`.

    Args:
        member: the member.
        X: tensor of any shape that the member takes (in a trace, dimensions may be unknown), or what `tensor` takes;
            float16, bfloat16, float32 or float64.
        key: names the numbers; without one, the next key after `multidrop.manual_seed`, or one that `tf.random` draws.
        start: the index of X's first element.
        learned: the tensor or variable that the member learns.

    Returns:
        A tensor of X's shape and type; X itself if the member is idle.

    Raises:
        ValueError: for what is no member, a shape that it does not take, or a bad key, start or `learned`.
        TypeError: for a tensor that is not floating, or is ragged or sparse.
    """

    def take() -> Key | tf.Tensor:
        return calls.next(member.idle and learned is None) if key is None else as_key(key)

    return through(member, tensor(X), take, start, learned)


def through(
    member: Member, X: tf.Tensor, take: Callable[[], Key | tf.Tensor], start: int = 0, learned: Any = None
) -> tf.Tensor:
    """`apply` after its conversions; `take` gives the position, and is called after the checks."""
    check_floating(X)
    if learned is not None:
        learned = tensor(learned, name="learned")
        check_floating(learned, "learned")
    start = checks.word64("start", start)
    known = X.shape.rank is not None and (learned is None or learned.shape.rank is not None)
    member = family.checked(member, learned, X.shape if known else None)
    axes, margin = member.axes(_ndim(X, member)), member.margin(_ndim(X, member))
    first = first_of(X, start, axes, margin)
    position = take()
    if isinstance(member, MaskMember):
        return masked(X, Mask(member.p, position, first, axes))
    if learned is not None:
        return family.run(member, X, Draw(position, start), learned=learned)
    return applied(member, X, position, start)


def _ndim(X: tf.Tensor, member: Member) -> int:
    """The number of dimensions of X; 0 if it is not known and the member decides for each element by itself."""
    if X.shape.rank is not None:
        return X.shape.rank
    if (type(member).axes, type(member).margin) == (Member.axes, Member.margin):
        return 0
    raise ValueError(
        f"X: expected a tensor whose number of dimensions is known, for {type(member).__name__}; got {X.shape}"
    )


def applied(
    member: Member, X: tf.Tensor, position: Key | tf.Tensor, start: int = 0, *, gradient: bool = False
) -> tf.Tensor:
    """A member's output, or its gradient: `apply` after its checks. The backward pass keeps only the position."""
    if member.idle:
        return X
    if X.shape.rank is None:  # the member decides for each element by itself, whatever the shape
        return tf.reshape(applied(member, tf.reshape(X, [-1]), position, start, gradient=gradient), tf.shape(X))

    def function(X: tf.Tensor) -> tf.Tensor:
        with internals.stop_recording():  # else the tape would keep the drawn numbers
            Y = family.run(member, X, Draw(position, start), gradient)
        return tf.identity(Y) if Y is X else Y

    return with_gradient(X, function, lambda dY: applied(member, dY, position, start, gradient=True))
