"""This library's layers in the place of a framework's own, in a model that is there already."""

from __future__ import annotations

import inspect
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from .checks import shown
from .dispatch import backend_of
from .keys import Key, as_key, layer_key
from .protocol import Backend

__all__ = ["Replaced", "Report", "Unreached", "convert", "restore"]


class Replaced(NamedTuple):
    """A layer that was replaced: where it is, and what it is now."""

    path: str
    layer: str


class Unreached(NamedTuple):
    """What drops and is no layer, or none that could be replaced: where it is, and what."""

    path: str
    what: str


@dataclass(frozen=True)
class Report:
    """What a conversion found; printed, a line for each.

    Attributes:
        replaced: the layers that are this library's now.
        unreached: what drops as before.
    """

    replaced: tuple[Replaced, ...]
    unreached: tuple[Unreached, ...]

    def __str__(self) -> str:
        found = [*self.replaced, *self.unreached]
        width = max((len(shown_path(path)) for path, _ in found), default=0)
        parts = []
        for title, lines in (("replaced", self.replaced), ("not reached", self.unreached)):
            parts += [f"{title}: {len(lines)}", *(f"  {shown_path(path):{width}}  {what}" for path, what in lines)]
        return "\n".join(parts)


def shown_path(path: str) -> str:
    """A layer's path; the model's own is empty."""
    return path or "(itself)"


def convert(model: Any, *, seed: int | Key | None = None) -> Report:
    """Makes every dropout layer of a model this library's, in place: wherever it sits, the model itself too, and a
    layer that is shared once. Rates, modes, names and weights stay; what holds a layer goes on holding it.

    Args:
        model: a `torch.nn.Module`, a Keras model or layer, or a Gluon block. A compiled or hybridized program of it is
            traced anew.
        seed: keys each layer by its path, so that a model of the same architecture in another framework, whose layers
            have the same paths, draws the same masks. Without one the layers are as those that are built now: keyed
            after `manual_seed`, else by the framework's generator. What wraps a torch module, to compile, distribute or
            average it, is no part of a path, nor is the number in a name that Keras made up, which the report shows.

    Returns:
        What was replaced, and what drops and could not be reached: functional calls, attention that drops inside of a
        fused operation, and subclasses of the framework's layers.

    Raises:
        ValueError: for a bad seed.
        TypeError: for what is no model of a known framework.
    """
    backend = _backend(model)
    root = None if seed is None else as_key(seed, "seed")

    def key_of(path: str) -> Key | None:
        return layer_key(backend.name) if root is None else root.fold_in(path)

    return Report(*backend.convert(model, key_of))


def restore(model: Any, report: Report | None = None) -> int:
    """Undoes `convert`: its layers are the framework's own again, with the rates that they have now.

    Args:
        model: one that was converted.
        report: what a conversion gave, to undo that one alone; without it, all are undone.

    Returns:
        How many layers there were.

    Raises:
        TypeError: for what is no model of a known framework, or no report.
    """
    if not isinstance(report, Report | None):
        raise TypeError(f"report: expected what convert gave; got {shown(report)}")
    paths: Collection[str] | None = None if report is None else {path for path, _ in report.replaced}
    return _backend(model).restore(model, paths)


_CALLS = re.compile(
    r"\b(?:F|functional|nn|experimental|ops|random|nd|sym|npx)"
    r"\.(\w*[dD]ropout\w*|scaled_dot_product_attention|multi_head_attention_forward)\("
)
_RATES = re.compile(r"\bself\.(\w+)\.(?:p|_?rate)\b")


def unreached(layer: object, method: str, dropouts: tuple[type, ...], own: str) -> Iterator[str]:
    """What drops in a layer's own code and is no layer, as far as its attributes and its source tell.

    Args:
        layer: any layer but a dropout.
        method: the name of that which the framework calls.
        dropouts: the types of dropout layers, whose rate alone may be used.
        own: the framework's package; of its own layers, which have no calls to find, only attributes are looked at.
    """
    kind, source = type(layer).__name__, _source(getattr(type(layer), method, None))
    for name, value in vars(layer).items():
        rate = "dropout" in name.lower() and isinstance(value, float) and value > 0.0
        if rate and (source is None or re.search(rf"\bself\.{name}\b", source)):
            yield f"{kind}.{name} = {value}, which its {method} hands to a function"
    if source is None or type(layer).__module__.startswith(own):
        return
    for function in dict.fromkeys(_CALLS.findall(source)):
        yield f"{kind}.{method} calls {function}"
    for name in dict.fromkeys(_RATES.findall(source)):
        if isinstance(getattr(layer, name, None), dropouts):
            yield f"{kind}.{method} reads the rate of {name}, and hands it to a function"


def _source(function: Any) -> str | None:
    try:
        return inspect.getsource(function)
    except (OSError, TypeError):  # it has none to read
        return None


def _backend(model: Any) -> Backend:
    backend = backend_of(model, "model")
    if not (isinstance(model, tuple(backend.types)) and callable(model)):  # a framework's tensors are not called
        raise TypeError(f"model: expected a model of a framework's; got {shown(model)}")
    return backend
