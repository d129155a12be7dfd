"""Positions of streams as MXNet arrays: int64 (seed, call) in two's complement, since MXNet has no uint64. And seeds
that MXNet's generator draws."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mxnet as mx
import numpy as np
import numpy.typing as npt

from multidrop.spec.keys import Key
from multidrop.streams import Stream, in_this_process

from . import draw, internals
from .internals import Array

BITS = 64
"""How many bits a seed has."""
BITS_OF = "__multidrop__"
"""Marks the operator that draws the bits of a seed in a graph, which else looks like a dropout of the user's."""


def position_of(key: Key) -> Array:
    """The position of a key, as an array of the kind that Gluon's parameters have at present."""
    packed = mx.np.array(np.array([key.seed, key.call], np.uint64).view(np.int64))
    return packed if mx.util.is_np_array() else packed.as_nd_ndarray()


def key_at(position: Array) -> Key:
    """The key that a position holds."""
    return Key(*map(int, position.asnumpy().view(np.uint64)))


def move(stream: Array, key: Key) -> None:
    """Sets the position that an array holds."""
    stream.as_nd_ndarray()[:] = position_of(key).as_nd_ndarray()


def bits(F: Any, values: Any, always: bool) -> Any:
    """Draws random bits, as 0 and 2, from MXNet's generator, by MXNet's own dropout at p = 1/2. In evaluation mode that
    operator draws nothing and gives the values back. (So does RReLU, but in training mode it crashes MXNet 1.9.1.)

    Args:
        F: `mx.nd` or `mx.sym`.
        values: ones of shape (BITS,), float16: for wider types, builds of MXNet with MKL draw from 4,096 seeds only.
        always: whether to draw in evaluation mode as well.
    """
    named = {} if F is mx.nd else {"attr": {BITS_OF: "1"}}
    return F.Dropout(values, p=0.5, mode="always" if always else "training", cudnn_off=True, **named)


def key_of_bits(values: npt.NDArray[Any]) -> Key | None:
    """The key whose seed has these bits; None for ones, which were not drawn."""
    if values[0] == 1:
        return None
    return in_this_process(Key(int.from_bytes(np.packbits(values > 1).tobytes(), "little")))


class StreamParameter(internals.Parameter):
    """A stream that Gluon saves, loads and copies as a parameter, and passes to the program of a hybridized net.

    It needs no `initialize`: it allocates arrays when they are asked for. Each context has a stream of its own; the
    position of the first is saved.
    """

    def __init__(self, name: str, key: Key) -> None:
        super().__init__(name, grad_req="null", shape=(2,), dtype="int64", init="zeros", differentiable=False)
        self._before = Stream(key)  # until there are arrays

    @property
    def key(self) -> Key:
        """The key that `next()` will give; setting it moves the stream there."""
        return self._before.key if self.arrays is None else key_at(self.arrays[0])

    @key.setter
    def key(self, key: Key) -> None:
        self._before.key = key
        for number, array in enumerate(self.arrays or ()):
            move(array, key.fold_in(number) if number else key)

    def next(self, ctx: mx.Context | None = None) -> Key:
        """Gives the stream's present key, and moves the stream on by one call."""
        return self._before.next() if self.arrays is None else draw.take(self.data(ctx))

    def value(self) -> Array:
        return position_of(self.key)

    def placed(self, value: Array) -> None:
        self.key = key_at(value)

    def cast(self, dtype: Any) -> None:
        """Does nothing: a net's type is that of its weights."""

    def set_data(self, data: Array) -> None:
        """Moves the stream to the position `data`."""
        self.key = key_at(data)

    def list_ctx(self) -> list[mx.Context]:
        """The contexts of the arrays. If there are none, allocates them where the other parameters of the stream's
        `gluon.Trainer` are, as a trainer expects, or else on the current context."""
        if self.arrays is None:
            self.begin(internals.contexts_of(self.neighbours) or None)
        return super().list_ctx()

    def reset_ctx(self, ctx: mx.Context | list[mx.Context] | None) -> None:
        """Allocates arrays on each of `ctx`; the first keeps the stream's position."""
        self.begin(ctx)
        super().reset_ctx(ctx)

    def list_data(self) -> Sequence[Array]:
        """The arrays, in the order of their contexts."""
        self.begin(None)
        return list(self.arrays or ())
