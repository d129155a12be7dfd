"""The next key of a stream, also where activation checkpointing runs a part of the forward again in the backward pass.

The recomputed part must drop by the masks of its first run, and move no stream. So the keys that a part takes are
recorded with what `torch.utils.checkpoint` keeps of it, by seed and in order: the n-th key of a seed that a
recomputation asks for is the n-th that the first run took. No random number is drawn for it, so that checkpointing
changes nothing for others.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import torch
from torch import Tensor

from multidrop.spec.keys import Key

from . import internals, position


def next_key(stream: Tensor | None, memory: Tensor | None = None) -> Key | Tensor:
    """The key of the position that a stream holds, which moves on by one call; without a stream, one that torch's
    generator draws. A recomputed forward gets the key of its first run, and moves nothing. On a GPU, a position is
    written to `memory`, if given.

    Raises:
        RuntimeError: in a backward pass where no part is recomputed, so that nothing tells which call is meant.
    """
    if stream is None:
        return position.draw_key()
    # A part runs for the first time without gradients, or under hooks on saved tensors; it is recomputed in a backward
    # pass, or under such hooks.
    if not watched():
        return position.take(stream, memory)
    backward = internals.graph_task() != -1
    first, again = internals.checkpointed_parts()
    if again is not None:
        key = _replayed(*again, stream)
    elif backward:
        raise RuntimeError(
            "expected a forward pass, or one that torch.utils.checkpoint recomputes; got a keyed dropout in a backward "
            "pass, where it would draw another mask than the first time: give dropout_layer a key, or build the layer "
            "unseeded, to follow torch's generator"
        )
    else:
        key = position.take(stream, memory)
    for part in first:
        _record_of(part).taken[_name(stream)].append(key)
    return key


def watched() -> bool:
    """Whether activation checkpointing may run a part of the forward now."""
    return (
        internals.graph_task() != -1 or internals.saved_tensors_hooks(True) is not None or not torch.is_grad_enabled()
    )


class _Record:
    """The keys that a part took.

    Attributes:
        taken: those of its first run, by seed, in order.
        replayed: how many of each seed each recomputation has asked for.
    """

    def __init__(self) -> None:
        self.taken: defaultdict[int, list[Key | Tensor]] = defaultdict(list)
        self.replayed: defaultdict[Any, Counter[int]] = defaultdict(Counter)


def _record_of(part: Any) -> _Record:
    record: _Record = vars(part).setdefault("_multidrop_record", _Record())
    return record


def _replayed(part: Any, recomputation: Any, stream: Tensor) -> Key | Tensor:
    """The key that the first run of a part took where this recomputation of it stands."""
    record = _record_of(part)
    seed = _name(stream)
    number = record.replayed[recomputation][seed]
    record.replayed[recomputation][seed] += 1
    if number >= len(record.taken[seed]):
        raise RuntimeError(
            f"expected the keys that the first run of a checkpointed part took, {len(record.taken[seed])} of seed "
            f"{seed}; got another one in its recomputation: run the same layers there, and do not key them anew before "
            "the backward pass"
        )
    return record.taken[seed][number]


def _name(stream: Tensor) -> int:
    """A stream's seed; of one on a GPU the address, because the seed would have to be waited for."""
    with internals.without_modes():
        return stream.data_ptr() if stream.is_cuda else position.key_at(stream).seed
