"""Replaces the dropout layers of a torch module by this library's, and puts them back."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from functools import partial
from types import MethodType
from typing import Any, cast

from torch import nn
from torch.optim import swa_utils

from multidrop import family
from multidrop.conversion import Replaced, Unreached, unregistered
from multidrop.spec.keys import Key

from . import internals
from .keyed import Keyed
from .layers import AlphaDropout, Dropout, Dropout1d, Dropout2d, Dropout3d, FeatureAlphaDropout
from .member_layers import DropBlock, DropPath
from .peers import peer_of, unlike

OURS: dict[type[nn.Module], type[Keyed]] = {
    getattr(nn, layer.__name__): layer
    for layer in (Dropout, Dropout1d, Dropout2d, Dropout3d, AlphaDropout, FeatureAlphaDropout)
}


LAYERS: dict[type[family.Member], type[Keyed]] = {family.DropPath: DropPath, family.DropBlock: DropBlock}


def convert(
    model: nn.Module, key_of: Callable[[str], Key | None]
) -> tuple[tuple[Replaced, ...], tuple[Unreached, ...]]:
    """`multidrop.convert`: gives modules another class, so that whatever holds one, a container, an attribute, a hook
    or a list of the user's, holds the new layer."""
    replaced, others = [], []
    modules = list(named_modules(model))
    of_keras: set[int] = set()
    for path, module in modules:
        if is_keras(module):
            if id(module) not in of_keras:  # nor within one that is told of
                others += [Unreached(path, what) for what in _of_keras(module)]
            of_keras |= {id(child) for child in module.modules()}
            continue
        theirs, ours, peer = type(module), OURS.get(type(module)), peer_of(module)
        patches = _patches(module)
        if (ours is None and peer is None) or patches is None:
            others += [Unreached(path, what) for what in _unreached(module)]
            continue
        module.__class__ = LAYERS[type(peer.member)] if peer else cast(Any, ours)
        layer = cast(Keyed, module)  # which it is now
        if peer is not None:
            layer.member = peer.member
        layer._key_by(key_of(path))
        layer.converted = theirs
        for patch in patches:
            patch(MethodType(type(layer).forward, layer))
        replaced.append(Replaced(path, f"{module!r}{peer.note if peer else ''}"))
    others += unregistered(modules, named_modules, nn.Module, tuple(OURS), Keyed)
    return tuple(replaced), tuple(others)


def restore(model: nn.Module, paths: Collection[str] | None = None) -> int:
    """`multidrop.restore`."""
    named = [module for path, module in named_modules(model) if paths is None or path in paths]
    layers = [cast(Keyed, module) for module in named if "converted" in vars(module)]
    for layer in layers:
        theirs, patches, p = layer.converted, _patches(layer) or (), layer.p
        vars(layer).pop("member", None)
        del layer.stream, layer.keyed, layer.converted
        for name in ("last", "place", "ranks"):
            vars(layer).pop(name, None)
        layer.__class__ = theirs  # type: ignore[assignment]  # a module gets its class back
        if peer := peer_of(layer):
            peer.set_rate(layer, p)
        for patch in patches:
            patch(MethodType(theirs.forward, layer))
    return len(layers)


def _patches(module: nn.Module) -> list[Callable[[MethodType], None]] | None:
    """Where a module whose `forward` was patched on the instance, as by accelerate's hooks or a profiler, keeps its
    class's own forward: functions that put another method there. None where the patch keeps it out of reach."""
    held = vars(module)
    if "forward" not in held:
        return []
    own = MethodType(type(module).forward, module)

    def is_own(value: Any) -> bool:
        return isinstance(value, MethodType) and value == own

    found: list[Callable[[MethodType], None]] = [partial(held.__setitem__, name) for name in held if is_own(held[name])]
    function = held["forward"]
    while isinstance(function, partial):
        function = function.func
    for cell in getattr(function, "__closure__", None) or ():
        with suppress(ValueError):  # it is empty
            if is_own(cell.cell_contents):
                found.append(partial(setattr, cell, "cell_contents"))
    return found or None


_WRAPPERS = nn.DataParallel, nn.parallel.DistributedDataParallel, swa_utils.AveragedModel  # which hold a `module`
_WRAPPED = "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"  # by torch.compile and torch.distributed


def named_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yields a model's modules by their paths in its own architecture: a wrapper that compiles, distributes or averages
    it adds nothing to a path."""
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
    kind = type(module).__name__
    if isinstance(module, Keyed):
        return
    if "forward" in vars(module) and (type(module) in OURS or peer_of(module)):
        patch = getattr(vars(module)["forward"], "__module__", None) or "another package"
        yield f"{kind}, whose forward was patched on the instance by {patch}, which still calls that of {kind}"
    elif isinstance(module, tuple(OURS)):
        theirs = next(each for each in OURS if isinstance(module, each))
        yield f"{kind}, a subclass of torch.nn.{theirs.__name__}"
    elif reason := unlike(module):
        yield f"{type(module).__module__}.{kind}, {reason}"
    elif type(module).__module__.startswith("torch.nn.") and not any(isinstance(x, Keyed) for x in module.children()):
        rate = getattr(module, "dropout", 0.0)  # of attention and of recurrent layers, which drop by themselves
        if isinstance(rate, float) and rate > 0.0:
            yield f"{kind}, which drops {rate} by itself"


def is_keras(module: nn.Module) -> bool:
    """Whether a module is a Keras layer, which is one where Keras runs on torch."""
    keras = sys.modules.get("keras")
    return keras is not None and isinstance(module, keras.layers.Layer)


NEEDS = "multidrop's Keras layers need KERAS_BACKEND=tensorflow"


def _of_keras(outer: Any) -> Iterator[str]:
    """The layers of a Keras layer that drop; torch does not see them as modules of it."""
    for layer in internals.keras_layers(outer):
        amount = getattr(layer, "rate", None) or getattr(layer, "stddev", None)
        if amount and hasattr(layer, "seed_generator"):
            yield f"Keras' {type(layer).__name__}({amount}), {layer.name}: {NEEDS}"
    yield f"a Keras layer that runs on torch: {NEEDS}"
