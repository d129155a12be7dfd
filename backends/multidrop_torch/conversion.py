"""This library's layers in the place of torch's, in a module that is there already."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from typing import Any, NamedTuple, cast

from torch import nn
from torch.optim import swa_utils

from multidrop import family
from multidrop.conversion import Replaced
from multidrop.spec.keys import Key
from multidrop.unreached import Unreached, unreached, unregistered

from .keyed import Keyed
from .layers import AlphaDropout, Dropout, Dropout1d, Dropout2d, Dropout3d, FeatureAlphaDropout
from .member_layers import DropPath

OURS: dict[type[nn.Module], type[Keyed]] = {
    getattr(nn, layer.__name__): layer
    for layer in (Dropout, Dropout1d, Dropout2d, Dropout3d, AlphaDropout, FeatureAlphaDropout)
}


class _Branch(NamedTuple):
    """A class of another package's that drops branches as `DropPath` does."""

    rate: str
    """The attribute that has p."""
    mode: Callable[[Any], str | None]
    """What `DropPath` calls its mode; None where it does something else."""


_BRANCHES = {
    name: _Branch("drop_prob", lambda module: "example" if getattr(module, "scale_by_keep", True) else None)
    for name in ("timm.layers.drop.DropPath", "timm.models.layers.drop.DropPath")
} | {
    "torchvision.ops.stochastic_depth.StochasticDepth": _Branch(
        "p", lambda module: {"row": "example", "batch": "batch"}.get(module.mode)
    )
}
"""By qualified name, so that none of the packages is imported."""

_BLOCKS = re.compile(r"timm\.(models\.)?layers\.drop\.DropBlock2d|torchvision\.ops\.drop_block\.DropBlock[23]d")
"""Classes that drop blocks by the paper's formula, at another rate than `DropBlock`, and scale by what was kept."""


def convert(
    model: nn.Module, key_of: Callable[[str], Key | None]
) -> tuple[tuple[Replaced, ...], tuple[Unreached, ...]]:
    """`multidrop.convert`: gives modules another class, so that all that holds one, a container, an attribute, a hook
    or a list of the user's, holds the new layer."""
    replaced, others = [], []
    modules = list(_named_modules(model))
    for path, module in modules:
        ours = OURS.get(type(module))
        branch = _branch(module)
        if ours is None and branch is None:
            others += [Unreached(path, what) for what in _unreached(module)]
            continue
        theirs, module.__class__ = type(module), ours or DropPath
        layer = cast(Keyed, module)  # which it is now
        if branch is not None:
            layer.member = branch
        layer._key_by(key_of(path))
        layer.converted = theirs
        replaced.append(Replaced(path, repr(module)))
    others += unregistered(modules, _named_modules, nn.Module, tuple(OURS), Keyed)
    return tuple(replaced), tuple(others)


def restore(model: nn.Module, paths: Collection[str] | None = None) -> int:
    """`multidrop.restore`."""
    named = [module for path, module in _named_modules(model) if paths is None or path in paths]
    layers = [cast(Keyed, module) for module in named if "converted" in vars(module)]
    for layer in layers:
        theirs = layer.converted
        if isinstance(layer, DropPath):
            vars(layer)[_BRANCHES[_name(theirs)].rate] = layer.p
            del layer.member
        del layer.stream, layer.keyed, layer.converted
        for name in ("last", "unplaced", "place", "ranks"):
            vars(layer).pop(name, None)
        layer.__class__ = theirs  # type: ignore[assignment]  # a module gets its class back
    return len(layers)


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _branch(module: nn.Module) -> family.DropPath | None:
    """The member that does what a module of another package's does."""
    known = _BRANCHES.get(_name(type(module)))
    mode = known and known.mode(module)
    return family.DropPath(getattr(module, known.rate) or 0.0, mode) if known and mode else None


_WRAPPERS = nn.DataParallel, nn.parallel.DistributedDataParallel, swa_utils.AveragedModel  # which hold a `module`
_WRAPPED = "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"  # by torch.compile and torch.distributed


def _named_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """A model's modules by their paths in its own architecture: what wraps it, to compile, distribute or average it, is
    no part of that."""
    found: dict[str, tuple[str, nn.Module]] = {}
    for path, module in model.named_modules():
        parent, _, name = path.rpartition(".")
        if not path:
            found[path] = "", module
            continue
        own, holder = found[parent]
        wrapped = name in _WRAPPED or (name == "module" and isinstance(holder, _WRAPPERS))
        found[path] = own if wrapped else f"{own}.{name}".lstrip("."), module
    yield from found.values()


def _unreached(module: nn.Module) -> Iterator[str]:
    kind, name = type(module).__name__, _name(type(module))
    if isinstance(module, Keyed):
        return iter(())
    if name in _BRANCHES:
        return iter([f"{name}({module.extra_repr()}), which DropPath does not do"])
    if _BLOCKS.fullmatch(name):
        return iter([f"{name}, which drops other blocks, and at another rate, than DropBlock"])
    for theirs in OURS:
        if isinstance(module, theirs):
            return iter([f"{kind}, a subclass of torch.nn.{theirs.__name__}"])
    return unreached(module, "forward", (Keyed, *OURS), "torch.nn.")
