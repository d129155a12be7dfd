"""Replaces the dropout layers of an existing model by this library's, and puts them back."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from . import html
from .checks import shown
from .dispatch import backend_of_model, part
from .protocol import Conversion
from .spec.keys import Key, as_key
from .streams import layer_key

__all__ = ["Replaced", "Report", "Unreached", "convert", "restore"]


class Replaced(NamedTuple):
    """A layer that was replaced: where it is, and what it is now."""

    path: str
    layer: str


class Unreached(NamedTuple):
    """What drops and could not be replaced: where it is, and what."""

    path: str
    what: str


_FURTHER = "md.audit(model, *inputs) names whatever else is random."


@dataclass(frozen=True)
class Report:
    """What `convert` did; printed, a line for each layer.

    Attributes:
        replaced: the layers that are this library's now.
        unreached: what is known to drop as before.
    """

    replaced: tuple[Replaced, ...]
    unreached: tuple[Unreached, ...]

    def __str__(self) -> str:
        found = [*self.replaced, *self.unreached]
        width = max((len(shown_path(path)) for path, _ in found), default=0)
        parts = []
        for title, lines in (("replaced", self.replaced), ("not reached", self.unreached)):
            parts += [f"{title}: {len(lines)}", *(f"  {shown_path(path):{width}}  {what}" for path, what in lines)]
        return "\n".join([*parts, _FURTHER])

    def _repr_html_(self) -> str:
        """The report as a table, as notebooks show it."""
        found = [("replaced", path, layer) for path, layer in self.replaced]
        found += [("not reached", path, what) for path, what in self.unreached]
        rows = [(state, shown_path(path), what) for state, path, what in found]
        caption = f"replaced: {len(self.replaced)}, not reached: {len(self.unreached)}"
        return html.table(("", "layer", "what it is"), rows, caption=caption, texts=3) + html.lines([_FURTHER])


def shown_path(path: str) -> str:
    """A layer's path; the model's own is empty."""
    return path or "(itself)"


def convert(model: Any, *, seed: int | Key | None = None) -> Report:
    """Replaces every dropout layer of a model by this library's, in place: wherever the layer sits, the model itself
    too; a shared layer once. Rates, modes, names and weights stay, and whatever holds a layer goes on holding it. This
    library's own layers stay as they are, with their keys, and are not in the report. To key the layers of an earlier
    conversion, call `restore` first.

    In torch it also replaces stochastic depth and DropBlock of timm, torchvision and others. The report says where the
    new layer drops another share than the old one.

    Args:
        model: a `torch.nn.Module`, a Keras model or layer, or a Gluon block. Its compiled or hybridized programs are
            traced anew.
        seed: keys each layer by its path, so that a model of the same architecture in another framework, whose layers
            have the same paths, draws the same masks. Without a seed, the layers are like newly built ones: keyed after
            `manual_seed`, else by the framework's generator. What compiles, distributes or averages a torch module
            is not part of a path. Neither is the number in a name that Keras made up; the report does show it.

    Returns:
        The layers that were replaced, and what is known to drop and was not: subclasses of the framework's layers,
        layers that drop within a fused operation, layers in plain lists, and layers whose `forward` is patched. It does
        not tell which functions the model calls: `multidrop.audit` runs the model and finds everything random.

    Raises:
        ValueError: for a bad seed.
        TypeError: for what is no model of a known framework.
        BackendError: where its backend has no conversion part.
    """
    backend = backend_of_model(model)
    converting = part(backend, Conversion, "convert")
    root = None if seed is None else as_key(seed, "seed")

    def key_of(path: str) -> Key | None:
        return layer_key(backend.name) if root is None else root.fold_in(path)

    return Report(*converting.convert(model, key_of))


def restore(model: Any, report: Report | None = None) -> int:
    """Undoes `convert`: gives the model its framework's own layers back, with the rates that the layers have now. What
    was built as this library's layer stays one. In Keras, so does each layer of a copied or loaded model, because Keras
    builds them anew.

    Args:
        model: a converted model.
        report: what `convert` returned, to undo that conversion alone; without it, all are undone.

    Returns:
        How many layers were put back.

    Raises:
        TypeError: for what is no model of a known framework, or no report.
        BackendError: where its backend has no conversion part.
    """
    if not isinstance(report, Report | None):
        raise TypeError(f"report: expected what convert gave; got {shown(report)}")
    paths: Collection[str] | None = None if report is None else {path for path, _ in report.replaced}
    return part(backend_of_model(model), Conversion, "restore").restore(model, paths)


def unregistered(
    layers: Collection[tuple[str, Any]],
    parts: Callable[[Any], Iterable[tuple[str, Any]]],
    base: type,
    dropouts: tuple[type, ...],
    ours: type | tuple[type, ...],
) -> Iterator[Unreached]:
    """Finds dropout layers that other layers hold in plain lists, tuples and dicts, where the framework does not look.

    Args:
        layers: the layers that the framework finds in a model, by path.
        parts: gives a layer and all within it, by path.
        base: the type of all layers.
        dropouts: the types of dropout layers.
        ours: the types among them that are this library's.
    """
    reached = {id(layer) for _, layer in layers}
    for path, layer in layers:
        for place, held in _held(vars(layer), base):
            for inner, found in parts(held) if id(held) not in reached else ():
                if isinstance(found, dropouts) and not isinstance(found, ours) and id(found) not in reached:
                    reached.add(id(found))
                    where = f"{type(layer).__name__}{place}.{inner}".rstrip(".")
                    yield Unreached(path, f"{where}, a {type(found).__name__} that is not registered as a layer of it")


def _held(holder: Any, base: type, place: str = "", above: tuple[int, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Walks lists, tuples and dicts, such as a layer's attributes, and yields each object of a type with its place."""
    above += (id(holder),)
    for key, value in holder.items() if isinstance(holder, dict) else enumerate(holder):
        where = f"{place}[{key!r}]" if place else f".{key}"
        if isinstance(value, base):
            yield where, value
        elif isinstance(value, list | tuple | dict) and id(value) not in above:
            yield from _held(value, base, where, above)
