"""Dropout as custom operators, for programs that torch traces: `torch.compile`, `torch.export`, `torch.jit.trace`.

A program holds a mask's key as a *position*, an int64 tensor (seed, call), which it takes from a stream in each run.
Taking one and dropping by it are two operators, because an operator that changes a tensor cannot have a gradient; where
no gradient is wanted, they are one. Taking is opaque: a compiler that saw the counter's arithmetic could read the
counter again in the backward pass, when it has moved on.

Operators are defined by schema, because the wrappers of `torch.library.custom_op` take as long as a small dropout.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakSet

import numpy as np
import torch
from torch import Tensor

from multidrop import exporting, family
from multidrop.family import Member
from multidrop.spec.keys import Key
from multidrop.spec.masks import Mask

from . import caches, draw, gpu, internals, subclasses
from .position import by_kernels, calls, key_at, position_of, signed
from .ranks import at_place, place_among
from .recomputation import next_key


def tracing() -> bool:
    """Whether what runs is traced, or runs without memory, so that operators are needed."""
    return (
        torch.compiler.is_compiling()
        or internals.jit_traces()
        or (internals.dispatch_modes() > 0 and internals.traces())
    )


def take(stream: Tensor | None, X: Tensor, ranks: tuple[int, ...] | None = None) -> Tensor:
    """The position of a stream for X, and the stream moves on by one call; without a stream, one that torch's generator
    of X's device draws. With `ranks`, it is that of this rank's place among them, which the program finds whenever it
    runs."""
    taken: Any = _take_exported if internals.exports() else _take_once
    position: Tensor = taken(calls.near(X.device) if stream is None else stream, stream is not None)
    if stream is None or ranks is None:
        return position
    on_rank: Any = torch.ops.multidrop.on_rank.default
    return on_rank(position, X.detach() if hasattr(X, "device_mesh") else None, ranks, ())


def drop_next(X: Tensor, stream: Tensor | None, p: float, start: int, axes: tuple[int, ...]) -> Tensor:
    """X through the next mask of a stream, without a gradient. X is of no subclass, which might run this twice."""
    keyed = stream is not None
    return _drop_next_once(X, stream if keyed else calls.position, keyed, p, signed(start), axes)


def drop(X: Tensor, position: Tensor, mask: Mask) -> Tensor:
    """X through the mask at a position, differentiable."""
    subclasses.ready(type(X))
    return dropout(X, position, mask.p, signed(mask.start), mask.axes)


def apply(member: Member, X: Tensor, position: Tensor, start: int) -> Tensor:
    """A member's output for X, by the numbers of a position, differentiable."""
    subclasses.ready(type(X))
    operator: Any = torch.ops.multidrop.member.default
    return operator(X, position, member.text, signed(start), False)


def without_gradient(X: Tensor) -> bool:
    """Whether a program can do without the gradient of what X goes through. `torch.compile` compiles anew where one is
    wanted later; an exported program may be trained later; within `torch.func` a tensor does not tell."""
    wanted = X.requires_grad and torch.is_grad_enabled()
    compiled = torch.compiler.is_dynamo_compiling() and not internals.exports()
    return compiled and not wanted and not internals.transforms()


def unless_evaluated(X: Tensor, Y: Tensor) -> Tensor:
    """Y; or X in an exported program that torchao's `move_exported_model_to_eval` has changed. That looks for torch's
    own dropout and turns it off: here, one of a 1 with p = 1, which gives 0 and draws nothing. Its counterpart
    `move_exported_model_to_train` puts one with p = 0.5 there, which gives 0 or 2."""
    if not internals.exports():
        return Y
    one = torch.nn.functional.dropout(torch.ones((), device=X.device), 1.0, True)
    return torch.where(one == 1.0, X, Y)


class Draw(draw.Draw):
    """The numbers of a position, for a member that learns: it draws by `uniform` alone."""

    def __init__(self, position: Tensor, start: int) -> None:
        self.position, self.start = position, start

    def uniform(self, X: Tensor) -> Tensor:
        operator: Any = torch.ops.multidrop.uniform.default
        return operator(X.detach(), self.position, signed(self.start))


_library = torch.library.Library("multidrop", "DEF")


def operator(
    schema: str, *, composed: bool = False, random: bool = False, fused: bool = False
) -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:
    """Registers a function as an operator for the tensors of every device: below autograd, or where it is composed of
    operators and gets its gradient from them, above. Compilers neither merge nor remove a random one. For one that may
    be fused, they need not bring the input into memory, in the layout that it has eagerly."""
    tags = [torch.Tag.pt2_compliant_tag]
    if random:
        tags.append(torch.Tag.nondeterministic_seeded)
    if fused and hasattr(torch.Tag, "flexible_layout"):  # older versions do so without it
        tags.append(torch.Tag.flexible_layout)
    _library.define(schema, tags=tuple(tags))

    def register(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        kind = "CompositeImplicitAutograd" if composed else "CompositeExplicitAutograd"
        name = schema.partition("(")[0]
        _library.impl(name, function, kind)
        if not composed:  # of jagged tensors `subclasses` takes care, below autograd
            _library.impl(name, torch.library.fallthrough_kernel, "AutogradNestedTensor")
        return function

    return register


_told: WeakSet[Any] = WeakSet()  # the exports, by their fake tensor modes: one runs a model several times


def _without_memory(name: str) -> Callable[[Callable[..., Tensor]], None]:
    """Registers a function as an operator for tensors without memory. Each program is traced with these, and this runs
    in Python also where Dynamo traces the model; so here an export is told what it will hold, and the program on disk
    gets its version."""

    def register(function: Callable[..., Tensor]) -> None:
        @torch.library.register_fake(f"multidrop::{name}")
        def _(X: Tensor, *rest: Any) -> Tensor:
            caches.mark()
            export = getattr(X, "fake_mode", None)
            if export is not None and internals.exports() and export not in _told:
                _told.add(export)
                exporting.tell(f"multidrop::{name}", "multidrop_torch")
            return function(X, *rest)

    return register


@operator("take(Tensor(a!) stream, bool keyed) -> Tensor")
def _take(stream: Tensor, keyed: bool) -> Tensor:
    """`take` as an operator. Without a key the stream is only named: that the operator may write to it keeps it from
    being merged with, or moved past, another one."""
    # On a GPU, memory of its own: a CUDA graph of `torch.compile` may keep it, and allows none that outlives the run.
    fresh = torch.empty_like(stream) if stream.is_cuda and gpu.draws(stream.device) else None
    if fresh is not None and not keyed:
        calls.drawn_in_programs += 1
        return gpu.drawn(stream.device, fresh)
    key = next_key(stream, fresh) if keyed else _next_key(stream, keyed)
    if isinstance(key, Tensor):
        return key if key is fresh else key.clone()
    words = np.array((key.seed, key.call), np.uint64).view(np.int64)
    position = torch.from_numpy(words)  # in a third of the time of `torch.tensor`, which a compiler would trace
    return position if stream.is_cpu else position.to(stream.device)


@_without_memory("take")
def _(stream: Tensor, keyed: bool) -> Tensor:
    return stream.new_empty(2)


@operator("take_exported(Tensor stream, bool keyed) -> Tensor", random=True)
def _take_constant(stream: Tensor, keyed: bool) -> Tensor:
    """`take` in an exported program. There the stream is a constant, which an operator may not say that it changes."""
    return _take(stream, keyed)


@_without_memory("take_exported")
def _(stream: Tensor, keyed: bool) -> Tensor:
    return stream.new_empty(2)


def _next_key(stream: Tensor, keyed: bool) -> Key | Tensor:
    if keyed:
        return next_key(stream)
    calls.drawn_in_programs += 1
    return next_key(None)


@operator("on_rank(Tensor position, Tensor? X, int[] ranks, int[] holders) -> Tensor")
def _on_rank(position: Tensor, X: Tensor | None, ranks: Sequence[int], holders: Sequence[int]) -> Tensor:
    """A position for this rank's place: see `place_among`. Of a distributed X, `subclasses` finds the
    holders."""
    place = place_among(ranks, holders)
    return position_of(at_place(key_at(position), place)).to(position.device)


@_without_memory("on_rank")
def _(position: Tensor, X: Tensor | None, ranks: Sequence[int], holders: Sequence[int]) -> Tensor:
    return torch.empty_like(position)


@operator("drop(Tensor X, Tensor position, float p, SymInt start, int[] axes) -> Tensor", fused=True)
def _drop(X: Tensor, position: Tensor, p: float, start: int, axes: Sequence[int]) -> Tensor:
    """X through the mask at a position."""
    return draw.drop(X, _mask(p, by_kernels(position), start, axes))


@_without_memory("drop")
def _(X: Tensor, position: Tensor, p: float, start: int, axes: Sequence[int]) -> Tensor:
    if X.device.type == "cuda":
        from .gpu.pointwise import fuse

        fuse()
    return torch.empty_like(X)


@operator("next(Tensor X, Tensor(a!) stream, bool keyed, float p, SymInt start, int[] axes) -> Tensor")
def _drop_next(X: Tensor, stream: Tensor, keyed: bool, p: float, start: int, axes: Sequence[int]) -> Tensor:
    """`take` and `drop` in one, where no gradient needs the position."""
    return draw.drop(X, _mask(p, _next_key(stream, keyed), start, axes))


@_without_memory("next")
def _(X: Tensor, stream: Tensor, keyed: bool, p: float, start: int, axes: Sequence[int]) -> Tensor:
    return torch.empty_like(X)


def _mask(p: float, key: Key | Tensor, start: int, axes: Sequence[int] | None) -> Mask:
    """A mask by the arguments of an operator: `start` is in two's complement, and a program that is compiled ahead of
    time passes None for no axes."""
    return Mask(p, key, start % 2**64, tuple(axes or ()))


@operator("uniform(Tensor X, Tensor position, SymInt start) -> Tensor")
def _uniform(X: Tensor, position: Tensor, start: int) -> Tensor:
    """`draw.uniform` for X's elements."""
    return draw.uniform(X.shape, by_kernels(position), start % 2**64, X.device)


@_without_memory("uniform")
def _(X: Tensor, position: Tensor, start: int) -> Tensor:
    return torch.empty(X.shape, dtype=torch.float64, device=X.device)


@operator("member_values(Tensor X, Tensor position, str member, SymInt start, bool gradient) -> Tensor")
def _member_values(X: Tensor, position: Tensor, member: str, start: int, gradient: bool) -> Tensor:
    """A member's output or its gradient, by the member's text, in X's layout."""
    Y = family.run(family.of_text(member), X, draw.Draw(by_kernels(position), start % 2**64), gradient)
    return torch.empty_like(X).copy_(Y)


@_without_memory("member_values")
def _(X: Tensor, position: Tensor, member: str, start: int, gradient: bool) -> Tensor:
    return torch.empty_like(X)


drop_values: Any
_take_in_program, drop_values, _next_in_program, _member_in_program = (
    getattr(torch.ops.multidrop, name).default for name in ("take", "drop", "next", "member_values")
)


@operator("position(Tensor(a!) stream, bool keyed) -> Tensor", composed=True)
def _position(*arguments: Any) -> Tensor:
    """`take`, once in each run of a program."""
    return _once(_take_in_program, *arguments)


_VALUES = "values(Tensor X, Tensor(a!) stream, bool keyed, float p, SymInt start, int[] axes) -> Tensor"


@operator(_VALUES, composed=True)
def _values(*arguments: Any) -> Tensor:
    """`next`, once in each run of a program."""
    return _once(_next_in_program, *arguments)


def _once(operator: Callable[..., Tensor], *arguments: Any) -> Tensor:
    """The result of an operator that moves a stream. A program that recomputes a part of itself in its backward pass,
    as under `torch.utils.checkpoint`, keeps it, because recomputing would move the stream again."""
    nodes = internals.traced_nodes()
    if nodes is None:
        return operator(*arguments)
    count = len(nodes)
    Y = operator(*arguments)
    internals.saved(itertools.islice(reversed(nodes), len(nodes) - count))
    return Y


_take_once, _drop_next_once = torch.ops.multidrop.position.default, torch.ops.multidrop.values.default
_take_exported = torch.ops.multidrop.take_exported.default


class _InProgram(torch.autograd.Function):
    """An operator of X, a position and further arguments. Its gradient keeps the position, 16 bytes."""

    @staticmethod
    def forward(X: Tensor, position: Tensor, operator: Any, gradient: Any, *rest: Any) -> Tensor:
        return operator(X, position, *rest)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, position, _, ctx.gradient, *ctx.rest = inputs
        ctx.save_for_backward(position)

    @staticmethod
    def backward(ctx: Any, dY: Tensor) -> tuple[Tensor | None, ...]:
        (position,) = ctx.saved_tensors
        return ctx.gradient(dY, position, *ctx.rest), *[None] * (3 + len(ctx.rest))


@operator("dropout(Tensor X, Tensor position, Scalar p, SymInt start, int[] axes) -> Tensor", composed=True)
def _dropout(X: Tensor, position: Tensor, p: float | torch.SymFloat, *rest: Any) -> Tensor:
    """`drop` with a gradient."""
    if isinstance(p, torch.SymFloat):
        return _scheduled(X, position, _tensor_of(p), *rest)
    if X.requires_grad and torch.is_grad_enabled():
        return _InProgram.apply(X, position, drop_values, dropout, p, *rest)
    return drop_values(X, position, p, *rest)


# A p that changes between runs, as in a schedule, is an input of the program from its first change on: torch.compile
# compiles once more, and then no longer. It knows no operator that takes such a number, but compiles arithmetic of
# tensors with it; so the operator takes a tensor.


def _tensor_of(p: Any) -> Tensor:
    return torch.ones((), dtype=torch.float64, device="cpu") * p


@operator("drop_scheduled(Tensor X, Tensor position, Tensor p, SymInt start, int[] axes) -> Tensor")
def _drop_by_tensor(X: Tensor, position: Tensor, p: Tensor, start: int, axes: Sequence[int]) -> Tensor:
    """`drop` with a p that is float64, of shape ()."""
    return draw.drop(X, _mask(p.item(), by_kernels(position), start, axes))


@_without_memory("drop_scheduled")
def _(X: Tensor, position: Tensor, p: Tensor, start: int, axes: Sequence[int]) -> Tensor:
    return torch.empty_like(X)


@operator("scheduled(Tensor X, Tensor position, Tensor p, SymInt start, int[] axes) -> Tensor", composed=True)
def _dropout_scheduled(X: Tensor, position: Tensor, *rest: Any) -> Tensor:
    """`drop_scheduled` with a gradient."""
    if X.requires_grad and torch.is_grad_enabled():
        return _InProgram.apply(X, position, _drop_scheduled, _scheduled, *rest)
    return _drop_scheduled(X, position, *rest)


_drop_scheduled, _scheduled = (getattr(torch.ops.multidrop, name).default for name in ("drop_scheduled", "scheduled"))


@operator("member(Tensor X, Tensor position, str member, SymInt start, bool gradient) -> Tensor", composed=True)
def _member(X: Tensor, position: Tensor, member: str, start: int, gradient: bool) -> Tensor:
    """`member_values` with a gradient, by which each further derivative goes too."""
    if X.requires_grad and torch.is_grad_enabled():
        return _InProgram.apply(X, position, _member_in_program, _member_gradient, member, start, gradient)
    return _member_in_program(X, position, member, start, gradient)


def _member_gradient(dY: Tensor, position: Tensor, member: str, start: int, gradient: bool) -> Tensor:
    operator: Any = torch.ops.multidrop.member.default
    return operator(dY, position, member, start, True)


dropout: Any = torch.ops.multidrop.dropout.default
