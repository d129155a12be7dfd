"""A dropout that Inductor fuses with its neighbours on a GPU.

A kernel of its own between two pointwise operations costs a pass over memory, since a compiler cannot look into it. To
draw the mask within the fused code costs more: inside a reduction no thread holds eight consecutive elements, and each
would compute a whole Philox block for itself. So a kernel draws the mask, one bit an element, and the fused code reads
the bits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from multidrop import host
from multidrop.spec import masks
from multidrop.spec.masks import Mask

from .. import gpu, internals, programs
from ..on_host import NAMES
from ..position import by_kernels, known


@programs.operator("bits(Tensor position, SymInt count, float p, SymInt start, Device device) -> Tensor")
def _bits(position: Tensor, count: int, p: float, start: int, device: torch.device) -> Tensor:
    """The mask of `count` elements, one byte for each block of eight; see `multidrop_torch.gpu.bits`."""
    mask = Mask(p, by_kernels(position), start % 2**64)
    if gpu.draws(device):
        return gpu.bits(count, mask, device)
    skip = mask.start % 8
    keep = host.keep_mask(count, p, known(mask.key), mask.start)
    whole = np.concatenate([np.zeros(skip, np.bool_), keep])
    return torch.from_numpy(np.packbits(whole, bitorder="little")).to(device)


@torch.library.register_fake("multidrop::bits")
def _(position: Tensor, count: int, p: float, start: int, device: torch.device) -> Tensor:
    return torch.empty((start % 8 + count + 7) // 8, dtype=torch.uint8, device=device)


def drop(X: Tensor, position: Tensor, p: float, start: int, axes: Sequence[int]) -> Tensor:
    """`multidrop::drop` by its bits and pointwise operations.

    Args:
        X: as for `multidrop.dropout_layer`.
        position: the mask's key.
        p, start, axes: the mask.
    """
    drawn = masks.drawn_shape(tuple(X.shape), axes)
    count, skip = math.prod(drawn), start % 8
    bits: Any = torch.ops.multidrop.bits.default
    each = bits(position, count, p, start, X.device).unsqueeze(1) >> torch.arange(8, dtype=torch.uint8, device=X.device)
    keep = (each & 1).flatten()[skip : skip + count].reshape(drawn)
    compute = torch.float64 if X.dtype == torch.float64 else torch.float32
    scaled = (X.to(compute) * masks.scale(p, NAMES[X.dtype])).to(X.dtype)
    return torch.where(keep != 0, scaled, torch.zeros((), dtype=X.dtype, device=X.device))


def fuse() -> None:
    """Has Inductor take `drop` for the operator of the same name on a GPU."""
    known = internals.inductor_table()
    if known is None:
        return
    table, changed = known
    if programs.drop_values not in table:
        table[programs.drop_values] = _fused
        changed()


def _fused(X: Tensor, position: Tensor, p: float, start: int, axes: Sequence[int]) -> Any:
    return drop(X, position, p, start, axes) if X.device.type == "cuda" else NotImplemented
