"""Members of the dropout family as layers with a forward and a backward."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from multidrop import checks, family
from multidrop.family import Member, oracle
from multidrop.family.alpha_dropout import AlphaDropoutAlong
from multidrop.layers import OfMember, OfSettings, from_table, shown_settings
from multidrop.spec.keys import Key

from .functional import floating
from .layers import Array, Dropout, Random


class MemberLayer(OfMember, Random):
    """Applies a member of the dropout family in training mode; passes the input on in evaluation mode.

    Attributes:
        member: the member. To change a setting, as a schedule does, set another member; `p` sets the member's p.

    Args:
        member: such as `multidrop.family.DropBlock(p=0.1)`.
        seed: an integer or a `Key`; without one, keyed by `multidrop.manual_seed`, or by NumPy's global generator.

    Raises:
        ValueError: for what is no member, or a bad seed; when called, for a shape that the member does not take.
    """

    def __init__(self, member: Member, *, seed: int | Key | None = None) -> None:
        self.member = family.checked(member)
        super().__init__(seed)

    def forward(self, X: Array) -> Array:
        X = floating(X)
        if self.training:
            self.member.check(X.shape)  # before a key is taken
        key = self._next_key(X, self._idle)
        if key is None:
            return X
        self._used = self.member  # `member` may be changed before the backward
        if self._p is not None:
            self._last = key, X.shape, self._p
        return self._forward(X, key)

    def backward(self, dY: Array) -> Array:
        dY = self._checked_gradient(dY)
        return dY if self._key is None else self._backward(dY, self._key)

    def _forward(self, X: Array, key: Key) -> Array:
        return oracle.apply(self._used, X, key)

    def _backward(self, dY: Array, key: Key) -> Array:
        return oracle.apply(self._used, dY, key, gradient=True)

    @property
    def _idle(self) -> bool:
        """Whether the next call leaves its input as it is."""
        return self.member.idle

    def __repr__(self) -> str:
        return f"{type(self.member).__name__}({shown_settings(self.member)})"


class _OfSettings(OfSettings, MemberLayer):
    """Base class of the layers of one kind of member, built from its settings."""

    layers: ClassVar[dict[type[Member], Any]] = {Member: MemberLayer, family.Dropout: Dropout}


class DropPath(_OfSettings, kind=family.DropPath): ...


class DropBlock(_OfSettings, kind=family.DropBlock): ...


class SpatialDropout(_OfSettings, kind=family.SpatialDropout): ...


class LockedDropout(_OfSettings, kind=family.LockedDropout): ...


class GaussianDropout(_OfSettings, kind=family.GaussianDropout): ...


class GaussianNoise(_OfSettings, kind=family.GaussianNoise): ...


class FeatureAlphaDropout(_OfSettings, kind=family.FeatureAlphaDropout): ...


class DropConnect(_OfSettings, kind=family.DropConnect): ...


class EmbeddingDropout(_OfSettings, kind=family.EmbeddingDropout): ...


class AlphaDropout(MemberLayer):
    """Dropout for SELU networks: sets dropped elements to SELU's lower limit, then scales and shifts all elements to
    keep mean 0 and variance 1. Args and errors are those of `Dropout`. Source: G. Klambauer et al., "Self-normalizing
    neural networks", NeurIPS 30 (2017), section 2."""

    member: AlphaDropoutAlong

    def __init__(self, p: float = 0.5, axes: int | Sequence[int] = (), *, seed: int | Key | None = None) -> None:
        super().__init__(AlphaDropoutAlong(p, axes), seed=seed)  # type: ignore[arg-type]  # which takes an integer too

    @property
    def axes(self) -> tuple[int, ...]:
        """The axes along which all elements share one decision."""
        return self.member.shared

    @property
    def _p(self) -> float:
        return self.member.p

    def _axes_for(self, shape: tuple[int, ...] | None) -> tuple[int, ...]:
        return () if shape is None else self.member.axes(len(shape))

    def __repr__(self) -> str:
        return f"AlphaDropout(p={self.p}" + (f", axes={self.axes})" if self.axes else ")")


class ConcreteDropout(_OfSettings, kind=family.ConcreteDropout):
    """Applies `multidrop.family.ConcreteDropout` and learns its p, as `parameters["logit"]` = log(p/(1 − p)), float64
    of shape (). Add `regularizer` to the loss, and `regularizer_gradients` to the gradients; without them p only falls.

    Source: Y. Gal, J. Hron and A. Kendall, "Concrete dropout", NeurIPS 30 (2017).

    Args:
        p: p at the start, in (0, 1).
        temperature: above 0; the paper's is 0.1.
        seed: an integer or a `Key`; without one, keyed by `multidrop.manual_seed`, or by NumPy's global generator.

    Raises:
        ValueError: for a bad probability, temperature or seed.
    """

    member: family.ConcreteDropout
    _idle = False

    @property
    def _learned(self) -> Array:
        return self.parameters["logit"]

    def __init__(self, *settings: Any, seed: int | Key | None = None, **named: Any) -> None:
        super().__init__(*settings, seed=seed, **named)
        self.parameters = {"logit": np.array(self.member.logit)}

    def _forward(self, X: Array, key: Key) -> Array:
        self._X, self._logit = X, self.parameters["logit"].copy()
        return oracle.apply(self._used, X, key, learned=self._logit)

    def _backward(self, dY: Array, key: Key) -> Array:
        self.gradients = {"logit": oracle.learned_gradient(self._used, dY, self._X, self._logit, key)}
        return oracle.apply(self._used, dY, key, learned=self._logit)

    def regularizer(self, weight: Array, *, length_scale: float = 1.0) -> float:
        """The term of the loss that keeps p up: `multidrop.family.ConcreteDropout.regularizer`. Divide it by the number
        of training examples and add it to their mean loss.

        Args:
            weight: the weight of the layer after this one, of shape (K, outputs), where K is the number of features
                that are dropped.
            length_scale: the prior's, at least 0.

        Raises:
            ValueError: for a bad length scale.
        """
        logit, squares = self.parameters["logit"], np.square(weight).sum()
        return float(self.member.regularizer(np, logit, squares, len(weight), length_scale))

    def regularizer_gradients(self, weight: Array, *, length_scale: float = 1.0) -> tuple[Array, Array]:
        """The gradients of `regularizer` with respect to the logit and the weight; args and errors are those."""
        scale = checks.at_least_zero("length_scale", length_scale) ** 2
        logit, p = self.parameters["logit"], self.p
        of_logit = scale / 2.0 * np.square(weight).sum() * np.exp(logit) + len(weight) * p * (1.0 - p) * logit
        return of_logit, scale / (1.0 - p) * weight

    @property
    def p(self) -> float:
        """p as it is now; setting it moves the logit."""
        return float(1.0 / (1.0 + np.exp(-self.parameters["logit"])))

    @p.setter
    def p(self, value: float) -> None:
        self.parameters["logit"][...] = replace(self.member, p=value).logit

    def __repr__(self) -> str:
        return f"ConcreteDropout(p={self.p:.4g}, temperature={self.member.temperature})"


def layer(member: Member, *, seed: int | Key | None = None) -> Random:
    """`multidrop.layer`: an instance of the class of the member's name, or else of `MemberLayer`."""
    return from_table(_OfSettings.layers, member, seed)
