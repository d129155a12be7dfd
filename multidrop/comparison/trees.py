"""Finds tensors in nested objects: tuples, dicts, dataclasses, caches and the attributes of layers."""

from __future__ import annotations

import copy
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from types import FunctionType, ModuleType
from typing import Any

import numpy as np

from ..protocol import Auditing
from .parts import equal

_OPAQUE = (str, bytes, int, float, complex, bool, type(None), type, FunctionType, ModuleType, range, slice)
_MUTABLE = (list, dict, OrderedDict, set, deque)


class Trees:
    """Copies and compares the inputs and outputs of layers.

    Args:
        probe: handles the tensors of the model's framework.
    """

    def __init__(self, probe: Auditing) -> None:
        self._probe, self._tensors = probe, (*probe.tensors, np.ndarray)
        self._layers = tuple({type(layer) for layer in probe.layers.values()})
        self._packages = {kind.__module__.partition(".")[0] for kind in self._tensors}

    def copied(self, tree: Any) -> Any:
        """Copies a tree and its tensors. Objects that cannot contain tensors are shared with the original."""
        return self._rebuilt(tree, self._copy, {})

    def replaced(self, tree: Any, by: Any, written: Any = ()) -> Any:
        """Copies the tree `by`, to use in the place of `tree`. A tensor of `tree` that is also in `written` was
        overwritten in place by a layer: it is kept, and gets the values of its counterpart in `by`."""
        overwritten = {id(tensor) for _, tensor in self._leaves(written)}
        counterparts = dict(self._leaves(by))
        kept = {}
        for place, tensor in self._leaves(tree):
            if id(tensor) in overwritten and place in counterparts:
                self._assign(tensor, counterparts[place])
                kept[id(counterparts[place])] = tensor
        return self._rebuilt(by, lambda tensor: kept.get(id(tensor)) if id(tensor) in kept else self._copy(tensor), {})

    def differ(self, a: Any, b: Any) -> bool:
        """Whether any tensors, numbers or strings in two trees differ in their bits; NaN is equal to NaN."""
        return self._differ(a, b, set())

    def symbolic(self, tree: Any) -> bool:
        """Whether a tree contains a symbolic tensor, which has no values."""
        return any(
            self._probe.symbolic(tensor) for _, tensor in self._leaves(tree) if not isinstance(tensor, np.ndarray)
        )

    def cached(self, layers: Iterable[Any]) -> Callable[[], None]:
        """Returns a function that restores attributes that have become tensors since, such as masks kept for later."""
        before = [(vars(layer), dict(vars(layer))) for layer in layers]

        def back() -> None:
            for held, values in before:
                for name in [name for name in held if isinstance(held[name], self._tensors)]:
                    if name in values:
                        held[name] = values[name]
                    else:
                        del held[name]

        return back

    def attributes(self, layers: Iterable[Any]) -> Callable[[], None]:
        """Returns a function that restores the attributes of layers to what they are now, with the contents of the
        lists, dicts, sets, plain objects and tensors there. Weights are left alone."""
        layers, state = list(layers), self._probe.state()
        held: list[tuple[Any, Any]] = []
        values: list[tuple[Any, Any]] = []
        seen: set[int] = set()

        def look(value: Any) -> None:
            if id(value) in seen or isinstance(value, _OPAQUE):
                return
            seen.add(id(value))
            if isinstance(value, self._tensors):
                if isinstance(value, np.ndarray) or not (
                    isinstance(value, self._probe.weights) or self._probe.symbolic(value)
                ):
                    values.append((value, self._copy(value)))
                return
            if type(value) in _MUTABLE:
                held.append((value, copy.copy(value)))
            elif self._is_plain(value):
                held.append((vars(value), dict(vars(value))))
            for child in self._children(value):
                look(child)

        for layer in layers:
            held.append((vars(layer), dict(vars(layer))))
            for value in list(vars(layer).values()):
                look(value)

        def back() -> None:
            for container, before in held:
                _refill(container, before)
            for tensor, before in values:
                if self._differ(before, tensor, set()):
                    self._assign(tensor, before)
            state()

        return back

    def _children(self, value: Any) -> list[Any]:
        """The items of a container, or the attributes of an object whose class is not the framework's."""
        if isinstance(value, dict):
            return [*value.values(), *getattr(value, "__dict__", {}).values()]
        if isinstance(value, (list, tuple, set, deque)):
            return list(value)
        return list(vars(value).values()) if self._is_plain(value) else []

    def _is_plain(self, value: Any) -> bool:
        """Whether an object's state is its attributes: it is no function, layer or object of the framework."""
        package = type(value).__module__.partition(".")[0]
        return (
            hasattr(value, "__dict__")
            and not isinstance(value, (*_OPAQUE, *self._layers))
            and package not in self._packages
            and not callable(value)
        )

    def _rebuilt(self, value: Any, leaf: Callable[[Any], Any], done: dict[int, Any]) -> Any:
        if isinstance(value, _OPAQUE) or id(value) in done:
            return done.get(id(value), value)
        if isinstance(value, self._tensors):
            done[id(value)] = leaf(value)
        elif isinstance(value, tuple):
            items = [self._rebuilt(item, leaf, done) for item in value]
            done[id(value)] = type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
        elif isinstance(value, (list, dict)) or self._is_plain(value):
            done[id(value)] = new = copy.copy(value)
            if isinstance(value, list):
                new[:] = [self._rebuilt(item, leaf, done) for item in value]
            elif isinstance(value, dict):
                for key, item in value.items():
                    dict.__setitem__(new, key, self._rebuilt(item, leaf, done))
            for name, item in getattr(value, "__dict__", {}).items():
                vars(new)[name] = self._rebuilt(item, leaf, done)
        return done.get(id(value), value)

    def _differ(self, a: Any, b: Any, seen: set[tuple[int, int]]) -> bool:
        if (id(a), id(b)) in seen:
            return False
        seen.add((id(a), id(b)))
        if isinstance(a, self._tensors) or isinstance(b, self._tensors):
            return type(a) is not type(b) or not self._same(a, b)
        if isinstance(a, _OPAQUE):
            return not (a is b or (type(a) is type(b) and (a == b or (a != a and b != b))))
        if type(a) is not type(b):
            return True
        if isinstance(a, dict) and a.keys() != b.keys():
            return True
        if not isinstance(a, (list, tuple, dict)) and not self._is_plain(a):
            return False  # nothing in them can be compared
        of_a, of_b = self._children(a), self._children(b)
        return len(of_a) != len(of_b) or any(self._differ(x, y, seen) for x, y in zip(of_a, of_b, strict=True))

    def _leaves(self, tree: Any) -> Iterator[tuple[tuple[int, ...], Any]]:
        """Yields the tensors of a tree, each with its position: the index of the child at each level."""
        seen: set[int] = set()

        def walk(value: Any, place: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], Any]]:
            if isinstance(value, self._tensors):
                yield place, value
            elif not isinstance(value, _OPAQUE) and id(value) not in seen:
                seen.add(id(value))
                for number, child in enumerate(self._children(value)):
                    yield from walk(child, (*place, number))

        return walk(tree, ())

    def _copy(self, tensor: Any) -> Any:
        if isinstance(tensor, np.ndarray):
            return tensor.copy()
        return tensor if self._probe.symbolic(tensor) else self._probe.copy(tensor)

    def _same(self, a: Any, b: Any) -> bool:
        return equal(a, b) if isinstance(a, np.ndarray) else self._probe.same(a, b)

    def _assign(self, tensor: Any, values: Any) -> None:
        if isinstance(tensor, np.ndarray):
            tensor[...] = values
        else:
            self._probe.assign(tensor, values)


def _refill(container: Any, before: Any) -> None:
    """Restores the contents of a container if they have changed."""
    if isinstance(container, dict):
        if container.keys() != before.keys() or any(container[key] is not before[key] for key in before):
            for key in [key for key in container if key not in before]:
                del container[key]
            container.update(before)
    elif isinstance(container, set):
        container.clear()
        container.update(before)
    elif len(container) != len(before) or any(x is not y for x, y in zip(container, before, strict=True)):
        container.clear()
        container.extend(before)
