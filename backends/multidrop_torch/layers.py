"""Dropout layers as torch modules, each in the place of torch's layer of the same name."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from multidrop import checks
from multidrop.family import Member
from multidrop.family.alpha_dropout import AlphaDropoutAlong
from multidrop.spec.keys import Key
from multidrop.streams import layer_key

from . import functional, internals
from .autograd import masked_next
from .draw import rectified
from .functional import NAME, check_floating
from .keyed import Keyed


class _DropoutNd(Keyed, internals.DropoutBase):
    """Base class of these layers. Each subclasses torch's layer of the same name, so that code which looks for that in
    a model, to change its rate or mode, finds it.

    Args:
        p: the probability that an element, or a channel, is dropped, in [0, 1].
        inplace: whether to write the result over the input.
        seed: an integer or a `Key`; without one, keyed by `multidrop.manual_seed`, or by torch's generator.

    Raises:
        ValueError: for a bad probability or seed.
    """

    def __init__(self, p: float = 0.5, inplace: bool = False, *, seed: int | Key | None = None) -> None:
        super().__init__(checks.probability("p", p), inplace)
        self._key_by(layer_key(NAME, seed))

    def _drop(self, X: Tensor, axes: tuple[int, ...] = (), inplace: bool = False) -> Tensor:
        """X through the next mask."""
        p = checks.probability("p", self.p)
        # Written past `nn.Module`, whose attributes take a microsecond.
        return masked_next(X, p, self.stream, 0, axes, inplace=inplace, note=self.__dict__, ranks=self.ranks)

    @property
    def _p(self) -> float:
        return checks.probability("p", self.p)  # may have been changed

    @staticmethod
    def _axes(ndim: int) -> tuple[int, ...]:
        """The axes along which elements of an input with so many dimensions share one decision."""
        return ()

    def _axes_for(self, shape: tuple[int, ...] | None) -> tuple[int, ...]:
        try:
            return () if shape is None else self._axes(len(shape))
        except RuntimeError as error:  # the kind that torch raises for inputs
            raise ValueError(f"shape: expected that of an input of {checks.shown(self)}; got {shape}") from error


class Dropout(_DropoutNd, nn.Dropout):
    """Zeroes each element with probability p in training mode and scales the others by 1/(1 − p); passes the input on
    in evaluation mode."""

    def forward(self, input: Tensor) -> Tensor:
        check_floating(input)
        return self._drop(input, inplace=self.inplace) if self.training else input

    def after_relu(self, X: Tensor) -> Tensor:
        """The layer's output for max(X, 0), in one pass. Where hooks watch the layer, it is called with max(X, 0), so
        that they see the hidden activations and what is left of them."""
        check_floating(X)
        if internals.is_hooked(self):
            return self(rectified(X))
        if not self.training:
            return rectified(X)
        p = checks.probability("p", self.p)
        return masked_next(X, p, self.stream, relu=True, note=self.__dict__, ranks=self.ranks)


class _FeatureDropout(_DropoutNd):
    """Drops whole channels."""

    _dropout: Callable[..., Tensor]  # the function of the same name

    def forward(self, input: Tensor) -> Tensor:
        return type(self)._dropout(input, self.p, self.training, self.inplace, drop=self._drop)


class Dropout1d(_FeatureDropout, nn.Dropout1d):
    """Drops whole channels of (n, c, l), or of (c, l), with probability p in training mode."""

    _dropout = staticmethod(functional.dropout1d)
    _axes = staticmethod(functional.axes1d)


class Dropout2d(_FeatureDropout, nn.Dropout2d):
    """Drops whole channels of (n, c, h, w) with probability p in training mode; like torch's, it reads three dimensions
    as (n, c, l)."""

    _dropout = staticmethod(functional.dropout2d)
    _axes = staticmethod(functional.spatial_axes)


class Dropout3d(_FeatureDropout, nn.Dropout3d):
    """Drops whole channels of (n, c, d, h, w), or of (c, d, h, w), with probability p in training mode."""

    _dropout = staticmethod(functional.dropout3d)
    _axes = staticmethod(functional.axes3d)


class AlphaDropout(_FeatureDropout, nn.AlphaDropout):
    """Dropout for SELU networks: a dropped element becomes SELU's lower limit, and all are scaled and moved so that a
    mean of 0 and a variance of 1 stay. Source: G. Klambauer et al., "Self-normalizing neural networks", NeurIPS 30
    (2017), section 2."""

    _dropout = staticmethod(functional.alpha_dropout)

    def _noise(self, shape: tuple[int, ...]) -> Member:
        return AlphaDropoutAlong(self._p, self._axes_for(shape))


class FeatureAlphaDropout(_FeatureDropout, nn.FeatureAlphaDropout):
    """`AlphaDropout` of whole channels."""

    _dropout = staticmethod(functional.feature_alpha_dropout)
    _axes = staticmethod(functional.spatial_axes)
    _noise = AlphaDropout._noise
