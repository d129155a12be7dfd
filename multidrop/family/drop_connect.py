"""Dropout of weights."""

from __future__ import annotations

from dataclasses import dataclass

from ._member import MaskMember, rate


@dataclass(frozen=True)
class DropConnect(MaskMember):
    """Drops each weight of a layer separately. X is the weight tensor; the layer computes with the output.

    The paper draws a mask for each example. This draws one for the batch, so that the layer is still one matrix
    product.

    Source: L. Wan et al., "Regularization of neural networks using DropConnect", ICML 2013.

    Args:
        p: the probability that a weight is dropped, in [0, 1].

    Raises:
        ValueError: for a bad probability.
    """

    p: float = rate(0.5)

    of_weights = True
