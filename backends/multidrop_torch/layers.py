"""The dropout layer as a torch module."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from multidrop import checks
from multidrop.keys import Key, layer_key

from .functional import NAME, check_floating, draw_key, masked


class Dropout(nn.Module):
    """Zeroes each element with probability p in training mode and scales the others by 1/(1 − p); passes the input on
    in evaluation mode.

    A keyed layer keeps its position as the buffer `stream`, int64 (seed, call) as two's complement, so that
    `state_dict` carries it; a state without one, such as that of an `nn.Dropout`, loads too and leaves it as it is.

    Args:
        p: the probability that an element is dropped, in [0, 1].
        seed: an integer or a `Key`; without one, keyed by `multidrop.manual_seed`, or by torch's generator.

    Raises:
        ValueError: for a bad probability or seed.
    """

    stream: Tensor | None

    def __init__(self, p: float = 0.5, *, seed: int | Key | None = None) -> None:
        super().__init__()
        self.p = checks.probability("p", p)
        key = layer_key(NAME, seed)
        self.register_buffer("stream", None if key is None else _pack(key))

    def forward(self, X: Tensor) -> Tensor:
        check_floating(X)
        return masked(X, self.p, self._next_key()) if self.training else X

    def _next_key(self) -> Key:
        if self.stream is None:
            return draw_key()
        key = unpack(self.stream)
        self.stream[1] += 1  # wraps from 2^63 − 1 to −2^63, as two's complement is to
        return key

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        if self.stream is not None:
            state_dict.setdefault(prefix + "stream", self.stream)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def extra_repr(self) -> str:
        return f"p={self.p}" + ("" if self.stream is None else f", seed={unpack(self.stream).seed}")


def _pack(key: Key) -> Tensor:
    """A key as int64 (seed, call): torch computes with few uint64 operations."""
    return torch.tensor([word - 2**64 if word >= 2**63 else word for word in (key.seed, key.call)])


def unpack(stream: Tensor) -> Key:
    """The key that a `stream` buffer holds."""
    seed, call = stream.tolist()
    return Key(seed % 2**64, call % 2**64)
