"""Replaces the dropout layers of a Keras model by this library's, and puts them back."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Collection, Iterator

import keras
import tensorflow as tf

from multidrop.conversion import Replaced, Unreached
from multidrop.spec.keys import Key

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
    """`multidrop.convert`: gives layers another class, so that whatever holds one, a model's graph too, holds the new
    layer."""
    replaced, others, strategy = [], [], _strategy_of(model)
    keyed = {id(layer): path for path, layer in layers_of(model, own_name)}
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
    """The strategy of the model's variables, so that a variable that is added has a value in each replica too."""
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


def own_name(parent: keras.layers.Layer, child: keras.layers.Layer) -> str:
    """A layer's name without the number that Keras gives it, which counts the layers of the process."""
    own = internals.automatic_name(type(child))
    automatic = re.fullmatch(rf"((?:forward_|backward_)?{own})(?:_\d+)?", child.name)  # Bidirectional's have a prefix
    if automatic is None:
        return child.name
    return next((name for name, value in vars(parent).items() if value is child), automatic[1])


def layers_of(
    model: keras.layers.Layer, name_of: Callable[[keras.layers.Layer, keras.layers.Layer], str] = _shown_name
) -> Iterator[tuple[str, keras.layers.Layer]]:
    """Yields a layer and all within it, each once, by path. A path joins names along the way; where several children of
    one parent have the same name, those after the first get a number."""
    seen: set[int] = set()

    def walk(layer: keras.layers.Layer, path: str) -> Iterator[tuple[str, keras.layers.Layer]]:
        if id(layer) in seen:
            return
        seen.add(id(layer))
        yield path, layer
        children = internals.children(layer)
        names = numbered([name_of(layer, child) for child in children])
        for name, child in zip(names, children, strict=True):
            yield from walk(child, f"{path}.{name}" if path else name)

    return walk(model, "")


def numbered(names: list[str]) -> Iterator[str]:
    """Appends a number to each name that occurred before, as Keras does."""
    taken, before = set(names), set[str]()
    for name in names:
        if name in before:
            name = next(other for number in itertools.count(1) if (other := f"{name}_{number}") not in taken)
            taken.add(name)
        before.add(name)
        yield name


def _unreached(layer: keras.layers.Layer) -> Iterator[str]:
    kind, of_keras = type(layer).__name__, type(layer).__module__.startswith("keras.")
    if isinstance(layer, _Random):
        return
    if isinstance(layer, tuple(OURS)):
        yield f"{kind}, a subclass with a call of its own"
    elif of_keras and not layer.built and any("dropout" in name and value for name, value in vars(layer).items()):
        yield f"{kind}, which makes its layers when it is built: convert after the first call"
    elif of_keras and not any(isinstance(value, (_Random, *OURS)) for value in vars(layer).values()):
        for name in ("dropout", "_dropout", "recurrent_dropout", "drop_path_rate"):
            if rate := vars(layer).get(name):
                yield f"{kind}, which drops by itself: {name} = {rate}"


def _trace_anew(model: keras.layers.Layer) -> None:
    """Drops compiled steps, of models within the model too: they hold the layers that they were traced with."""
    for _, layer in layers_of(model):
        for name in ("train_function", "test_function", "predict_function"):
            if hasattr(layer, name):
                setattr(layer, name, None)
