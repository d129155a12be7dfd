"""Masks of its own for each rank of `torch.distributed`, by one saved key."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from multidrop import checks
from multidrop.spec import masks

from .draw import scaled
from .keyed import Keyed
from .ranks import holders, mesh_ranks

Module = TypeVar("Module", bound=nn.Module)


def per_rank(model: Module, mesh: Any = None) -> Module:
    """Gives each rank masks of its own: the keyed layers of a model drop by `key.fold_in("rank").fold_in(place)`, where
    `place` is the rank's place in `mesh`, found at each call.

        net = DistributedDataParallel(per_rank(net))
        fully_shard(per_rank(net, mesh["replicate", "shard"]), mesh=mesh)

    The saved key stays the same on all ranks, so that it does not matter which rank's state is saved, broadcast or
    loaded. The mark is the attribute `ranks` of each layer: copies and pickles of a model have it, its `state_dict` has
    not, and `layer.ranks = None` removes it. Layers without a key follow each rank's generator already.

    A distributed tensor has one mask over all ranks that hold a part of it. The place is then the first that `mesh` has
    among those ranks, so that only groups of ranks with different data have different masks.

    Args:
        model: a module, wrapped by `torch.distributed` or not yet.
        mesh: the ranks whose data differ: a `DeviceMesh`, such as the data-parallel dimensions of a larger one, or a
            process group. Without one, all ranks.

    Returns:
        The model.

    Raises:
        ValueError: for a model without keyed layers.
        TypeError: for another `mesh`.
    """
    layers = [layer for layer in model.modules() if isinstance(layer, Keyed) and layer.keyed]
    if not layers:
        raise ValueError(
            "model: expected one with keyed dropout layers, such as those of multidrop.convert(model, seed=0); got "
            f"{checks.shown(model)}"
        )
    ranks = _ranks_of(mesh)
    for layer in layers:
        layer.ranks = ranks
    return model


def _ranks_of(mesh: Any) -> tuple[int, ...]:
    """The global ranks of a mesh or group, in its order; () for all."""
    if mesh is None:
        return ()
    if isinstance(mesh, dist.ProcessGroup):
        return tuple(dist.get_process_group_ranks(mesh))
    if isinstance(mesh, dist.DeviceMesh):
        return mesh_ranks(mesh)
    raise TypeError(f"mesh: expected a DeviceMesh, a process group or None; got {checks.shown(mesh)}")


def _operator(name: str) -> Any:
    return getattr(torch.ops.multidrop, name).default


def _drop_distributed(X: Any, position: Tensor, p: float, start: int, axes: tuple[int, ...]) -> Tensor:
    """This rank's part of the mask. Where its rows follow one another in the whole tensor, that is the mask from the
    first of them on; else the whole mask is drawn."""
    X = _in_blocks(X)
    local, first = X.to_local(), _first(X)
    if first is None:
        return torch.empty_like(X)
    whole, part = masks.drawn_shape(tuple(X.shape), axes), masks.drawn_shape(tuple(local.shape), axes)
    if whole[1:] == part[1:]:
        offset = 0 if not whole or whole[0] == 1 else first[0] * math.prod(whole[1:])
        start = start + offset
        Y = _operator("drop")(local, position, p, start - 2**64 if start >= 2**63 else start, axes)
    else:
        ones = torch.ones(whole, dtype=torch.float32, device=local.device)
        keep = _narrowed(_operator("drop")(ones, position, p, start, ()) != 0, part, first)
        Y = torch.where(keep, scaled(local, p), torch.zeros((), dtype=local.dtype, device=local.device))
    return _distributed(Y, X)


def _over_the_whole(name: str) -> Callable[..., Tensor]:
    """The rule for an operator whose result at an element may depend on any other: it runs on the whole tensor on each
    rank, which gathers it first."""

    def rule(X: Any, *arguments: Any) -> Tensor:
        X = _in_blocks(X)
        whole = X.redistribute(placements=[_replicate()] * X.device_mesh.ndim)
        Y = _operator(name)(whole.to_local(), *arguments)
        output: Tensor = _distributed(Y, whole).redistribute(placements=X.placements)
        return output

    return rule


def _uniform_distributed(X: Any, position: Tensor, start: int) -> Tensor:
    X = _in_blocks(X)
    local = X.to_local()
    numbers = _operator("uniform")(local.new_empty(X.shape), position, start)
    return _distributed(_narrowed(numbers, tuple(local.shape), _first(X) or [0] * X.ndim).clone(), X)


def _on_rank(position: Tensor, X: Tensor, ranks: list[int], _: list[int]) -> Tensor:
    return _operator("on_rank")(position, None, ranks, holders(X))


def _replicate() -> Any:
    module: Any = sys.modules["torch.distributed.tensor"]
    return module.Replicate()


def _in_blocks(X: Any) -> Any:
    """X, sharded so that each rank holds one block of it. A tensor that is a sum over ranks is added up first, as torch
    does for what is not linear to the last bit."""
    module: Any = sys.modules["torch.distributed.tensor"]
    placements = [each if type(each) in (module.Shard, module.Replicate) else _replicate() for each in X.placements]
    return X if placements == list(X.placements) else X.redistribute(placements=placements)


def _first(X: Any) -> list[int] | None:
    """The index in X of the first element of this rank's block; None where the rank has no part of X."""
    places = X.device_mesh.get_coordinate()
    if places is None:
        return None
    first, sizes = [0] * X.ndim, list(X.shape)
    for place, count, placement in zip(places, X.device_mesh.shape, X.placements, strict=True):
        if placement.is_shard():
            axis = placement.dim
            chunk = -(-sizes[axis] // count)  # torch.chunk's
            begin = min(chunk * place, sizes[axis])
            first[axis] += begin
            sizes[axis] = min(chunk, sizes[axis] - begin)
    return first


def _narrowed(Y: Tensor, shape: tuple[int, ...], first: list[int]) -> Tensor:
    """The block of a shape that begins at an index."""
    for axis, (size, begin) in enumerate(zip(shape, first, strict=True)):
        if size != Y.shape[axis]:
            Y = Y.narrow(axis, begin, size)
    return Y


def _distributed(Y: Tensor, X: Any) -> Any:
    """A distributed tensor like X, of this rank's part."""
    return type(X).from_local(Y, X.device_mesh, X.placements, run_check=False, shape=X.shape, stride=X.stride())


RULES: dict[str, Any] = {
    "drop": _drop_distributed,
    "drop_scheduled": _over_the_whole("drop_scheduled"),
    "member_values": _over_the_whole("member_values"),
    "uniform": _uniform_distributed,
    "on_rank": _on_rank,
}
"""What multidrop's operators do with a distributed tensor."""
