"""Functions that are run again for their gradient, which then must drop by the masks of the first time."""

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
    """In the place of `tf.recompute_grad` and `keras.remat`, for functions that drop: a function that gives what `f`
    gives, and keeps nothing for its gradient but its arguments, for which it runs `f` again. Dropout layers, and calls
    of `dropout_layer` without a key, then drop by the masks of the first time, and take no others.

    Args:
        f: a function of tensors, a layer or a model; eager, in a `tf.function` or under XLA.

    Raises:
        TypeError: for a `tf.function`, which is not traced again for its gradient, and so cannot drop by these masks.
            One that holds what this gives is right. The result is a RuntimeError for a function that drops within a
            `tf.function`, or in a program within a branch or a loop.
    """
    if isinstance(f, tf.types.experimental.PolymorphicFunction):
        raise TypeError(
            f"f: expected a function that is no tf.function, to put tf.function around what recompute_grad gives; got "
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
    """A run of a function that is recomputed.

    Args:
        positions: those that the first run takes, and every other one is given.
        first: whether this is the first.
        outer: the run that the call is a part of, where there is one.
    """

    def __init__(self, positions: list[Any], first: bool, outer: _Run | None) -> None:
        self.positions, self.first, self.outer, self.taken = positions, first, outer, 0
        self.graph = tf.compat.v1.get_default_graph()

    def take(self, take: Callable[[], Position]) -> Position:
        """`taken`, of this run."""
        if tf.compat.v1.get_default_graph() is not self.graph:  # out of which the others could not read the position
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
    """`take()`, which takes the next position of a stream or draws one; in a run for the gradient, what it gave at
    first.

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
