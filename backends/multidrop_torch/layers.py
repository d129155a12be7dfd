"""The dropout layer as a torch module."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from multidrop import checks
from multidrop.keys import Key, layer_key

from .functional import NAME, check_floating, masked_next
from .ops import key_at, position_of


class Dropout(nn.Module):
    """Zeroes each element with probability p in training mode and scales the others by 1/(1 − p); passes the input on
    in evaluation mode.

    A keyed layer keeps its position as the buffer `stream`, int64 (seed, call) as two's complement, so that
    `state_dict` carries it; a state without one, such as that of an `nn.Dropout`, loads too and leaves it as it is.

    Args:
        p: the probability that an element is dropped, in [0, 1].
        inplace: whether the result is written over the input.
        seed: an integer or a `Key`; without one, keyed by `multidrop.manual_seed`, or by torch's generator.

    Raises:
        ValueError: for a bad probability or seed.
    """

    stream: Tensor

    def __init__(self, p: float = 0.5, inplace: bool = False, *, seed: int | Key | None = None) -> None:
        super().__init__()
        self.p = checks.probability("p", p)
        self.inplace = inplace
        key = layer_key(NAME, seed)
        self.keyed = key is not None
        self.register_buffer("stream", position_of(key or Key(0)), persistent=self.keyed)

    def forward(self, X: Tensor) -> Tensor:
        check_floating(X)
        if not self.training:
            return X
        return masked_next(X, self.p, self.stream, self.keyed, inplace=self.inplace)

    def after_relu(self, X: Tensor) -> Tensor:
        """The layer's output for max(X, 0), in one pass."""
        check_floating(X)
        return masked_next(X, self.p, self.stream, self.keyed, relu=True) if self.training else torch.relu(X)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        if self.keyed:
            state_dict.setdefault(prefix + "stream", self.stream)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def extra_repr(self) -> str:
        return f"p={self.p}, inplace={self.inplace}" + (f", seed={key_at(self.stream).seed}" if self.keyed else "")
