"""Dropout of whole channels."""

from __future__ import annotations

from dataclasses import dataclass

from ._member import CHANNELS_FIRST, CHANNELS_LAST, MaskMember, one_of, rate, whole_channels


@dataclass(frozen=True)
class SpatialDropout(MaskMember):
    """Drops whole channels of sequences, images or volumes, whose neighbouring positions are correlated.

    Source: J. Tompson et al., "Efficient object localization using convolutional networks", CVPR 2015, section 3.2.

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
