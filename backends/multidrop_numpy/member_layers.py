"""Members of the dropout family as layers with a forward and a backward."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from multidrop import family
from multidrop.family import Member, oracle
from multidrop.layers import OfMember, mask_axes, settings
from multidrop.spec.keys import Key

from .functional import floating
from .layers import Array, Dropout, Random


def layer(member: Member, *, seed: int | Key | None = None) -> Random:
    """`multidrop.layer`."""
    if type(member) is family.Dropout:
        return Dropout(member.p, seed=seed)
    if isinstance(member, family.ConcreteDropout):
        return ConcreteLayer(member, seed=seed)
    return MemberLayer(member, seed=seed)


class MemberLayer(OfMember, Random):
    """Applies a member of the dropout family in training mode; passes the input on in evaluation mode.

    Attributes:
        member: the member. To change a setting, such as in a schedule, set another; `p` sets the member's p.

    Args:
        member: such as `multidrop.family.DropBlock(p=0.1)`.
        seed: an integer or a `Key`; without one, keyed by `multidrop.manual_seed`, or by NumPy's global generator.

    Raises:
        ValueError: for what is no member, or a bad seed.
    """

    def __init__(self, member: Member, *, seed: int | Key | None = None) -> None:
        self.member = family.checked(member)
        super().__init__(seed)

    def forward(self, X: Array) -> Array:
        X = floating(X)
        if not self.training:
            self._next_key(X)
            return X
        self.member.check(X.shape)  # before a key is taken
        return self._forward(X, self._next_key(X))

    def _forward(self, X: Array, key: Any) -> Array:
        self._used = self.member  # for it may be changed before the backward
        if isinstance(self._used, family.MaskMember):
            self._last = key, X.shape, self._used.p
        return oracle.apply(self._used, X, key)

    def backward(self, dY: Array) -> Array:
        dY = self._checked_gradient(dY)
        return dY if self._key is None else self._backward(dY, self._key)

    def _backward(self, dY: Array, key: Key) -> Array:
        return oracle.apply(self._used, dY, key, gradient=True)

    def _axes(self, shape: tuple[int, ...] | None) -> tuple[int, ...]:
        return mask_axes(self, self.member, shape)

    def __repr__(self) -> str:
        return f"{type(self.member).__name__}({settings(self.member)})"


class ConcreteLayer(MemberLayer):
    """Learns the p of a `multidrop.family.ConcreteDropout`, by its logit: `parameters["logit"]`, float64 of shape ().
    Args are those of `MemberLayer`.

    Raises:
        ValueError: for a bad seed, or p = 0.
    """

    member: family.ConcreteDropout

    def __init__(self, member: family.ConcreteDropout, *, seed: int | Key | None = None) -> None:
        logit = np.array(member.logit)
        super().__init__(member, seed=seed)
        self.parameters = {"logit": logit}

    def _forward(self, X: Array, key: Any) -> Array:
        self._X, self._logit = X, self.parameters["logit"].copy()
        return oracle.apply(self.member, X, key, learned=self._logit)

    def _backward(self, dY: Array, key: Key) -> Array:
        self.gradients = {"logit": oracle.learned_gradient(self.member, dY, self._X, self._logit, key)}
        return oracle.apply(self.member, dY, key, learned=self._logit)

    @property
    def p(self) -> float:
        """p as it is now; setting it moves the logit."""
        return float(1.0 / (1.0 + np.exp(-self.parameters["logit"])))

    @p.setter
    def p(self, value: float) -> None:
        self.parameters["logit"][...] = replace(self.member, p=value).logit

    def __repr__(self) -> str:
        return f"ConcreteDropout(p={self.p:.4g}, temperature={self.member.temperature})"
