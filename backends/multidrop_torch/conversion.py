"""This library's layers in the place of torch's, in a module that is there already."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator

from torch import nn

from multidrop.conversion import Replaced, Unreached
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
    replaced, unreached = [], []
    for path, module in list(model.named_modules()):
        ours = OURS.get(type(module))
        if ours is None:
            unreached += [Unreached(path, what) for what in _unreached(module)]
            continue
        module.__class__ = ours
        module._key_by(key_of(path))
        module.converted = True
        replaced.append(Replaced(path, repr(module)))
    return tuple(replaced), tuple(unreached)


def restore(model: nn.Module) -> int:
    """`multidrop.restore`."""
    layers = [module for module in model.modules() if vars(module).pop("converted", False)]
    for layer in layers:
        del layer.stream, layer.keyed
        vars(layer).pop("last_shape", None)
        layer.__class__ = THEIRS[type(layer)]
    return len(layers)


_CALLS = re.compile(r"\b(?:F|functional)\.(\w*dropout\w*|scaled_dot_product_attention|multi_head_attention_forward)\(")

_RATES = re.compile(r"\bself\.(\w+)\.p\b")


def _unreached(module: nn.Module) -> Iterator[str]:
    """What drops in a module's own forward, as far as its attributes and its source tell."""
    if isinstance(module, _DropoutNd):
        return
    if isinstance(module, tuple(OURS)):
        yield f"{type(module).__name__}, a subclass with a forward of its own"
        return
    for name, value in vars(module).items():
        if "dropout" in name.lower() and isinstance(value, float) and value > 0.0:
            yield f"{type(module).__name__}.{name} = {value}, which its forward hands to a function"
    if type(module).__module__.startswith("torch.nn."):
        return
    try:
        source = inspect.getsource(type(module).forward)
    except (OSError, TypeError):  # it has no source to read
        return
    for function in dict.fromkeys(_CALLS.findall(source)):
        yield f"{type(module).__name__}.forward calls {function}"
    for name in dict.fromkeys(_RATES.findall(source)):
        if isinstance(getattr(module, name, None), (_DropoutNd, *OURS)):
            yield f"{type(module).__name__}.forward reads {name}.p, and hands it to a function"
