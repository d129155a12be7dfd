"""Shows which mask a layer used last, and which it will use in a given call, without running the layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from . import checks, html
from .dispatch import backend_of, part
from .family import Member
from .family.dropout import DropoutAlong
from .host import keep_mask
from .protocol import Conversion
from .spec.keys import Key
from .spec.masks import drawn_shape

__all__ = ["LayerMask", "last_mask", "mask_at"]


class Drawing(NamedTuple):
    """How a layer draws its masks, as reported by its backend."""

    p: float
    last: Key | None
    """The key of its last call, if known."""
    next: Key | None
    """The key of its next call; None for a layer that follows the framework's generator."""
    shape: tuple[int, ...] | None
    """The input's shape: the requested one, else that of the last input, if known."""
    axes: tuple[int, ...]
    """The axes of such an input along which elements share one decision."""
    last_p: float | None = None
    """The probability in its last call, if known; `p` may have changed since."""


class Drawn:
    """Base class of the layers of every framework: what a backend's `drawing` asks of them. A layer that drops by a
    mask overrides both."""

    @property
    def _p(self) -> Any:
        """The probability that an element is dropped; None for a layer without a mask."""
        return None

    def _axes_for(self, shape: tuple[int, ...] | None) -> tuple[int, ...]:
        """The axes along which all elements of an input of that shape share one decision; () if no shape is known.

        Raises:
            TypeError: for a layer without a mask.
        """
        raise not_a_layer(self)

    def _noise(self, shape: tuple[int, ...]) -> Member:
        """The member that the layer applies in training mode to an input of that shape."""
        return DropoutAlong(self._p, self._axes_for(shape))

    @property
    def _learned(self) -> Any:
        """The tensor that this member learns; None if it learns nothing."""
        return None

    drops_weights = False
    """Whether the layer's input is a weight of another layer."""


LAYER = "a dropout layer of multidrop"


@dataclass(frozen=True)
class LayerMask:
    """One mask of a layer, described by what it is computed from.

    Attributes:
        p: the probability that an element is dropped.
        key: the key, call included: `dropout_layer(X, p, key, axes=axes)` drops the same elements.
        shape: the input's shape.
        axes: the axes along which elements share one decision.
    """

    p: float
    key: Key
    shape: tuple[int, ...]
    axes: tuple[int, ...]

    def keep(self) -> npt.NDArray[np.bool_]:
        """Computes the mask: a bool array of the input's shape, True where an element is kept."""
        drawn = keep_mask(drawn_shape(self.shape, self.axes), self.p, self.key)
        return np.array(np.broadcast_to(drawn, self.shape), order="C")

    def _repr_html_(self) -> str:
        """The mask's description as a table, as notebooks show it."""
        seed, call = str(self.key.seed), str(self.key.call)
        rows = [("p", self.p), ("seed", seed), ("call", call), ("shape", self.shape), ("shared axes", self.axes)]
        return html.table(("mask", ""), rows)


def last_mask(layer: Any, shape: Sequence[int] | None = None) -> LayerMask:
    """Returns the mask that a dropout layer used last.

    Args:
        layer: a dropout layer of this library, in any framework.
        shape: the input's shape. Required if the layer does not know it, because it ran in a compiled, traced or
            hybridized program, in another process, or within `vmap`; p is then the layer's current one.

    Raises:
        TypeError: if `layer` is not a dropout layer of this library.
        ValueError: if the layer has not dropped anything yet, or the shape is unknown.
    """
    drawing = _drawing(layer, shape, "md.last_mask")
    if drawing.last is None:
        raise ValueError(
            "layer: expected a layer that has dropped something (inside a compiled program, a keyed layer); "
            f"got {checks.shown(layer)}"
        )
    return _mask(layer, drawing, drawing.last, drawing.p if drawing.last_p is None else drawing.last_p)


def mask_at(layer: Any, call: int, shape: Sequence[int] | None = None) -> LayerMask:
    """Returns the mask that a keyed dropout layer uses in a given call, past or future.

    Args:
        layer: a dropout layer of this library, in any framework.
        call: the number of the training-mode call. A layer built from a seed begins with call 0; its saved state holds
            the number of its next call.
        shape: the input's shape; by default that of the last input.

    Raises:
        TypeError: if `layer` is not a dropout layer of this library.
        ValueError: for a layer that is not keyed, a bad call, or an unknown shape.
    """
    drawing = _drawing(layer, shape, "md.mask_at")
    if drawing.next is None:
        raise ValueError(
            "layer: expected a keyed layer, built with a seed or after manual_seed; got one that follows its "
            f"framework's generator: {checks.shown(layer)}"
        )
    return _mask(layer, drawing, Key(drawing.next.seed, call), drawing.p)


def _drawing(layer: Any, shape: Sequence[int] | None, use: str) -> Drawing:
    drawing = part(backend_of(layer, "layer", LAYER), Conversion, "drawing", use).drawing
    return drawing(layer, None if shape is None else checks.shape(shape))


def _mask(layer: Any, drawing: Drawing, key: Key, p: float) -> LayerMask:
    if drawing.shape is None:
        raise ValueError(f"shape: expected the input's shape, because {checks.shown(layer)} does not know it; got None")
    return LayerMask(p, key, drawing.shape, drawing.axes)


def before(key: Key) -> Key | None:
    """Returns the key of the previous call; None before the first call."""
    return Key(key.seed, key.call - 1) if key.call else None


def not_a_layer(layer: Any) -> TypeError:
    """The error that backends raise for an object that is not a dropout layer of this library."""
    return TypeError(f"layer: expected {LAYER}; got {checks.shown(layer)}")
