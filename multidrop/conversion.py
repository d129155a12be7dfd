"""This library's layers in the place of a framework's own, in a model that is there already."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, NamedTuple

from .checks import shown
from .dispatch import backend_of, part
from .protocol import Backend, Conversion
from .spec.keys import Key, as_key
from .streams import layer_key
from .unreached import Unreached

__all__ = ["Replaced", "Report", "Unreached", "convert", "restore"]


class Replaced(NamedTuple):
    """A layer that was replaced: where it is, and what it is now."""

    path: str
    layer: str


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
    layer that is shared once. Rates, modes, names and weights stay; what holds a layer goes on holding it. Layers that
    are this library's already stay as they are, with their keys, and are not in the report: to key those that a
    conversion made anew, `restore` first.

    Args:
        model: a `torch.nn.Module`, a Keras model or layer, or a Gluon block. A compiled or hybridized program of it is
            traced anew.
        seed: keys each layer by its path, so that a model of the same architecture in another framework, whose layers
            have the same paths, draws the same masks. Without one the layers are as those that are built now: keyed
            after `manual_seed`, else by the framework's generator. What wraps a torch module, to compile, distribute or
            average it, is no part of a path, nor is the number in a name that Keras made up, which the report shows.

    Returns:
        What was replaced, and what drops and could not be reached: functional calls, attention that drops inside of a
        fused operation, subclasses of the framework's layers, and layers that the framework does not find.

    Raises:
        ValueError: for a bad seed.
        TypeError: for what is no model of a known framework.
        BackendError: where its backend has no conversion part.
    """
    backend = _backend(model)
    converting = part(backend, Conversion, "convert")
    root = None if seed is None else as_key(seed, "seed")

    def key_of(path: str) -> Key | None:
        return layer_key(backend.name) if root is None else root.fold_in(path)

    return Report(*converting.convert(model, key_of))


def restore(model: Any, report: Report | None = None) -> int:
    """Undoes `convert`: its layers are the framework's own again, with the rates that they have now. Layers that were
    built as this library's stay, and so in Keras all those of a copy or a loaded model, which it builds anew.

    Args:
        model: one that was converted.
        report: what a conversion gave, to undo that one alone; without it, all are undone.

    Returns:
        How many layers there were.

    Raises:
        TypeError: for what is no model of a known framework, or no report.
        BackendError: where its backend has no conversion part.
    """
    if not isinstance(report, Report | None):
        raise TypeError(f"report: expected what convert gave; got {shown(report)}")
    paths: Collection[str] | None = None if report is None else {path for path, _ in report.replaced}
    return part(_backend(model), Conversion, "restore").restore(model, paths)


def _backend(model: Any) -> Backend:
    backend = backend_of(model, "model")
    if not (isinstance(model, tuple(backend.types)) and callable(model)):  # a framework's tensors are not called
        raise TypeError(f"model: expected a model of a framework's; got {shown(model)}")
    return backend
