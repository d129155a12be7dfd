"""This library's layers in the place of Keras', in a model that is there already."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import keras

from multidrop.conversion import Replaced, Unreached
from multidrop.keys import Key

from .layers import AlphaDropout, Dropout, SpatialDropout1D, SpatialDropout2D, SpatialDropout3D, _Dropout

OURS: dict[type[keras.layers.Layer], type[_Dropout]] = {
    getattr(keras.layers, layer.__name__): layer
    for layer in (Dropout, AlphaDropout, SpatialDropout1D, SpatialDropout2D, SpatialDropout3D)
}
THEIRS = {ours: theirs for theirs, ours in OURS.items()}


def convert(
    model: keras.layers.Layer, key_of: Callable[[str], Key | None]
) -> tuple[tuple[Replaced, ...], tuple[Unreached, ...]]:
    """`multidrop.convert`: gives layers another class, so that all that holds one, a model's graph too, holds the new
    layer."""
    replaced, unreached = [], []
    for path, layer in list(_layers(model)):
        ours = OURS.get(type(layer))
        if ours is None:
            unreached += [Unreached(path, what) for what in _unreached(layer)]
            continue
        generator = vars(layer).get("seed_generator")
        layer.__class__ = ours
        layer._tracker.unlock()  # it is built, and is to have one more weight
        if generator is not None:
            del layer.seed_generator
        layer._key_by(key_of(path))
        layer._tracker.lock()
        object.__setattr__(layer, "converted", generator)
        replaced.append(Replaced(path, f"{ours.__name__}(rate={layer.rate})"))
    _trace_anew(model)
    return tuple(replaced), tuple(unreached)


def restore(model: keras.layers.Layer) -> int:
    """`multidrop.restore`."""
    layers = [layer for _, layer in _layers(model) if "converted" in vars(layer)]
    for layer in layers:
        generator = vars(layer).pop("converted")
        vars(layer).pop("_last", None)
        layer._tracker.unlock()
        if layer.stream is not None:
            layer._untrack_variable(layer.stream)
        del layer.stream
        layer.__class__ = THEIRS[type(layer)]
        if generator is not None:
            layer.seed_generator = generator
        layer._tracker.lock()
    _trace_anew(model)
    return len(layers)


def _layers(model: keras.layers.Layer, path: str = "") -> Iterator[tuple[str, keras.layers.Layer]]:
    """A layer and all within it, each once, by the names along the way."""
    seen: set[int] = set()

    def walk(layer: keras.layers.Layer, path: str) -> Iterator[tuple[str, keras.layers.Layer]]:
        if id(layer) in seen:
            return
        seen.add(id(layer))
        yield path, layer
        for child in layer._layers:
            yield from walk(child, f"{path}.{child.name}" if path else child.name)

    return walk(model, path)


def _unreached(layer: keras.layers.Layer) -> Iterator[str]:
    """What drops in a layer's own call, as far as its attributes tell."""
    if isinstance(layer, _Dropout):
        return
    if isinstance(layer, tuple(OURS)):
        yield f"{type(layer).__name__}, a subclass with a call of its own"
        return
    for name, value in vars(layer).items():
        if "dropout" in name.lower() and isinstance(value, float) and value > 0.0:
            if any(isinstance(child, (_Dropout, *OURS)) for child in layer._layers):
                continue  # the rate of a layer within, as an attention's
            yield f"{type(layer).__name__}.{name.lstrip('_')} = {value}, which its call hands to a function"


def _trace_anew(model: Any) -> None:
    """Compiled steps hold the layers that they were traced with."""
    for name in ("train_function", "test_function", "predict_function"):
        if hasattr(model, name):
            setattr(model, name, None)
