"""Layers of any member of the dropout family. `layer` builds one; each member that is listed has a short constructor of
its name here and in `multidrop`, so that `md.DropPath(0.1)` is `md.layer(md.family.DropPath(0.1))`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields, replace
from functools import cache
from typing import Any

from .checks import shown
from .dispatch import current
from .family import MEMBERS, MaskMember, Member, checked
from .spec.keys import Key


def layer(member: Member, *, seed: int | Key | None = None) -> Any:
    """A layer of a member, in the current backend's own terms: a `torch.nn.Module`, a Keras layer, a Gluon block, or a
    layer with `forward` and `backward` in NumPy. Each training-mode forward computes `multidrop.apply(member, X, key)`
    with the next key of the layer's stream; an evaluation-mode forward passes its input on and takes none.

    Args:
        member: such as `multidrop.family.DropBlock(p=0.1, block_size=7)`. It is the layer's attribute `member`; of
            `multidrop.family.Dropout` the layer is that of `multidrop.Dropout`, which has `p`.
        seed: keys the layer: an integer or a `Key`. Without one the layer is keyed by `manual_seed`, or follows the
            framework's own generator where that was not called.

    Raises:
        ValueError: for what is no member, or a bad seed.
    """
    return current().layer(checked(member), seed=seed)


def __getattr__(name: str) -> Callable[..., Any]:
    if name not in MEMBERS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return constructor(MEMBERS[name])  # type: ignore[arg-type]  # mypy takes a class' hash for that of its instances


@cache  # so that a name means one function, as pickle asks
def constructor(kind: type[Member]) -> Callable[..., Any]:
    """The function that takes the settings of a kind of member and a seed, and gives a layer."""

    def build(*settings: Any, seed: int | Key | None = None, **named: Any) -> Any:
        return layer(kind(*settings, **named), seed=seed)

    build.__module__, build.__name__, build.__qualname__ = __name__, kind.__name__, kind.__name__
    build.__doc__ = documentation(kind)
    build.__signature__ = signature(kind)  # type: ignore[attr-defined]  # what inspect looks for
    return build


def signature(kind: type[Member]) -> inspect.Signature:
    """The arguments of a layer of a kind of member: its settings and `seed`."""
    seed = inspect.Parameter("seed", inspect.Parameter.KEYWORD_ONLY, default=None, annotation="int | Key | None")
    return inspect.Signature([*inspect.signature(kind).parameters.values(), seed])


def documentation(kind: type[Member]) -> str:
    """The docstring of a layer of a kind of member: the member's, with `seed` among the arguments."""
    text, mark, raises = (inspect.getdoc(kind) or "").partition("\n\nRaises:")
    start = "" if "\n\nArgs:\n" in text else "\n\nArgs:"
    seed = "    seed: an integer or a `Key`; without one, keyed by `manual_seed`, or by the framework's own generator."
    return f"{text}{start}\n{seed}{mark}{raises}"


class OfMember:
    """Mixin of layers that have a `member`: its p is the layer's."""

    member: Any

    @property
    def p(self) -> Any:
        """The member's p; setting it replaces the member."""
        return self.member.p

    @p.setter
    def p(self, value: float) -> None:
        self.member = replace(self.member, p=value)


def settings(member: Member) -> str:
    """A member's settings as a layer's repr shows them."""
    return ", ".join(f"{each.name}={getattr(member, each.name)}" for each in fields(member))


def mask_axes(layer: Any, member: Member, shape: tuple[int, ...] | None) -> tuple[int, ...]:
    """Along which one decision of a layer's member holds for all elements of an input, for a `multidrop.view.Drawing`.

    Args:
        layer: the layer, which the errors show.
        member: its member.
        shape: the input's; None where it is not known.

    Raises:
        TypeError: for a member that is no mask.
        ValueError: for a shape that it does not take.
    """
    if not isinstance(member, MaskMember):
        raise TypeError(f"layer: expected one of {', '.join(_masks())}, which drop by a mask; got {shown(layer)}")
    try:
        return () if shape is None else member.axes(len(shape))
    except ValueError as error:
        raise ValueError(f"shape: expected that of an input of {shown(layer)}; got {shape}") from error


def _masks() -> list[str]:
    return [name for name, kind in MEMBERS.items() if issubclass(kind, MaskMember)]
