"""The position of a stream of masks: an int64 tensor (seed, next call), each in two's complement."""

from __future__ import annotations

import torch
from torch import Tensor

from multidrop import host, streams
from multidrop.spec.keys import Key

from . import gpu, internals
from .gpu import positions


def position_of(key: Key) -> Tensor:
    """A key as a position, on the CPU."""
    return torch.tensor([word - 2**64 if word >= 2**63 else word for word in (key.seed, key.call)], device="cpu")


def key_at(position: Tensor) -> Key:
    """The key that a position holds."""
    seed, call = position.tolist()
    return Key.of_words(seed % 2**64, call % 2**64)


def move(stream: Tensor, position: Tensor) -> None:
    """Writes a position to a stream."""
    stream.copy_(position)
    if type(stream) is Tensor and stream.is_cuda:
        positions.written(stream)


def known(key: Key | Tensor) -> Key:
    """A key as the host knows it; it waits for a position on a GPU."""
    return key_at(key) if isinstance(key, Tensor) else key


def by_kernels(position: Tensor) -> Key | Tensor:
    """The key of a mask from a position: the position itself, where kernels read it on a GPU."""
    return position if position.is_cuda and gpu.draws(position.device) else key_at(position)


def signed(start: int) -> int:
    """An index in two's complement, as an operator takes it."""
    return start - 2**64 if start >= 2**63 else start


def take(stream: Tensor, memory: Tensor | None = None) -> Key | Tensor:
    """The key that a stream holds, on a GPU as a position, in `memory` if given; the stream moves on by one call."""
    if type(stream) is not Tensor and hasattr(stream, "to_local"):
        stream = stream.to_local()  # of a distributed tensor, this rank's own
    if stream.is_cpu and stream.is_contiguous():
        return host.take(stream.data_ptr())
    if stream.is_cuda and stream.is_contiguous() and gpu.draws(stream.device):
        with internals.without_modes():
            return gpu.take(stream, memory)
    with streams.lock, internals.without_modes(), torch.no_grad():
        key = key_at(stream)
        stream[1] += 1  # wraps from 2^63 − 1 to −2^63, as two's complement does
    return key


def draw_key() -> Key:
    """A key from torch's default generator, the one that `torch.manual_seed` seeds and `fork_rng` restores."""
    return Key(int(torch.randint(-(2**63), 2**63 - 1, (), device="cpu")) % 2**64)


class _Calls:
    """Calls without a key, and layers without a seed.

    Attributes:
        position: where the next call without a key stands, while `manual_seed` is in force. It is a tensor, so that a
            traced program continues from it.
        keyed: whether `manual_seed` is in force.
        drawn_in_programs: how many keys compiled programs drew from torch's generator. What a layer noted before the
            last of them may not be its last mask.
    """

    def __init__(self) -> None:
        self.position, self.keyed, self.drawn_in_programs = position_of(Key(0)), False, 0
        self.places: dict[int, Tensor] = {}
        streams.on_manual_seed(self.restart)

    def near(self, place: torch.device) -> Tensor:
        """The tensor that stands for the stream of unseeded calls in a program: on the GPU of their input, if a layer
        was moved there before, or on the CPU. There the generator of its device draws."""
        return self.places.get(place.index, self.position) if place.type == "cuda" else self.position

    def prepare(self, place: torch.device) -> None:
        """Makes `near` for a GPU, which a program that is traced cannot."""
        if place.type == "cuda" and place.index not in self.places:
            self.places[place.index] = torch.zeros(2, dtype=torch.int64, device=place)

    @property
    def stream(self) -> Tensor | None:
        """The stream of calls without a key; None where torch's generator names each mask."""
        return self.position if self.keyed else None

    def restart(self, root: Key | None) -> None:
        """Continues from where `manual_seed` with that root key begins; None: by torch's generator."""
        self.keyed = root is not None
        if root is not None:
            self.position.copy_(position_of(root.fold_in("calls")))


calls = _Calls()
