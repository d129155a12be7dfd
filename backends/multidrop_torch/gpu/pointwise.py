"""A dropout that Inductor fuses with its neighbours on a GPU.

A kernel of its own between two pointwise operations costs a pass over memory, since a compiler cannot look into it. So
Inductor learns how to compute a dropout, in one of two forms:

- *Drawn*: the fused code computes the mask. Eight elements share a block of the generator, which a thread draws once
  for those that it holds. This costs little where threads hold consecutive elements, as in pointwise code, and much
  within a fused reduction, where each element would pay for a block alone.
- *Read*: a kernel draws the mask before, one bit an element, and the fused code reads the bits.

Either way the backward pass draws again, and nothing is kept for it.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from multidrop import host
from multidrop.spec import masks
from multidrop.spec.masks import Mask

from .. import gpu, programs
from ..internals import compiler
from ..on_host import NAMES
from ..position import by_kernels, known
from . import assembly

SMALL = 2**18
"""The elements for which a second launch costs more than to draw a block for each."""

KERNELS = ("mm", "addmm", "bmm", "baddbmm", "convolution", "convolution_backward", "_scaled_dot_product", "multidrop::")
"""How the names of operators begin that Inductor does not fuse with what is before and after them."""

VIEWS = ("view", "_unsafe_view", "reshape", "unsqueeze", "squeeze", "clone")
"""The operators that leave the elements in their order."""

Byte: TypeAlias = Callable[[Any, Sequence[Any]], Any]
"""Gives the byte that has the mask of an element's block, from the element's index in the mask and its place."""


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


@cache
def fuse() -> None:
    """Tells Inductor how to compute `multidrop::drop`."""
    inductor = compiler.inductor()
    if inductor is None:
        return
    apart = inductor.apart(programs.drop_values)

    def lower(X: Any, *rest: Any) -> Any:
        return _Dropout(inductor, X, *rest).fused() if fuses(X.get_device()) else apart(X, *rest)

    inductor.register(programs.drop_values, lower)


def fuses(place: torch.device) -> bool:
    """Whether a dropout on a device is fused. On a CPU it stays an operator, the fastest there."""
    return place.type == "cuda"


class _Dropout:
    """A call of `multidrop::drop` in Inductor's terms.

    Args:
        inductor: see `internals.compiler`.
        X, position: the operator's tensors, as Inductor knows them.
        p, start, axes: the mask.
    """

    def __init__(self, inductor: Any, X: Any, position: Any, p: float, start: Any, axes: Sequence[int] | None) -> None:
        self.inductor, self.ops = inductor, inductor.ops
        self.X, self.position, self.p, self.start = X, position, p, start
        self.sizes, axes = list(X.get_size()), tuple(axes or ())
        drawn = masks.drawn_shape(tuple(self.sizes), axes)
        self.count = math.prod(drawn)
        self.steps = [0 if axis in axes else math.prod(drawn[axis + 1 :]) for axis in range(len(drawn))]
        self.wide = not inductor.below(self.count + 8, 2**31)
        self.index = torch.int64 if self.wide else torch.int32

    def fused(self) -> Any:
        """The output, computed where it is used."""
        ops, place, dtype = self.ops, self.X.get_device(), self.X.get_dtype()
        draws = place.type == "cuda" and self._draws()
        byte = self._drawn() if draws else self._read(place)
        load, compute = self.X.make_loader(), torch.float64 if dtype == torch.float64 else torch.float32
        scale = masks.scale(self.p, NAMES[dtype])

        def value(where: Sequence[Any]) -> Any:
            at = self._at(where, self.steps) + self.start % 8
            lane = ops.bitwise_and(ops.index_expr(at, self.index), ops.constant(7, self.index))
            kept = ops.bitwise_right_shift(byte(at, where), ops.to_dtype(lane, torch.int32))
            keep = ops.ne(ops.bitwise_and(kept, ops.constant(1, torch.int32)), ops.constant(0, torch.int32))
            scaled = ops.mul(ops.to_dtype(load(where), compute), ops.constant(scale, compute))
            return ops.where(keep, ops.to_dtype(scaled, dtype), ops.constant(0.0, dtype))

        Y = self.inductor.pointwise(device=place, dtype=dtype, inner_fn=value, ranges=self.sizes)
        if draws and len(self.inductor.node().users) > 1:
            # Or each kernel that uses it would draw. Inductor itself realizes what has more than 30 operations: a drawn
            # mask together with any other.
            Y.realize()
        return Y

    def _at(self, where: Sequence[Any], steps: Sequence[Any]) -> Any:
        return sum((index * step for index, step in zip(where, steps, strict=True)), self.inductor.integer(0))

    def _drawn(self) -> Byte:
        ops, load = self.ops, self.position.make_loader()
        high, low = divmod(masks.threshold(self.p), 2**16)
        text = assembly.bytes_text(high, low, self.start % 2**64 // 8, self.wide)
        kinds = {"constraints": assembly.bytes_registers(self.wide), "dtype": torch.int32, "pack": assembly.TOGETHER}
        every = [math.prod(self.sizes[axis + 1 :]) for axis in range(len(self.sizes))]

        def byte(at: Any, where: Sequence[Any]) -> Any:
            # Assembly takes operands of one shape, but Inductor has a smaller one for what the place does not change.
            none = ops.bitwise_and(ops.index_expr(self._at(where, every), self.index), ops.constant(0, self.index))
            seed, call = (
                ops.bitwise_or(load([self.inductor.integer(word)]), ops.to_dtype(none, torch.int64))
                for word in range(2)
            )
            # An index has the type of its kernel, whatever it is asked for; assembly takes registers of one size.
            element = ops.to_dtype(ops.bitwise_or(ops.index_expr(at, self.index), none), self.index)
            return ops.inline_asm_elementwise(element, seed, call, asm=text, is_pure=True, **kinds)

        return byte

    def _read(self, place: torch.device) -> Byte:
        bits = self.inductor.apart(torch.ops.multidrop.bits.default)
        load = bits(self.position, self.count, self.p, self.start, place).make_loader()
        return lambda at, where: self.ops.to_dtype(load([self.inductor.eighth(at)]), torch.int32)

    def _draws(self) -> bool:
        """Whether the fused code is to compute the mask."""
        if not (self.inductor.assembles and isinstance(self.start, int)):
            return False
        if self.inductor.below(math.prod(self.sizes), 2):  # nothing has the shape of a place
            return False
        if self.position.get_device() != self.X.get_device() and not self.inductor.is_constant(self.position):
            return False  # the fused code reads the memory of its own GPU alone
        return self.inductor.below(math.prod(self.sizes), SMALL + 1) or _among_pointwise(self.inductor.node())


def _among_pointwise(node: Any) -> bool:
    """Whether all that Inductor may fuse with a node of its graph is pointwise, and the node's input in memory as it is
    in the mask."""
    if not node.args[0].meta["val"].is_contiguous():
        return False
    seen, waiting = {node}, [node]
    while waiting:
        each = waiting.pop()
        before = each.args[:1] if each.target is programs.drop_values else each.all_input_nodes
        for other in (*before, *each.users):
            if other in seen or other.op != "call_function" or _is_kernel(other):
                continue
            if not _is_pointwise(other):
                return False
            seen.add(other)
            waiting.append(other)
    return True


def _is_kernel(node: Any) -> bool:
    """Whether Inductor does not fuse a node with what is before it; a matrix' transpose is a part of its product."""
    if node.target is operator.getitem:  # one of several results
        return _is_kernel(node.args[0])
    name = _name(node)
    if name in ("permute", "transpose", "t"):
        return all(_is_kernel(user) for user in node.users)
    return node.target is not programs.drop_values and name.startswith(KERNELS)


def _is_pointwise(node: Any) -> bool:
    if node.target is programs.drop_values or not node.all_input_nodes:
        return True
    return torch.Tag.pointwise in getattr(node.target, "tags", ()) or _name(node) in VIEWS


def _name(node: Any) -> str:
    """An operator's name without its overload, and for one of PyTorch's without its namespace."""
    name = getattr(node.target, "name", None)
    return name().partition(".")[0].removeprefix("aten::") if callable(name) else ""
