"""Positions: how TensorFlow holds a key and a call.

A position is what the state of a `tf.random.Generator` is: int64 of shape (3,) in two's complement, the low and the
high word of a counter and the seed. The counter is 256 times the call, since TensorFlow's operator advances it by 256,
in one step with reading it, so that no two threads get the same. In a traced program a Python key is a constant of the
trace; a position can be read from a variable that each run advances.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Iterator, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from multidrop import streams
from multidrop.spec.keys import Key
from multidrop.streams import Stream, on_manual_seed

from . import internals
from .compiled.layout import SHIFT
from .recomputation import taken

PHILOX = 1  # the code for Philox4x32-10 of TensorFlow's own operators


def words_of(key: Key) -> npt.NDArray[np.int64]:
    """A key as the values of a position."""
    high, low = divmod(key.call << SHIFT, 2**64)
    return np.array([low, high, key.seed], np.uint64).view(np.int64)


def position_of(key: Key) -> tf.Tensor:
    """A key as a position."""
    return tf.constant(words_of(key))


def key_of(words: npt.NDArray[np.int64]) -> Key:
    """The key that the values of a position name."""
    low, high, seed = words.view(np.uint64).tolist()
    return Key(seed, (high << 64 - SHIFT | low >> SHIFT) % 2**64)


def key_at(position: Key | tf.Tensor | tf.Variable | keras.Variable) -> Key:
    """The key that an eager position or a stream variable holds; of a key, itself."""
    return position if isinstance(position, Key) else key_of(position.numpy())


def counter_of(position: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """A position's seed and call, as uint64."""
    low, high, seed = tf.unstack(tf.bitcast(position, tf.uint64))
    upper = tf.bitwise.left_shift(high, tf.constant(64 - SHIFT, tf.uint64))
    return seed, upper | tf.bitwise.right_shift(low, tf.constant(SHIFT, tf.uint64))


def next_position(stream: tf.Variable | keras.Variable) -> tf.Tensor:
    """The position that a stream variable holds; advances the variable by one call, from 2^64 − 1 to 0. See `taken`."""
    if isinstance(stream, keras.Variable) and internals.in_stateless_scope():
        return taken(lambda: _next_in_scope(stream))
    variable = stream.value if isinstance(stream, keras.Variable) else stream
    # A variable of `tf.distribute` has a value in each replica. A replica's run advances its own; any other run, all.
    own = tf.distribute.has_strategy() and not tf.distribute.in_cross_replica_context()
    variables = [variable] if own else getattr(variable, "values", [variable])
    return taken(lambda: _next_of(variables))


def _next_of(variables: Sequence[tf.Variable]) -> tf.Tensor:
    """The position that equal variables hold; advances each."""
    first, *_ = [tf.raw_ops.RngReadAndSkip(resource=variable.handle, alg=PHILOX, delta=1) for variable in variables]
    return first


def _next_in_scope(stream: keras.Variable) -> tf.Tensor:
    """`next_position` in a `keras.StatelessScope`, which holds the values of variables and takes what is assigned."""
    position = tf.convert_to_tensor(stream.value)
    low, high, seed = tf.unstack(position)
    low += 2**SHIFT
    carry = tf.cast(tf.bitcast(low, tf.uint64) < 2**SHIFT, tf.int64)
    stream.assign(tf.stack([low, high + carry, seed]))
    return position


NOTHING = Key(0)
"""The position of a call that drops nothing: its numbers are never drawn, and no state changes."""


def generator_key(generator: keras.random.SeedGenerator) -> Key:
    """The key that a Keras generator's state, (seed, counter), names; eager only."""
    seed, call = generator.state.numpy().tolist()
    return Key(seed % 2**64, call % 2**64)


def next_of_generator(generator: keras.random.SeedGenerator) -> Key | tf.Tensor:
    """The position `Key(seed, counter)` for the state (seed, counter) of a Keras generator; advances the counter, as a
    call of Keras' own layer does. Threads that call eagerly get different positions. Simultaneous runs of one traced
    program may read the same counter, as with Keras' own layer. See `taken`."""
    return taken(lambda: _next_of_generator(generator))


def _next_of_generator(generator: keras.random.SeedGenerator) -> Key | tf.Tensor:
    if tf.executing_eagerly() and not (internals.in_stateless_scope() or tf.distribute.has_strategy()):
        with streams.lock:  # since reading and advancing are two steps
            key = generator_key(generator)
            generator.state.value.assign_add(_ONE_CALL, read_value=False)  # ten times as fast as Keras' `assign`
        return key
    seed, call = tf.unstack(tf.cast(generator.next(), tf.int64))
    word = tf.bitcast(call, tf.uint64)
    low, high = tf.bitwise.left_shift(word, _LOW), tf.bitwise.right_shift(word, _HIGH)
    return tf.stack([tf.bitcast(low, tf.int64), tf.bitcast(high, tf.int64), seed])


_ONE_CALL = np.array([0, 1])
_LOW, _HIGH = np.uint64(SHIFT), np.uint64(64 - SHIFT)


def draw_position() -> Key | tf.Tensor:
    """A key whose seed `tf.random` draws; in a trace a position, all three words of which are drawn in each run. See
    `taken`."""
    return taken(_draw_position)


def _draw_position() -> Key | tf.Tensor:
    if tf.executing_eagerly():
        return Key(int(tf.random.uniform((), tf.int64.min, tf.int64.max, tf.int64)) % 2**64)
    return tf.random.uniform((3,), tf.int64.min, tf.int64.max, tf.int64, seed=_operator_seed())


# How many draws were traced with each of TensorFlow's generators, which `tf.random.set_seed` replaces.
_traced: WeakKeyDictionary[Any, Iterator[int]] = WeakKeyDictionary()


def _operator_seed() -> int | None:
    """The operator seed of the next draw that is traced; None if no seed is set. TensorFlow's own choice is the
    operator's number in its graph, with which equal functions and branches would draw equal masks. Its numbers count up
    from 0, these count down."""
    if tf.compat.v1.get_default_graph().seed is None:
        return None
    return next(_traced.setdefault(internals.global_generator(), itertools.count(-1, -1)))


class _Calls:
    """The positions of calls without a key: after `manual_seed` a stream of their own, else drawn from `tf.random`.

    A traced program outlives the `manual_seed` under which it was traced. So two variables tell each run whether a
    stream is in force, and its position. From the first trace on, eager calls use the variables too, so that all calls
    are one sequence.
    """

    def __init__(self) -> None:
        self._stream: Stream | None = None
        self._variables: tuple[tf.Variable, tf.Variable] | None = None
        self._lock, self._process = threading.Lock(), os.getpid()

    def restart(self, root: Key | None) -> None:
        """Begins the sequence of `manual_seed` with that root key; None: follows `tf.random`."""
        if self._process != os.getpid():  # a forked child: the lock may be held, and variables cannot be used
            self._lock, self._process, self._variables = threading.Lock(), os.getpid(), None
        with self._lock:
            self._stream = None if root is None else Stream(root.fold_in("calls"))
            if self._variables is not None:
                with tf.init_scope():
                    for variable, value in zip(self._variables, self._values(), strict=True):
                        variable.assign(value)

    def _values(self) -> tuple[npt.NDArray[Any], bool]:
        """The values of the variables: the position, and whether a stream is in force."""
        return words_of(self._stream.key if self._stream else Key(0)), self._stream is not None

    def next(self, idle: bool = False) -> Key | tf.Tensor:
        """The position of this call. For an `idle` call, which drops nothing, `tf.random` draws nothing; the stream of
        `manual_seed` counts it."""
        with self._lock:
            if tf.executing_eagerly():
                if self._stream is None:
                    return NOTHING if idle else draw_position()
                if self._variables is None:
                    return taken(self._stream.next)
                return next_position(self._variables[0])
            if self._variables is None:
                # Not on import, which must not initialize devices; in `init_scope`, to outlive the trace.
                with tf.init_scope():
                    stream, seeded = self._values()
                    self._variables = (
                        tf.Variable(stream, trainable=False, name="multidrop_calls"),
                        tf.Variable(seeded, trainable=False, name="multidrop_seeded"),
                    )
            stream, seeded = self._variables
            if idle:
                return next_position(stream)
            # Both are computed: a branch in a graph takes longer than either.
            return tf.where(seeded, next_position(stream), draw_position())


calls = _Calls()
on_manual_seed(calls.restart)
