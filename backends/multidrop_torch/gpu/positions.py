"""Positions in a GPU's memory: taken from streams, or drawn by the GPU's generator, without waiting for the GPU.

A position is an int64 tensor (seed, call) in two's complement, which names a mask.

The host counts along while all calls of a stream come from it: a kernel gets its key as arguments, and writes the next
position to the stream. Once a CUDA graph or a compiled program has taken from a stream, which may do so again unseen,
or something else has written to it, the GPU alone knows the position, and kernels read it there.
"""

from __future__ import annotations

import itertools
import weakref

import torch
from torch import Tensor

from multidrop.spec.keys import Key

from ..internals import raw_stream, stream_captures, version_of
from .launch import program

POSITIONS = 64  # allocated at once


def follow(stream: Tensor, key: Key) -> None:
    """Has the host count the calls of a new stream on a GPU, which stands at `key`."""
    address, version = stream.data_ptr(), version_of(stream)
    if version is not None:
        _counts[address] = version, key.seed, itertools.count(key.call)
        weakref.finalize(stream, _counts.pop, address, None)


def written(stream: Tensor) -> None:
    """Says that a stream was written to. The host counts on from there, if it counted until then."""
    address, version = stream.data_ptr(), version_of(stream)
    if version is not None and _counts.get(address) is not None:
        seed, call = stream.tolist()
        _counts[address] = version, seed % 2**64, itertools.count(call % 2**64)


def leave(stream: Tensor) -> None:
    """Leaves the counting of a stream's calls to the GPU, for as long as the stream lasts."""
    if stream.data_ptr() in _counts:
        _counts[stream.data_ptr()] = None


def counted(stream: Tensor) -> Key | None:
    """The next key of a stream, which the caller is to have a kernel write; None where the host does not know it."""
    count = _counts.get(stream.data_ptr())
    if count is None:
        return None
    version, seed, calls = count
    if version != version_of(stream) or capturing(stream):
        leave(stream)
        return None
    return Key.of_words(seed, next(calls) % 2**64)


_counts: dict[int, tuple[int, int, itertools.count[int]] | None] = {}  # by address


def take(stream: Tensor, position: Tensor | None = None) -> Tensor:
    """The position that a stream on a GPU holds, new; or in the tensor that is given for a program, which may run again
    unseen. The stream moves on by one call, in the order of the CUDA stream."""
    if position is None:
        counted(stream)  # the kernels that read a position are those that a CUDA graph needs later
        position = new_position(stream.device)
    else:
        leave(stream)
    launch = program("position_kernels", "take", (torch.int64,) * 2, stream.get_device(), (), 1)
    launch(1, (stream, position))
    return position


def drawn(place: torch.device, position: Tensor | None = None) -> Tensor:
    """A position that the CUDA generator of a GPU draws, the one that `torch.manual_seed` seeds, also when a CUDA graph
    is captured and replayed: a seed and a call in [0, 2^63). It is new, or written to the tensor that is given."""
    return (new_position(place) if position is None else position).random_()


def new_position(place: torch.device) -> Tensor:
    """Memory for a position on a GPU: one of those that were allocated together, which takes a tenth of the time; while
    a CUDA graph is captured, one of the graph's own."""
    if place.type == "cpu" or stream_captures():
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
    return X.is_cuda and stream_captures()
