"""Shows the inputs and outputs of a model's layers to a watcher, which may replace them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol


class Watcher(Protocol):
    """Receives the calls of a watched model. Calls nest: a layer is entered and left within the layer that calls it."""

    def enter(self, path: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Called before a layer runs; returns the arguments that the layer gets."""
        ...

    def leave(self, path: str, args: tuple[Any, ...], output: Any) -> Any:
        """Called after a layer has run with `args`; returns the output that its caller gets."""
        ...


@contextmanager
def watched(layers: Mapping[str, Any], methods: Collection[str], watcher: Watcher) -> Iterator[None]:
    """Watches layers, given by path: wraps those of the methods that a layer has, in its `__dict__`."""
    once = {id(layer): path for path, layer in reversed(list(layers.items()))}  # a shared layer, by its first path
    names = [(path, name) for path in once.values() for name in methods if hasattr(layers[path], name)]
    before = {(path, name): vars(layers[path])[name] for path, name in names if name in vars(layers[path])}
    for path, name in names:
        vars(layers[path])[name] = _wrapped(path, getattr(layers[path], name), watcher)
    try:
        yield
    finally:
        for path, name in names:
            if (path, name) in before:
                vars(layers[path])[name] = before[path, name]
            else:
                del vars(layers[path])[name]


def _wrapped(path: str, run: Callable[..., Any], watcher: Watcher) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        args, kwargs = watcher.enter(path, args, kwargs)
        return watcher.leave(path, args, run(*args, **kwargs))

    return call
