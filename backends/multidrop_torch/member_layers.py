"""Members of the dropout family as torch modules."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from multidrop import family
from multidrop.family import Member
from multidrop.layers import OfMember, OfSettings, from_table, shown_settings
from multidrop.spec.keys import Key
from multidrop.streams import layer_key

from .apply import apply_next
from .functional import NAME, check_floating
from .internals import overrides
from .keyed import Keyed
from .layers import Dropout


class MemberLayer(OfMember, Keyed):
    """Applies a member of the dropout family in training mode; passes the input on in evaluation mode. As a
    parametrization (`torch.nn.utils.parametrize`) it applies it to a weight.

    Attributes:
        member: the member. To change a setting, such as in a schedule, set another; `p` sets the member's p.

    Args:
        member: such as `multidrop.family.DropBlock(p=0.1)`.
        seed: an integer or a `Key`; without one, keyed by `multidrop.manual_seed`, or by torch's generator.

    Raises:
        ValueError: for an object that is no member, or a bad seed.
    """

    def __init__(self, member: Member, *, seed: int | Key | None = None) -> None:
        super().__init__()
        self.member = family.checked(member)
        self._key_by(layer_key(NAME, seed))

    def forward(self, input: Tensor) -> Tensor:
        check_floating(input)
        return self._next(input) if self.training else input

    def _next(self, X: Tensor) -> Tensor:
        return apply_next(self.member, X, self.stream, note=self.__dict__, ranks=self.ranks)

    def right_inverse(self, weight: Tensor) -> Tensor:
        """The value that is stored when a parametrized weight is set."""
        return weight

    @overrides
    def _get_name(self) -> str:
        return type(self.member).__name__

    def extra_repr(self) -> str:
        return shown_settings(self.member) + super().extra_repr()


class _OfSettings(OfSettings, MemberLayer):
    """Base class of layers of one kind of member, built from its settings."""

    layers: ClassVar[dict[type[Member], Any]] = {Member: MemberLayer, family.Dropout: Dropout}


class DropPath(_OfSettings, kind=family.DropPath): ...


class DropBlock(_OfSettings, kind=family.DropBlock): ...


class SpatialDropout(_OfSettings, kind=family.SpatialDropout): ...


class LockedDropout(_OfSettings, kind=family.LockedDropout): ...


class GaussianDropout(_OfSettings, kind=family.GaussianDropout): ...


class GaussianNoise(_OfSettings, kind=family.GaussianNoise): ...


class DropConnect(_OfSettings, kind=family.DropConnect): ...


class EmbeddingDropout(_OfSettings, kind=family.EmbeddingDropout): ...


class ConcreteDropout(_OfSettings, kind=family.ConcreteDropout):
    """Learns p by its logit, the parameter `logit`: see `multidrop.family.ConcreteDropout`. Add `regularizer` to the
    loss; without it p only falls.

    Source: Y. Gal, J. Hron and A. Kendall, "Concrete dropout", NeurIPS 30 (2017).

    Attributes:
        logit: log(p/(1 − p)), of shape (), in torch's default type.

    Args:
        p: the initial probability, in (0, 1).
        temperature: above 0; the paper's is 0.1.
        seed: an integer or a `Key`; without one, keyed by `multidrop.manual_seed`, or by torch's generator.

    Raises:
        ValueError: for a bad probability, temperature or seed.
    """

    member: family.ConcreteDropout

    def __init__(self, *settings: Any, seed: int | Key | None = None, **named: Any) -> None:
        super().__init__(*settings, seed=seed, **named)
        self.logit = nn.Parameter(torch.tensor(self.member.logit))

    def _next(self, X: Tensor) -> Tensor:
        return apply_next(self.member, X, self.stream, learned=self.logit, ranks=self.ranks)

    def regularizer(self, weight: Tensor, *, length_scale: float = 1.0) -> Tensor:
        """The term of the loss that keeps p up: `multidrop.family.ConcreteDropout.regularizer`. Divide it by the number
        of training examples, and add it to their mean loss.

        Args:
            weight: the next layer's, of shape (outputs, K, …) for K features that are dropped.
            length_scale: the prior's, at least 0.

        Returns:
            A tensor of shape (), differentiable with respect to `logit` and `weight`.

        Raises:
            ValueError: for a bad length scale.
        """
        return self.member.regularizer(torch, self.logit, weight.square().sum(), weight.shape[1], length_scale)

    @property
    def _learned(self) -> Tensor:
        return self.logit

    @property
    def p(self) -> float:
        """The present p; setting it moves the logit."""
        return float(torch.sigmoid(self.logit.detach()))

    @p.setter
    def p(self, value: float) -> None:
        with torch.no_grad():
            self.logit.fill_(replace(self.member, p=value).logit)

    def extra_repr(self) -> str:
        p = self.member.p if self.logit.is_meta else self.p
        return f"p={p:.4g}, temperature={self.member.temperature}" + Keyed.extra_repr(self)


def layer(member: Member, *, seed: int | Key | None = None) -> Keyed:
    """`multidrop.layer`."""
    return from_table(_OfSettings.layers, member, seed)
