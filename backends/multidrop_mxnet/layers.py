"""The dropout layer as a Gluon block."""

from __future__ import annotations

from typing import Any

import mxnet as mx
import numpy as np
from mxnet import gluon

from multidrop import checks
from multidrop.keys import Key, Stream, layer_key

from .functional import NAME, Array, check_floating, draw_key, masked


class Dropout(gluon.Block):
    """Zeroes each element with probability `rate` in training mode (`autograd.record()`) and scales the others by
    1/(1 − rate); passes the input on in any other.

    A keyed layer keeps its position as the parameter `stream`, int64 (seed, call) as two's complement, so that
    `save_parameters` carries it. What a net with MXNet's own `nn.Dropout` saved has none: `load_parameters` takes it
    with `allow_missing=True`, and leaves the layer's position as it is. The mask is drawn on the host, and so the layer
    is no `HybridBlock`: it goes into a `Sequential`, beside hybridized layers.

    Args:
        rate: the probability that an element is dropped, in [0, 1].
        seed: an integer or a `Key`; without one, keyed by `multidrop.manual_seed`, or by MXNet's generator.
        **kwargs: `prefix` and `params` of `gluon.Block`.

    Raises:
        ValueError: for a bad probability or seed.
    """

    def __init__(self, rate: float = 0.5, *, seed: int | Key | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rate = checks.probability("rate", rate)
        key = layer_key(NAME, seed)
        self.stream = None if key is None else StreamParameter(self.prefix + "stream", key)
        if self.stream is not None:
            self.params.update({self.stream.name: self.stream})

    def forward(self, X: Array) -> Array:
        check_floating(X)
        return masked(X, self.rate, self._next_key()) if mx.autograd.is_training() else X

    def _next_key(self) -> Key:
        return draw_key() if self.stream is None else self.stream.next()

    def __repr__(self) -> str:
        return f"Dropout(p = {self.rate}" + ("" if self.stream is None else f", seed = {self.stream.key.seed}") + ")"


class StreamParameter(gluon.Parameter):
    """A stream that Gluon saves, loads and copies as a parameter. The stream itself is a Python object, which no
    asynchronous operator has to write; an array is made of it where Gluon asks for one."""

    def __init__(self, name: str, key: Key) -> None:
        super().__init__(name, grad_req="null", shape=(2,), dtype="int64", init="zeros", differentiable=False)
        self._stream = Stream(key)

    @property
    def key(self) -> Key:
        """The key that `next()` will give; setting it moves the stream there."""
        return self._stream.key

    @key.setter
    def key(self, key: Key) -> None:
        self._stream.key = key

    def next(self) -> Key:
        """The stream's present key; the stream moves on by one call."""
        return self._stream.next()

    def cast(self, dtype: Any) -> None:
        """Nothing: the type that a net is cast to is that of its weights."""

    def set_data(self, data: Array) -> None:
        """Moves the stream to where `data` says."""
        self.key = _unpack(data)

    def _check_and_get(self, arr_list: Any, ctx: Any) -> Any:  # what `data` and `list_data` read from
        for array in arr_list or ():
            array[:] = _pack(self.key)
        return super()._check_and_get(arr_list, ctx)

    def _reduce(self) -> Array:  # what is saved
        return _pack(self.key)

    def _load_init(self, data: Array, ctx: Any, **kwargs: Any) -> None:  # what is loaded
        super()._load_init(data, ctx, **kwargs)
        self.key = _unpack(data)


def _pack(key: Key) -> Array:
    """A key as int64 (seed, call): MXNet has no uint64. The array is of the kind that Gluon's parameters have now."""
    packed = mx.np.array(np.array([key.seed, key.call], np.uint64).view(np.int64))
    return packed if mx.util.is_np_array() else packed.as_nd_ndarray()


def _unpack(stream: Array) -> Key:
    """The key that a `stream` array holds."""
    return Key(*map(int, stream.asnumpy().view(np.uint64)))
