"""This library's layers in the place of torch's, in a module that is there already."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

from torch import nn

from multidrop.conversion import Replaced, Unreached, unreached
from multidrop.keys import Key

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
    for path, module in list(model.named_modules()):
        ours = OURS.get(type(module))
        if ours is None:
            others += [Unreached(path, what) for what in _unreached(module)]
            continue
        module.__class__ = ours
        module._key_by(key_of(path))
        module.converted = True
        replaced.append(Replaced(path, repr(module)))
    return tuple(replaced), tuple(others)


def restore(model: nn.Module, paths: Collection[str] | None = None) -> int:
    """`multidrop.restore`."""
    named = [module for path, module in model.named_modules() if paths is None or path in paths]
    layers = [module for module in named if "converted" in vars(module)]
    for layer in layers:
        del layer.stream, layer.keyed, layer.converted
        vars(layer).pop("last_shape", None)
        layer.__class__ = THEIRS[type(layer)]
    return len(layers)


def _unreached(module: nn.Module) -> Iterator[str]:
    if isinstance(module, _DropoutNd):
        return iter(())
    if isinstance(module, tuple(OURS)):
        return iter([f"{type(module).__name__}, a subclass with a forward of its own"])
    return unreached(module, "forward", (_DropoutNd, *OURS), "torch.nn.")
