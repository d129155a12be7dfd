"""Recomputation for the gradient (activation checkpointing), with the masks of the first run."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, TypeVar

import tensorflow as tf

from multidrop.checks import shown

from .internals import would_be_recomputed

Position = TypeVar("Position")


def recompute_grad(f: Callable[..., Any]) -> Callable[..., Any]:
    """Replaces `tf.recompute_grad` and `keras.remat` for functions that drop. The result computes what `f` computes,
    keeps only its arguments for the gradient, and runs `f` again for it. The second run of dropout layers, and of
    `dropout_layer` without a key, uses the masks of the first and advances no stream or generator.

    Args:
        f: a function of tensors, a layer or a model; eager, in a `tf.function` or under XLA.

    Raises:
        TypeError: for a `tf.function`, which is not traced again for its gradient and so cannot be given these masks.
            Put the `tf.function` around the result instead. The result raises a RuntimeError if `f` drops within an
            inner `tf.function`, or, in a program, within a branch or a loop.
    """
    if isinstance(f, tf.types.experimental.PolymorphicFunction):
        raise TypeError(
            "f: expected a function that is no tf.function, around whose recompute_grad you may put tf.function; got "
            f"{shown(f)}"
        )

    @tf.autograph.experimental.do_not_convert
    @functools.wraps(f, updated=())
    def recomputed(*args: Any, **kwargs: Any) -> Any:
        positions, runs, outer = list[Any](), itertools.count(), _running.get()

        def run(*args: Any, **kwargs: Any) -> Any:
            token = _running.set(_Run(positions, next(runs) == 0, outer))
            try:
                return f(*args, **kwargs)
            finally:
                _running.reset(token)

        return tf.recompute_grad(run)(*args, **kwargs)

    return recomputed


class _Run:
    """One run of a function that is recomputed.

    Args:
        positions: taken by the first run, reused by every other run.
        first: whether this is the first.
        outer: the run that contains this call, if there is one.
    """

    def __init__(self, positions: list[Any], first: bool, outer: _Run | None) -> None:
        self.positions, self.first, self.outer, self.taken = positions, first, outer, 0
        self.graph = tf.compat.v1.get_default_graph()

    def take(self, take: Callable[[], Position]) -> Position:
        """Does what `taken` does, in this run."""
        if tf.compat.v1.get_default_graph() is not self.graph:  # whose tensors the other runs cannot read
            raise RuntimeError(
                "recompute_grad: expected a function that drops in the program that it is recomputed in; got a dropout "
                "in a tf.function, a branch or a loop within: put tf.function around what is recomputed, and "
                "recompute_grad within branches and loops"
            )
        if self.first:
            self.positions.append(self.outer.take(take) if self.outer else _take_once(take))
        elif self.taken == len(self.positions):
            raise RuntimeError(
                "recompute_grad: expected a function that drops as often when it is recomputed as at first, "
                f"{len(self.positions)} times; got one more"
            )
        self.taken += 1
        return self.positions[self.taken - 1]


_running: ContextVar[_Run | None] = ContextVar("running", default=None)


def taken(take: Callable[[], Position]) -> Position:
    """`take()`, which takes the next position of a stream or draws one. In a run for the gradient: the position of the
    first run.

    Raises:
        RuntimeError: in the backward pass of TensorFlow's own `tf.recompute_grad`; in its forward pass, where a
            `tf.function` is traced.
    """
    run = _running.get()
    return run.take(take) if run else _take_once(take)


def _take_once(take: Callable[[], Position]) -> Position:
    """`take()`, unless TensorFlow's own function repeats this draw with another mask: the gradient would be wrong, and
    nothing would show it."""
    if would_be_recomputed():
        raise RuntimeError(
            "tf.recompute_grad (keras.remat): expected a function whose masks are named by a key; got a dropout "
            "that takes the next mask, and would take another one when it is recomputed: use "
            "multidrop_tensorflow.recompute_grad in its place, or dropout_layer with a key"
        )
    return take()
