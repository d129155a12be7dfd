"""Dropout of whole channels for SELU networks."""

from __future__ import annotations

from dataclasses import dataclass

from ._member import CHANNELS_FIRST, CHANNELS_LAST, one_of, rate, whole_channels
from .alpha_dropout import AlphaDropout


@dataclass(frozen=True)
class FeatureAlphaDropout(AlphaDropout):
    """`AlphaDropout` of whole channels, as `SpatialDropout` drops them.

    Args:
        p: the probability that a channel is dropped, in [0, 1].
        data_format: "channels_first" for X of shape (n, c, …), "channels_last" for (n, …, c); one to three dimensions
            of positions.

    Raises:
        ValueError: for a bad probability or format.
    """

    p: float = rate(0.5)
    data_format: str = one_of(CHANNELS_FIRST, CHANNELS_LAST)

    example_shape = (3, 4, 2, 3)

    axes = whole_channels
