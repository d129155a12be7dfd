"""This library's layers in the place of torch's, in a module that is there already."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import cast

from torch import nn
from torch.optim import swa_utils

from multidrop.conversion import Replaced
from multidrop.spec.keys import Key
from multidrop.unreached import Unreached, unreached, unregistered

from .layers import AlphaDropout, Dropout, Dropout1d, Dropout2d, Dropout3d, FeatureAlphaDropout, _DropoutNd

OURS: dict[type[nn.Module], type[_DropoutNd]] = {
    getattr(nn, layer.__name__): layer
    for layer in (Dropout, Dropout1d, Dropout2d, Dropout3d, AlphaDropout, FeatureAlphaDropout)
}
THEIRS: dict[type[nn.Module], type[nn.Module]] = {ours: theirs for theirs, ours in OURS.items()}


def convert(
    model: nn.Module, key_of: Callable[[str], Key | None]
) -> tuple[tuple[Replaced, ...], tuple[Unreached, ...]]:
    """`multidrop.convert`: gives modules another class, so that all that holds one, a container, an attribute, a hook
    or a list of the user's, holds the new layer."""
    replaced, others = [], []
    modules = list(_named_modules(model))
    for path, module in modules:
        ours = OURS.get(type(module))
        if ours is None:
            others += [Unreached(path, what) for what in _unreached(module)]
            continue
        module.__class__ = ours
        layer = cast(_DropoutNd, module)  # which it is now
        layer._key_by(key_of(path))
        layer.converted = True
        replaced.append(Replaced(path, repr(module)))
    others += unregistered(modules, _named_modules, nn.Module, tuple(OURS), _DropoutNd)
    return tuple(replaced), tuple(others)


def restore(model: nn.Module, paths: Collection[str] | None = None) -> int:
    """`multidrop.restore`."""
    named = [module for path, module in _named_modules(model) if paths is None or path in paths]
    layers = [module for module in named if "converted" in vars(module)]
    for layer in layers:
        del layer.stream, layer.keyed, layer.converted
        for name in ("last", "unplaced"):
            vars(layer).pop(name, None)
        layer.__class__ = THEIRS[type(layer)]
    return len(layers)


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
    if isinstance(module, _DropoutNd):
        return iter(())
    for theirs in OURS:
        if isinstance(module, theirs):
            return iter([f"{type(module).__name__}, a subclass of torch.nn.{theirs.__name__}"])
    return unreached(module, "forward", (_DropoutNd, *OURS), "torch.nn.")
