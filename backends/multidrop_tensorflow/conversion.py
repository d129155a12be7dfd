"""This library's layers in the place of Keras', in a model that is there already."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Collection, Iterator

import keras
import tensorflow as tf

from multidrop.conversion import Replaced
from multidrop.spec.keys import Key
from multidrop.unreached import Unreached, calls, unreached

from . import internals
from .layers import (
    AlphaDropout,
    Dropout,
    GaussianDropout,
    GaussianNoise,
    SpatialDropout1D,
    SpatialDropout2D,
    SpatialDropout3D,
    _Random,
)

SPATIAL = (SpatialDropout1D, SpatialDropout2D, SpatialDropout3D)
OURS: dict[type[keras.layers.Layer], type[_Random]] = {
    getattr(keras.layers, layer.__name__): layer
    for layer in (Dropout, AlphaDropout, *SPATIAL, GaussianDropout, GaussianNoise)
}
THEIRS = {ours: theirs for theirs, ours in OURS.items()}


def convert(
    model: keras.layers.Layer, key_of: Callable[[str], Key | None]
) -> tuple[tuple[Replaced, ...], tuple[Unreached, ...]]:
    """`multidrop.convert`: gives layers another class, so that all that holds one, a model's graph too, holds the new
    layer."""
    replaced, others, strategy = [], [], _strategy_of(model)
    keyed = {id(layer): path for path, layer in layers_of(model, _own_name)}
    for path, layer in list(layers_of(model)):
        ours = OURS.get(type(layer))
        if ours is None:
            others += [Unreached(path, what) for what in _unreached(layer)]
            continue
        generator = vars(layer).get("seed_generator")
        layer.__class__ = ours
        with strategy.scope():
            layer._key_by(key_of(keyed[id(layer)]))
        object.__setattr__(layer, "converted", generator)
        amount = f"stddev={layer.stddev}" if ours is GaussianNoise else f"rate={layer.rate}"
        replaced.append(Replaced(path, f"{ours.__name__}({amount})"))
    _trace_anew(model)
    return tuple(replaced), tuple(others)


def _strategy_of(model: keras.layers.Layer) -> tf.distribute.Strategy:
    """That of the model's variables, so that those that are added have a value in each replica too."""
    found = (getattr(variable.value, "distribute_strategy", None) for variable in model.variables)
    return next(filter(None, found), tf.distribute.get_strategy())


def restore(model: keras.layers.Layer, paths: Collection[str] | None = None) -> int:
    """`multidrop.restore`."""
    named = [layer for path, layer in layers_of(model) if paths is None or path in paths]
    layers = [layer for layer in named if "converted" in vars(layer)]
    for layer in layers:
        generator = vars(layer).pop("converted")
        vars(layer).pop("_last", None)
        if generator is None and not layer._idle:  # Keras makes one at once, but the amount was 0 then
            generator = layer.seed_generator or keras.random.SeedGenerator(layer.seed)
        layer._key_by(None, generator)
        layer.__class__ = THEIRS[type(layer)]
    _trace_anew(model)
    return len(layers)


def _shown_name(parent: keras.layers.Layer, child: keras.layers.Layer) -> str:
    return child.name


def _own_name(parent: keras.layers.Layer, child: keras.layers.Layer) -> str:
    """What names a layer in the model alone: the number of an automatic name counts the layers of the process."""
    own = internals.automatic_name(type(child))
    automatic = re.fullmatch(rf"((?:forward_|backward_)?{own})(?:_\d+)?", child.name)  # Bidirectional's have a prefix
    if automatic is None:
        return child.name
    return next((name for name, value in vars(parent).items() if value is child), automatic[1])


def layers_of(
    model: keras.layers.Layer, name_of: Callable[[keras.layers.Layer, keras.layers.Layer], str] = _shown_name
) -> Iterator[tuple[str, keras.layers.Layer]]:
    """A layer and all within it, each once, by the names along the way, as their parents have them; where several of
    one parent have the same, with a number."""
    seen: set[int] = set()

    def walk(layer: keras.layers.Layer, path: str) -> Iterator[tuple[str, keras.layers.Layer]]:
        if id(layer) in seen:
            return
        seen.add(id(layer))
        yield path, layer
        children = internals.children(layer)
        names = _numbered([name_of(layer, child) for child in children])
        for name, child in zip(names, children, strict=True):
            yield from walk(child, f"{path}.{name}" if path else name)

    return walk(model, "")


def _numbered(names: list[str]) -> Iterator[str]:
    """Names, with a number behind each that was there before, as Keras numbers its own."""
    taken, before = set(names), set[str]()
    for name in names:
        if name in before:
            name = next(other for number in itertools.count(1) if (other := f"{name}_{number}") not in taken)
            taken.add(name)
        before.add(name)
        yield name


def _unreached(layer: keras.layers.Layer) -> Iterator[str]:
    if isinstance(layer, _Random):
        return iter(())
    if isinstance(layer, tuple(OURS)):
        return iter([f"{type(layer).__name__}, a subclass with a call of its own"])
    if isinstance(layer, keras.layers.Lambda):
        return (f"{type(layer).__name__} calls {function}" for function in dict.fromkeys(calls(layer.function)))
    of_keras = type(layer).__module__.startswith("keras.")
    if of_keras and not layer.built and any("dropout" in name and value for name, value in vars(layer).items()):
        return iter([f"{type(layer).__name__}, which makes its layers when it is built: convert after the first call"])
    return unreached(layer, "call", (_Random, *OURS), "keras.")


def _trace_anew(model: keras.layers.Layer) -> None:
    """Compiled steps, of a model within the model too, hold the layers that they were traced with."""
    for _, layer in layers_of(model):
        for name in ("train_function", "test_function", "predict_function"):
            if hasattr(layer, name):
                setattr(layer, name, None)
