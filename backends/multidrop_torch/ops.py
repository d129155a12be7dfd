"""What runs below autograd: a dropout on a tensor's own memory, the positions of streams, and both as custom operators
for programs that torch traces (`torch.compile`, `torch.export`).

A traced program holds a mask's name as a *position*, an int64 tensor (seed, call) in two's complement, which it takes
from a stream in each run. To take one and to use it are two operators, for one that changes a tensor cannot have a
gradient; where none is wanted, they are one. And taking is opaque: a counter whose arithmetic the compiler sees is one
that it may read again in the backward pass, when the counter has moved on.
"""

from __future__ import annotations

import inspect
import itertools
import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import get_proxy_mode
from torch.utils import checkpoint

from multidrop import checks, host, streams
from multidrop.host import memory
from multidrop.spec import masks
from multidrop.spec.keys import Key
from multidrop.spec.masks import Mask

from . import device

NAMES = {getattr(torch, name): name for name in checks.FLOATING}


def drop(X: Tensor, mask: Mask, relu: bool = False) -> Tensor:
    """X, or max(X, 0), through a mask, without a gradient: a new tensor, in X's layout where that is
    dense."""
    if X.is_cpu:
        return _drop_on_host(X, mask, relu)
    if device.fits(X):
        return device.drop(X, mask, relu)
    return drop_by_operators(rectified(X) if relu else X, mask)


def rectified(X: Tensor) -> Tensor:
    """max(X, 0): +0 for what is not above 0, where `torch.relu` keeps -0, and NaN for NaN."""
    return torch.nn.functional.threshold(X, 0.0, 0.0)


def _drop_on_host(X: Tensor, mask: Mask, relu: bool) -> Tensor:
    """By the fused kernel, from address to address."""
    address = X.data_ptr()
    if not address and X.numel():  # a zero that autograd made up, or a tensor that is made of others
        return drop_by_operators(rectified(X) if relu else X, mask)
    if X.is_neg():
        return _drop_on_host(X.resolve_neg(), mask, relu)
    (p, key, start, axes), name = mask, NAMES[X.dtype]
    if isinstance(key, Tensor):
        key = key_at(key)
    if X.is_contiguous() and not axes:
        Y = _empty_like(X)
        host.drop(address, Y.data_ptr(), X.numel(), name, p, key, start, relu=relu)
        return Y
    if not torch.ops.aten.is_non_overlapping_and_dense.default(X):
        X = torch.empty_like(X).copy_(X)  # which lies as the result is to lie
    bits = (X.view(torch.int16) if X.dtype == torch.bfloat16 else X).numpy()
    return torch.from_numpy(host.dropout(bits, p, key, start, axes=axes, dtype=name, relu=relu)).view(X.dtype)


def drop_(X: Tensor, mask: Mask) -> Tensor:
    """`drop` in place."""
    if not X.is_cpu and device.fits(X):
        return device.drop_(X, mask)
    address = X.data_ptr() if X.is_cpu else 0
    if not address or not X.is_contiguous() or X.is_neg() or mask.axes:
        return X.copy_(drop(X, mask))
    host.drop(address, address, X.numel(), NAMES[X.dtype], mask.p, known(mask.key), mask.start)
    if not X.is_inference():
        torch.autograd.graph.increment_version(X)  # which autograd looks at, and the kernel does not move
    return X


def relu_gradient(dY: Tensor, Y: Tensor, p: float) -> Tensor:
    """The gradient of a `drop` with ReLU whose output is Y, from dY, the one with respect to Y."""
    if not dY.is_cpu and not is_batched(dY) and device.fits(dY) and device.fits(Y):
        return device.relu_gradient(dY, Y, p)
    if not dY.is_cpu or is_batched(dY) or not (dY.data_ptr() and Y.data_ptr()):
        return torch.where(Y == 0, torch.zeros((), dtype=dY.dtype, device=dY.device), _scaled(dY, p))
    dY, Y = dY.resolve_neg().contiguous(), Y.contiguous()
    dX = _empty_like(dY)
    host.gate(dY.data_ptr(), dX.data_ptr(), dY.numel(), NAMES[dY.dtype], p, Y.data_ptr())
    return dX


def drop_by_operators(X: Tensor, mask: Mask) -> Tensor:
    """By the mask itself, on the tensor's device. A nested tensor gets the mask of its values, one after the
    other; one that is distributed that of the whole, of which each rank draws all and keeps its part."""
    if X.layout is torch.jagged:
        jagged: Any = X
        return torch.nested.nested_tensor_from_jagged(drop(X.values(), mask), jagged.offsets())
    drawn = masks.drawn_shape(tuple(X.shape), mask.axes)
    keep = keep_mask(drawn, mask.p, mask.key, mask.start, X.device)
    distributed: Any = sys.modules.get("torch.distributed.tensor")  # there, where something has imported it
    if distributed and isinstance(X, distributed.DTensor):
        whole = keep.expand(X.shape)
        keep = distributed.distribute_tensor(whole, X.device_mesh, X.placements, src_data_rank=None)
    return torch.where(keep, _scaled(X, mask.p), torch.zeros((), dtype=X.dtype, device=X.device))


def keep_mask(
    shape: int | Sequence[int], dropout: float, key: int | Key | Tensor, start: int, place: torch.device | str
) -> Tensor:
    """`multidrop.keep_mask` as a bool tensor: drawn where it is to be, or on the host and brought there."""
    place = torch.device(place)
    if device.draws(place):
        return device.keep_mask(shape, dropout, key, start, place)
    return torch.from_numpy(host.keep_mask(shape, dropout, known(key), start)).to(place)


def is_batched(dY: Tensor) -> bool:
    """Whether a gradient stands for several, without memory of its own: torch takes them at once where `vmap` is around
    the backward pass alone, and for `is_grads_batched`."""
    functorch = torch._C._functorch
    return functorch.is_functorch_wrapped_tensor(dY) or functorch.is_legacy_batchedtensor(dY)


def is_legacy_batched(dY: Tensor) -> bool:
    """`is_batched`, of `is_grads_batched` alone, whose tensors no function of autograd takes."""
    return torch._C._functorch.is_legacy_batchedtensor(dY)


def _scaled(X: Tensor, p: float) -> Tensor:
    compute = torch.float64 if X.dtype == torch.float64 else torch.float32
    return (X.to(compute) * torch.tensor(masks.scale(p, NAMES[X.dtype]), dtype=compute, device="cpu")).to(X.dtype)


def _empty_like(X: Tensor) -> Tensor:
    size = X.nbytes
    if size < memory.LARGE:
        return torch.empty_like(X)
    return torch.from_numpy(memory.empty((size,), np.uint8)).view(X.dtype).view(X.shape)


def position_of(key: Key) -> Tensor:
    """A key as a position."""
    return torch.tensor([word - 2**64 if word >= 2**63 else word for word in (key.seed, key.call)], device="cpu")


def signed(start: int) -> int:
    """An index in two's complement, as an operator takes it."""
    return start - 2**64 if start >= 2**63 else start


def key_at(position: Tensor) -> Key:
    """The key that a position holds."""
    seed, call = position.tolist()
    return Key.of_words(seed % 2**64, call % 2**64)


def known(key: Any) -> Any:
    """A key as the host knows it; a position on a GPU is waited for."""
    return key_at(key) if isinstance(key, Tensor) else key


def by_kernels(position: Tensor) -> Key | Tensor:
    """What names a mask, from a position: the position itself, where kernels can read it on a GPU, or the key there."""
    return position if position.is_cuda and device.draws(position.device) else key_at(position)


def next_key(stream: Tensor) -> Key | Tensor:
    """The key of the position that `stream` holds, which it moves on by one call; on a GPU, the position, which
    the host does not wait for. What activation checkpointing recomputes gets that of the first time, and moves nothing.

    Raises:
        RuntimeError: in a backward pass, where there is nothing to tell which call is recomputed.
    """
    if _backward_pass() != -1:
        return _recomputed()
    if type(stream) is not Tensor and hasattr(stream, "to_local"):
        stream = stream.to_local()  # of a distributed model, each rank its own
    if stream.is_cpu and stream.is_contiguous():
        key: Key | Tensor = host.take(stream.data_ptr())
    elif type(stream) is Tensor and stream.is_cuda and stream.is_contiguous() and device.draws(stream.device):
        key = device.take(stream)
    else:
        with streams.lock:
            key = key_at(stream)
            stream[1] += 1  # wraps from 2^63 − 1 to −2^63, as two's complement is to
    # What torch.utils.checkpoint runs for the first time runs without gradients, or with its hooks on saved tensors.
    hooks = _saved_tensors_hooks(True)
    if (hooks is not None or not torch.is_grad_enabled()) and (parts := _checkpointed(hooks)):
        _remember(parts, draw_key(), key)
    return key


def may_be_checkpointed() -> bool:
    """Whether activation checkpointing may run a part of the forward now: it does without gradients, with its hooks on
    saved tensors, or in a backward pass."""
    return _saved_tensors_hooks(True) is not None or not torch.is_grad_enabled() or _backward_pass() != -1


def below_transforms(take: Callable[[Tensor], Key | Tensor], stream: Tensor) -> Key | Tensor:
    """`take(stream)` for a call within `torch.func`, which would wrap the stream, whose memory is then out of reach,
    and have `vmap` draw a number for each example, where one names the mask of all.

    Raises:
        RuntimeError: for keyed streams that were stacked, each to name masks of its own.
    """
    functorch = torch._C._functorch
    while functorch.is_functorch_wrapped_tensor(stream):
        stream = functorch.get_unwrapped(stream)
    if stream.ndim > 1 and take is next_key:
        raise RuntimeError(
            f"stream: expected the position of one layer; got those of {len(stream)}: build layers that "
            "torch.func.stack_module_state stacks unseeded, to follow torch's generator"
        )
    with torch._C._DisableFuncTorch():
        return take(stream)


_backward_pass = torch._C._current_graph_task_id  # its number; -1 outside of one
_saved_tensors_hooks = torch._C._autograd._top_saved_tensors_default_hooks

# Activation checkpointing runs a part of the forward again in the backward, with torch's generator set back to where it
# was. So a number that the generator draws there names the call within the part: it is drawn again when the call is
# recomputed. What a part took is kept with what torch keeps of it.
_CALLS = "_multidrop_calls"


def _checkpointed(hooks: tuple[Callable[..., Any], ...] | None = None) -> list[Any]:
    """What `torch.utils.checkpoint` keeps of the parts that it runs now, the innermost first, where it does: the
    context of its autograd function, or its frame.

    Args:
        hooks: those on saved tensors, which may be of a part that is not run by a call.
    """
    parts, filename = [], checkpoint.__file__
    if hooks and hooks[0].__code__.co_filename == filename:
        parts.append(inspect.getclosurevars(hooks[0]).nonlocals["frame"])
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code.co_filename == filename:
            held = frame.f_locals
            if "ctx" in held:
                parts.append(held["ctx"])
            elif frame.f_code.co_name == "unpack_hook":
                parts.append(held["frame"])
            elif (generator := held.get("gen")) is not None and generator.gi_frame is not None:
                parts.append(generator.gi_frame.f_locals["new_frame"])
        frame = frame.f_back
    return parts


def _remember(parts: list[Any], name: Key, key: Key | Tensor) -> None:
    for part in parts:
        vars(part).setdefault(_CALLS, {})[name] = key


def _recomputed() -> Key | Tensor:
    if parts := _checkpointed():
        name = draw_key()
        for part in parts:
            key: Key | Tensor | None = vars(part).get(_CALLS, {}).get(name)
            if key is not None:
                _remember(parts, name, key)
                return key
    raise RuntimeError(
        "expected a forward pass, or one that torch.utils.checkpoint recomputes with preserve_rng_state=True, its "
        "default; got a keyed dropout in a backward pass, where it would draw another mask than the first time: "
        "give dropout_layer a key, or build the layer unseeded, to follow torch's generator"
    )


def drawn_key(stream: Tensor) -> Key:
    """A key that torch's generator draws; `stream`, which is not keyed, is left at the call after it, for
    `multidrop.last_mask` to look at."""
    key = draw_key()
    if stream.is_cpu and _backward_pass() == -1:
        stream.numpy().view(np.uint64)[:] = key.seed, 1
    return key


def draw_key() -> Key:
    """A key from torch's default generator, the one that `torch.manual_seed` seeds and `fork_rng` restores."""
    return Key(int(torch.randint(-(2**63), 2**63 - 1, (), device="cpu")) % 2**64)


_library = torch.library.Library("multidrop", "DEF")


def operator(schema: str, *, composed: bool = False) -> Callable[[Callable[..., Tensor]], Callable[..., Tensor]]:
    """Registers a function as an operator for the tensors of every device: below autograd, or where it is composed of
    operators and has a gradient by them, above."""
    _library.define(schema, tags=torch.Tag.pt2_compliant_tag)

    def register(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        kind = "CompositeImplicitAutograd" if composed else "CompositeExplicitAutograd"
        _library.impl(schema.partition("(")[0], function, kind)
        return function

    return register


# Defined by schema, and not by `torch.library.custom_op`, whose wrappers take as long as a small dropout itself.


@operator("take(Tensor(a!) stream, bool keyed) -> Tensor")
def _take(stream: Tensor, keyed: bool) -> Tensor:
    """The position of a keyed stream, which moves on; of one that is not keyed, a position whose seed torch's generator
    draws."""
    if stream.is_cuda and device.draws(stream.device) and not (keyed and may_be_checkpointed()):
        # A CUDA graph of `torch.compile` may keep it, and takes no memory that was allocated with other positions.
        fresh = torch.empty_like(stream)
        return device.take(stream, fresh) if keyed else device.drawn(stream.device, fresh)
    if not keyed:
        return position_of(drawn_key(stream)).to(stream.device)
    key = next_key(stream)
    if isinstance(key, Tensor):
        return key.clone()
    words = np.array((key.seed, key.call), np.uint64).view(np.int64)
    position = torch.from_numpy(words)  # in a third of the time of `torch.tensor`, which a compiler would trace
    return position if stream.is_cpu else position.to(stream.device)


@torch.library.register_fake("multidrop::take")
def _(stream: Tensor, keyed: bool) -> Tensor:
    return stream.new_empty(2)


@operator("drop(Tensor X, Tensor position, float p, SymInt start, int[] axes) -> Tensor")
def _drop(X: Tensor, position: Tensor, p: float, start: int, axes: Sequence[int]) -> Tensor:
    """X through the mask at a position."""
    return drop(X, _mask(p, by_kernels(position), start, axes))


@torch.library.register_fake("multidrop::drop")
def _(X: Tensor, position: Tensor, p: float, start: int, axes: Sequence[int]) -> Tensor:
    if X.device.type == "cuda":
        from .pointwise import fuse

        fuse()
    return torch.empty_like(X)


@operator("next(Tensor X, Tensor(a!) stream, bool keyed, float p, SymInt start, int[] axes) -> Tensor")
def _next(X: Tensor, stream: Tensor, keyed: bool, p: float, start: int, axes: Sequence[int]) -> Tensor:
    """`take` and `drop` in one, where no gradient needs the position."""
    if not keyed and device.fits(X):
        return drop(X, _mask(p, device.drawn(X.device), start, axes))
    key = next_key(stream) if keyed else drawn_key(stream)
    return drop(X, _mask(p, key, start, axes))


def _mask(p: float, key: Key | Tensor, start: int, axes: Sequence[int] | None) -> Mask:
    """A mask by the arguments of an operator, which has `start` in two's complement; a program that is compiled ahead
    of time gives None for no axes."""
    return Mask(p, key, start % 2**64, tuple(axes or ()))


@torch.library.register_fake("multidrop::next")
def _(X: Tensor, stream: Tensor, keyed: bool, p: float, start: int, axes: Sequence[int]) -> Tensor:
    return torch.empty_like(X)


_take_in_program, drop_values, _next_in_program = (
    getattr(torch.ops.multidrop, name).default for name in ("take", "drop", "next")
)


@operator("position(Tensor(a!) stream, bool keyed) -> Tensor", composed=True)
def _position(*arguments: Any) -> Tensor:
    """`take`, once in each run of a program."""
    return _once(_take_in_program, *arguments)


@operator("values(Tensor X, Tensor(a!) stream, bool keyed, float p, SymInt start, int[] axes) -> Tensor", composed=True)
def _values(*arguments: Any) -> Tensor:
    """`next`, once in each run of a program."""
    return _once(_next_in_program, *arguments)


def _once(operator: Callable[..., Tensor], *arguments: Any) -> Tensor:
    """What an operator gives. In a program that is to recompute a part of it in its backward pass, as under
    `torch.utils.checkpoint`, what moved a stream on is kept, for it would move it again."""
    mode = get_proxy_mode()
    if mode is None:
        return operator(*arguments)
    nodes = mode.tracer.graph.nodes
    count = len(nodes)
    Y = operator(*arguments)
    for node in itertools.islice(reversed(nodes), len(nodes) - count):
        if "recompute" in node.meta:
            node.meta["recompute"] = checkpoint.CheckpointPolicy.MUST_SAVE
    return Y


take, next_values = torch.ops.multidrop.position.default, torch.ops.multidrop.values.default


class _Dropout(torch.autograd.Function):
    """The operator, whose gradient keeps the position, 16 bytes."""

    @staticmethod
    def forward(X: Tensor, position: Tensor, *rest: Any) -> Tensor:
        return drop_values(X, position, *rest)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, position, *ctx.rest = inputs
        ctx.save_for_backward(position)

    @staticmethod
    def backward(ctx: Any, dY: Tensor) -> tuple[Tensor | None, ...]:
        (position,) = ctx.saved_tensors
        return dropout(dY, position, *ctx.rest), None, None, None, None


@operator("dropout(Tensor X, Tensor position, float p, SymInt start, int[] axes) -> Tensor", composed=True)
def _dropout(X: Tensor, *arguments: Any) -> Tensor:
    """`drop` with a gradient."""
    if X.requires_grad and torch.is_grad_enabled():
        return _Dropout.apply(X, *arguments)
    return drop_values(X, *arguments)


dropout = torch.ops.multidrop.dropout.default
