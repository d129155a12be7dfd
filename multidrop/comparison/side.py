"""One of the two models of a comparison, with its tensors in the common layout."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from ..conversion import convert, restore, shown_path
from ..dispatch import backend_of, part
from ..protocol import Comparison, Conversion, Model
from ..spec.keys import Key
from ..view import LayerMask, last_mask
from .layout import Layout, coded, coded_input, common, own
from .parts import Array, Part
from .result import INPUT, MASK, OUTPUT

Weights: TypeAlias = dict[tuple[str, str], Array]
"""Weights by the path of their layer and their name."""


class Name(NamedTuple):
    """Identifies an input, mask or output of a layer, with the same name in both models."""

    layer: int
    what: str
    call: int
    """The number of the call, for a layer that is called several times in a step."""


class Side:
    """One of the two models."""

    def __init__(self, model: Model, stack: ExitStack) -> None:
        report = convert(model, seed=0)  # with a seed, so that it takes no key of `manual_seed`
        stack.callback(restore, model, report)
        self.backend = backend_of(model)
        self.name = f"{self.backend.name} {type(model).__name__}"
        self.unreached = tuple(f"{self.name}, {shown_path(path)}: {what}" for path, what in report.unreached)
        self.probe = stack.enter_context(part(self.backend, Comparison, "Probe", "md.compare").Probe(model))

    def begin(self, X: Array, stack: ExitStack) -> None:
        """Runs the model to find its layers in the order in which they run, and its layout."""
        _, points = self.probe.forward(X, False)
        first = {point.path: number for number, point in reversed(list(enumerate(points)))}
        self.order = lambda path: first.get(path, len(points))
        parts = {part.path: part for part in self.probe.parts()}
        self.parts = {path: parts[path] for path in sorted(parts, key=self.order)}
        self.dropouts = self.probe.dropouts()
        if all(path in first for path in self.dropouts):
            self.dropouts = {path: self.dropouts[path] for path in sorted(self.dropouts, key=self.order)}
        before = self.probe.read()
        for name, value in before.items():  # one by one: if restoring one fails, the others are still restored
            stack.callback(self.probe.write, {name: value})
        self.probe.write(coded(self.parts.values(), before))
        Y, points = self.probe.forward(coded_input(X, self.probe.channels_last), False)
        self.probe.write(before)
        self._layout = Layout(points, Y, X.ndim if self.probe.channels_last is False else 0)
        self._shapes = {name: value.shape for name, value in self._common(before).items()}

    def number_layers(self, paths: Iterable[str]) -> None:
        """Numbers the paired layers."""
        self._numbers = {path: number for number, path in enumerate(paths)}

    def key(self, key: Key, stack: ExitStack) -> None:
        """Restarts the streams of all dropouts: the k-th at `key.fold_in(k)`."""
        for number, path in enumerate(self.dropouts):
            stack.callback(self.probe.key, path, self.probe.key(path, key.fold_in(number)))

    def oriented(self, X: Array, data_format: str) -> Array:
        """Converts a batch to the model's layout."""
        if X.ndim < 3 or self.probe.channels_last in (None, data_format == "channels_last"):
            return X
        return np.ascontiguousarray(np.moveaxis(X, 1, -1) if self.probe.channels_last else np.moveaxis(X, -1, 1))

    def weight_shape(self, part: Part, name: str) -> tuple[int, ...]:
        """A weight's shape in the common layout."""
        return self._shapes[part.path, name]

    def take_weights(self, weights: Weights) -> None:
        """Writes weights in the common layout into the model."""
        given = {}
        for (path, name), value in weights.items():
            value = value.reshape(self._shapes[path, name])
            given[path, name] = own(self.parts[path], name, value, self._layout.flattened(path))
        self.probe.write(given)

    def weights(self) -> Weights:
        """All weights in the common layout."""
        return self._common(self.probe.read())

    def run(self, X: Array, training: bool) -> tuple[list[tuple[Name, Any]], Array]:
        """Runs the model on a batch. Returns the inputs, masks and outputs of its layers, under names that are the same
        for both models, and the model's output."""
        Y, points = self.probe.forward(X, training)
        layout, calls = self._layout, Counter[str]()
        found: list[tuple[Name, Any]] = []
        masks = {path: mask for path, layer in self.dropouts.items() if training and (mask := self._mask(layer))}
        called = {point.path for point in points}
        for path in [path for path in masks if path not in called]:  # not called as a layer, so no input is known
            found.append((Name(self._numbers[path], MASK, 0), (masks[path], masks[path].keep())))
        for path, _, given, output, _ in points:
            number = calls[path]
            calls[path] += 1
            if path not in self._numbers:
                continue
            layer = self._numbers[path]
            found.append((Name(layer, INPUT, number), layout.input(path, number, given)))
            if path in masks:
                mask = masks[path]
                found.append((Name(layer, MASK, number), (mask, layout.input(path, number, mask.keep()))))
            found.append((Name(layer, OUTPUT, number), layout.output(path, number, output)))
        self._shape, self._places = Y.shape, layout.result(np.arange(Y.size).reshape(Y.shape))
        return found, layout.result(Y)

    def _mask(self, layer: Any) -> LayerMask | None:
        try:
            drawing = part(self.backend, Conversion, "drawing", "md.compare").drawing(layer)
        except TypeError:  # a layer of noise has no mask
            return None
        return None if drawing.last is None or drawing.shape is None else last_mask(layer)

    def gradients(self, dY: Array) -> dict[tuple[str, str], Array]:
        """The gradients of the weights, from the gradient of the last output."""
        own_dY = np.empty(dY.size, dY.dtype)
        own_dY[self._places.reshape(-1)] = dY.reshape(-1)
        self._gradients = self.probe.backward(own_dY.reshape(self._shape))
        return self._common(self._gradients)

    def update(self, lr: float) -> None:
        """Updates w ← w − lr·gradient, for each weight that has a gradient."""
        weights = self.probe.read()
        rate = {name: w.dtype.type(lr) for name, w in weights.items()}
        self.probe.write({name: weights[name] - rate[name] * g for name, g in self._gradients.items()})

    def _common(self, values: Mapping[tuple[str, str], Array]) -> Weights:
        return {
            (path, name): common(part, name, values[path, name], self._layout.flattened(path))
            for path, part in self.parts.items()
            for name in part.weights
            if (path, name) in values
        }
