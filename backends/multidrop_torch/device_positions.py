"""Positions in a GPU's memory: taken from streams, or drawn by the GPU's generator, without waiting for the GPU.

A position is an int64 tensor (seed, call) in two's complement, which names a mask.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .internals import raw_stream
from .launch import program

POSITIONS = 64  # allocated at once


def take(stream: Tensor, position: Tensor | None = None) -> Tensor:
    """The position that a stream on a GPU holds, new or in the tensor that is given. The stream moves on by one
    call, in the order of the CUDA stream."""
    if position is None:
        position = new_position(stream.device)
    launch = program("triton_positions", "take", (torch.int64,) * 2, stream.get_device(), (), 1)
    launch(1, (stream, position))
    return position


def drawn(place: torch.device, position: Tensor | None = None) -> Tensor:
    """A position that the CUDA generator of a GPU draws, the one that `torch.manual_seed` seeds, also when a CUDA graph
    is captured and replayed: a seed and a call in [0, 2^63). It is new, or written to the tensor that is given."""
    return (new_position(place) if position is None else position).random_()


def new_position(place: torch.device) -> Tensor:
    """Memory for a position on a GPU: one of those that were allocated together, which takes a tenth of the time; while
    a CUDA graph is captured, one of the graph's own."""
    if place.type == "cpu" or torch.cuda.is_current_stream_capturing():
        return torch.empty(2, dtype=torch.int64, device=place)
    index = torch.cuda.current_device() if place.index is None else place.index
    at = index, raw_stream(index)
    try:
        return _free[at].pop()
    except (KeyError, IndexError):
        with torch.inference_mode(False):
            made = torch.empty(POSITIONS, 2, dtype=torch.int64, device=place).unbind()
        _free[at] = list(made[1:])
        return made[0]


_free: dict[tuple[int, int], list[Tensor]] = {}


def counter(near: Tensor) -> Tensor:
    """What counts the programs that are done, in launches that take a position: a 0, of the current CUDA stream, whose
    launches follow each other."""
    index = near.get_device()
    place = index, 0 if index < 0 else raw_stream(index)
    counter = _counters.get(place)
    if counter is None:
        with torch.inference_mode(False):
            counter = _counters[place] = torch.zeros(1, dtype=torch.int64, device=near.device)
    return counter


_counters: dict[tuple[int, int], Tensor] = {}


def capturing(X: Tensor) -> bool:
    """Whether the current CUDA stream records what runs into a graph."""
    return X.is_cuda and torch.cuda.is_current_stream_capturing()
