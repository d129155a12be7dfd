"""The dropout layer as a Gluon block, and the base class of all layers that draw."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Any

import mxnet as mx
from mxnet import gluon

from multidrop import checks
from multidrop.spec.keys import Key
from multidrop.spec.masks import Mask
from multidrop.streams import layer_key
from multidrop.view import Drawing, before, not_a_layer

from . import internals, operators
from .autograd import masked, rectified
from .functional import NAME, Array, check_floating, draw_key
from .position import StreamParameter


class Random(gluon.HybridBlock):
    """Base class of the layers that draw. In training mode (`autograd.record()`) each call takes the next key. Within a
    hybridized net a layer is an operator of the net's program; a layer that is hybridized alone runs imperatively.

    A keyed layer keeps its position as the parameter `stream`, int64 (seed, call) in two's complement, which
    `save_parameters` saves. To load parameters of a net without this library's layers, call `load_parameters` with
    `allow_missing=True`; the layer then keeps its position.
    """

    stream: StreamParameter | None = None

    def __init__(self, seed: int | Key | None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._key_by(layer_key(NAME, seed))

    def _key_by(self, key: Key | None, taken: Container[str] = ()) -> None:
        """Has the layer's stream go on from `key`; None has the layer follow MXNet's generator. A new stream gets a
        name that is not `taken`."""
        self.last: tuple[Key | None, tuple[int, ...] | None, float | None] = (None, None, None)
        if self.stream is not None and key is not None:
            self.stream.key = key
            return
        if self.stream is not None:
            internals.forget_parameter(self, "stream")
        if key is not None:
            name = self.prefix + "stream"
            while name in taken:
                name += "_"
            self.stream = StreamParameter(name, key)
            self.params.update({self.stream.name: self.stream})

    def forward(self, X: Array | mx.sym.Symbol) -> Array | mx.sym.Symbol:
        if isinstance(X, mx.sym.Symbol):
            return self._symbol(X, None if self.stream is None else self.stream.var())
        check_floating(X)
        return self._train(X) if mx.autograd.is_training() else X

    def _symbol(self, X: mx.sym.Symbol, stream: mx.sym.Symbol | None) -> mx.sym.Symbol:
        """Adds the layer to a program."""
        raise NotImplementedError(f"{type(self).__name__}._symbol")  # each layer's own

    def _train(self, X: Array) -> Array:
        """The output in training mode."""
        raise NotImplementedError(f"{type(self).__name__}._train")  # each layer's own

    @property
    def _p(self) -> Any:
        """The probability that an element is dropped; None for a layer without a mask."""
        return None

    def _axes_for(self, shape: tuple[int, ...] | None) -> tuple[int, ...]:
        """The axes along which all elements of an array of that shape share one decision; () if no shape is known.

        Raises:
            TypeError: for a layer without a mask.
        """
        raise not_a_layer(self)

    def _take(self, X: Array, idle: bool) -> Key | None:
        """The key of this call. A keyed layer moves on by one call. An unkeyed layer draws none for an `idle` call or
        an empty array, since nothing is dropped."""
        shape = X.shape
        if self.stream is None and (idle or 0 in shape):
            return None
        key = draw_key() if self.stream is None else self.stream.next(X.ctx)
        self.last = key, shape, self._p
        return key

    def _shown(self, name: str, *settings: str) -> str:
        """A repr of a name and settings, with the seed of a keyed layer."""
        seed = () if self.stream is None else (f"seed={self.stream.key.seed}",)
        return f"{name}({', '.join(filter(None, (*settings, *seed)))})"


class Dropout(Random):
    """Zeroes each element with probability `rate` in training mode (`autograd.record()`) and scales the others by
    1/(1 − rate); passes the input on in evaluation mode.

    Args:
        rate: the probability that an element is dropped, in [0, 1].
        axes: the axes along which all elements share one decision, as (2, 3) to drop channels of images (n, c, h, w).
        seed: an integer or a `Key`; without one, keyed by `multidrop.manual_seed`, or by MXNet's generator.
        **kwargs: `prefix` and `params` of `gluon.Block`.

    Raises:
        ValueError: for a bad probability, axes or seed.
    """

    def __init__(
        self, rate: float = 0.5, axes: int | Sequence[int] = (), *, seed: int | Key | None = None, **kwargs: Any
    ) -> None:
        super().__init__(seed, **kwargs)
        self.rate, self.axes = checks.probability("rate", rate), checks.axis_numbers(axes)

    def _symbol(self, X: mx.sym.Symbol, stream: mx.sym.Symbol | None) -> mx.sym.Symbol:
        return operators.symbol(X, self._p, stream, self.axes)

    def _train(self, X: Array) -> Array:
        return masked(X, self._next_mask(X))

    def after_relu(self, X: Array) -> Array:
        """The layer's output for max(X, 0), in one pass; in two if the layer has hooks, which then see both arrays."""
        check_floating(X)
        if internals.hooked(self):
            return self(rectified(X))
        return masked(X, self._next_mask(X), relu=True) if mx.autograd.is_training() else rectified(X)

    @property
    def _p(self) -> float:
        return checks.probability("rate", self.rate)  # may have been changed

    def _axes_for(self, shape: tuple[int, ...] | None) -> tuple[int, ...]:
        return () if shape is None else checks.axes(self.axes, len(shape))

    def _next_mask(self, X: Array) -> Mask:
        p, axes = self._p, self._axes_for(X.shape)  # before a key is taken
        return Mask(p, self._take(X, p == 0.0), 0, axes)

    def __repr__(self) -> str:
        return self._shown(type(self).__name__, f"p = {self.rate}", f"axes={self.axes}")


def drawing(layer: gluon.Block, shape: tuple[int, ...] | None = None) -> Drawing:
    """How a dropout layer draws; see `multidrop.view`."""
    if not isinstance(layer, Random):
        raise not_a_layer(layer)
    last, known, last_rate = layer.last
    following = None
    if layer.stream is not None:
        following = layer.stream.key
        if before(following) != last:  # a program ran it, without Python
            last, known, last_rate = before(following), None, None
    shape = known if shape is None else shape
    axes = layer._axes_for(shape)
    return Drawing(layer._p, last, following, shape, axes, last_rate)


def parameters_of(block: Any) -> dict[str, gluon.Parameter]:
    """The parameters that are attributes of a block, by attribute."""
    own = getattr(block, "__dict__", {})
    return {name: value for name, value in own.items() if isinstance(value, gluon.Parameter)}
