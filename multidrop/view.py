"""Which mask a layer used, and which it will use, without running anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from . import checks
from .dispatch import backend_of, part
from .host import keep_mask
from .protocol import Conversion
from .spec.keys import Key
from .spec.masks import drawn_shape

__all__ = ["LayerMask", "last_mask", "mask_at"]


class Drawing(NamedTuple):
    """How a layer draws, as its backend tells it."""

    p: float
    last: Key | None
    """The key of its last call, where that is known."""
    next: Key | None
    """The key of its next call; None where the framework's generator will name it."""
    shape: tuple[int, ...] | None
    """That of the input: the one asked for, or else the last one, where that is known."""
    axes: tuple[int, ...]
    """Along which one decision holds for all elements of such an input."""
    last_p: float | None = None
    """That of its last call, where it is known: `p` may have been changed since."""


@dataclass(frozen=True)
class LayerMask:
    """One mask of a layer, by its name.

    Attributes:
        p: the probability that an element is dropped.
        key: the key, with the call, that reproduces it: `dropout_layer(X, p, key, axes=axes)` drops by this mask.
        shape: the input's shape.
        axes: along which one decision holds for all elements.
    """

    p: float
    key: Key
    shape: tuple[int, ...]
    axes: tuple[int, ...]

    def keep(self) -> npt.NDArray[np.bool_]:
        """The mask: a bool array of the input's shape, True where an element is kept."""
        drawn = keep_mask(drawn_shape(self.shape, self.axes), self.p, self.key)
        return np.array(np.broadcast_to(drawn, self.shape), order="C")


def last_mask(layer: Any, shape: Sequence[int] | None = None) -> LayerMask:
    """The mask that a dropout layer used last.

    Args:
        layer: a dropout layer of this library, in any framework.
        shape: the input's shape, where the layer does not know it: it ran in a compiled, traced or hybridized program,
            in another process, or within `vmap`. The rate is then the one that the layer has now.

    Raises:
        TypeError: for what is no dropout layer of this library.
        ValueError: where the layer has not dropped anything yet, or the shape is not known.
    """
    drawing = _drawing(layer, shape, "md.last_mask")
    if drawing.last is None:
        raise ValueError(
            "layer: expected one that has dropped something, or, in a program that Python does not run, one that is "
            f"keyed; got {checks.shown(layer)}"
        )
    return _mask(layer, drawing, drawing.last, drawing.p if drawing.last_p is None else drawing.last_p)


def mask_at(layer: Any, call: int, shape: Sequence[int] | None = None) -> LayerMask:
    """The mask that a keyed dropout layer uses in a given call, of the past or to come.

    Args:
        layer: a dropout layer of this library, in any framework.
        call: the number of the training-mode call. A layer built from a seed begins with 0; the number of its next one
            is `call` in its saved state.
        shape: the input's shape; without one, that of the last input.

    Raises:
        TypeError: for what is no dropout layer of this library.
        ValueError: for a layer that is not keyed, a bad call, or a shape that is not known.
    """
    drawing = _drawing(layer, shape, "md.mask_at")
    if drawing.next is None:
        raise ValueError(
            "layer: expected a keyed one, built with a seed or after manual_seed; got one whose masks its framework's "
            f"generator names as it drops: {checks.shown(layer)}"
        )
    return _mask(layer, drawing, Key(drawing.next.seed, call), drawing.p)


def _drawing(layer: Any, shape: Sequence[int] | None, use: str) -> Drawing:
    drawing = part(backend_of(layer, "layer"), Conversion, "drawing", use).drawing
    return drawing(layer, None if shape is None else checks.shape(shape))


def _mask(layer: Any, drawing: Drawing, key: Key, p: float) -> LayerMask:
    if drawing.shape is None:
        raise ValueError(f"shape: expected the input's shape, which {checks.shown(layer)} does not know; got none")
    return LayerMask(p, key, drawing.shape, drawing.axes)


def before(key: Key) -> Key | None:
    """The key of the call before; None before the first one."""
    return Key(key.seed, key.call - 1) if key.call else None


def not_a_layer(layer: Any) -> TypeError:
    """The error of a backend that is asked for the drawing of anything else."""
    return TypeError(f"layer: expected a dropout layer of multidrop's; got {checks.shown(layer)}")
