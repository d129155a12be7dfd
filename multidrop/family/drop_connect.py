"""Dropout of weights."""

from __future__ import annotations

from dataclasses import dataclass

from ._member import MaskMember, rate


@dataclass(frozen=True)
class DropConnect(MaskMember):
    """Drops each weight of a layer by itself. X is the weight, and the layer computes with the output in its place.

    The paper draws a mask for each example; one for the batch, as here, is what leaves a matrix product a matrix
    product.

    Source: L. Wan et al., "Regularization of neural networks using DropConnect", ICML 2013.

    Args:
        p: the probability that a weight is dropped, in [0, 1].

    Raises:
        ValueError: for a bad probability.
    """

    p: float = rate(0.5)
