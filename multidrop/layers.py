"""Layers of any member of the dropout family. `layer` builds one. Each listed member has a short constructor of its
name, here and in `multidrop`: `md.DropPath(0.1)` is `md.layer(md.family.DropPath(0.1))`."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import fields, replace
from functools import cache
from typing import Any, ClassVar

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


@cache  # pickle finds a function by its name, which must give the same object each time
def constructor(kind: type[Member]) -> Callable[..., Any]:
    """The function that builds a layer from a member's settings and a seed."""

    def build(*settings: Any, seed: int | Key | None = None, **named: Any) -> Any:
        return layer(kind(*settings, **named), seed=seed)

    build.__module__, build.__name__, build.__qualname__ = __name__, kind.__name__, kind.__name__
    build.__doc__ = documentation(kind)
    build.__signature__ = signature(kind)  # type: ignore[attr-defined]  # what inspect looks for
    return build


def from_table(layers: Mapping[type[Member], Any], member: Member, seed: int | Key | None, **more: Any) -> Any:
    """A layer of a member: of the class that the table `layers` has for its kind, which takes the member's settings, or
    else of the one for `Member`, which takes any member. `more` are further arguments of the framework's layers."""
    named = layers.get(type(member))
    if named is None:
        return layers[Member](member, seed=seed, **more)
    return named(*settings(member).values(), seed=seed, **more)


def signature(kind: type[Member], rate: str = "p", chosen: Collection[str] = ()) -> inspect.Signature:
    """The arguments of a layer of a kind of member: its settings, of which p has the name `rate` and those `chosen` by
    the framework the default None, and `seed`."""
    seed = inspect.Parameter("seed", inspect.Parameter.KEYWORD_ONLY, default=None, annotation="int | Key | None")
    own = inspect.signature(kind).parameters
    changed: dict[str, dict[str, Any]] = {"p": {"name": rate}, **{name: {"default": None} for name in chosen}}
    return inspect.Signature([*(each.replace(**changed.get(name, {})) for name, each in own.items()), seed])


def documentation(kind: type[Member], rate: str = "p", more: str = "") -> str:
    """The docstring of a layer of a kind of member: the member's, with `seed` among the arguments, and what `more` says
    of further ones. p has the name `rate`."""
    text, mark, raises = (inspect.getdoc(kind) or "").partition("\n\nRaises:")
    text = text if rate == "p" else re.sub("^    p: ", f"    {rate}: p, ", text, flags=re.MULTILINE)
    start = "" if "\n\nArgs:\n" in text else "\n\nArgs:"
    seed = "    seed: an integer or a `Key`; without one, keyed by `manual_seed`, or by the framework's own generator."
    return f"{text}{start}\n{seed}{more and chr(10) + more}{mark}{raises}"


def settings(member: Member, rate: str = "p") -> dict[str, Any]:
    """A member's settings by name, p by the name `rate`."""
    return {rate if each.name == "p" else each.name: getattr(member, each.name) for each in fields(member)}


def shown_settings(member: Member, rate: str = "p") -> str:
    """A member's settings as a layer's repr shows them, p by the name `rate`."""
    return ", ".join(f"{name}={value}" for name, value in settings(member, rate).items())


def mask_axes(layer: Any, member: Member, shape: tuple[int, ...] | None) -> tuple[int, ...]:
    """The axes along which elements of a layer's input share one decision, for a `multidrop.view.Drawing`.

    Args:
        layer: the layer, which errors show.
        member: its member.
        shape: the input's shape, or None if it is not known.

    Raises:
        TypeError: if the member does not drop by one mask.
        ValueError: if the member does not take the shape.
    """
    if not isinstance(member, MaskMember):
        raise TypeError(f"layer: expected one of {', '.join(_masks())}, which drop by a mask; got {shown(layer)}")
    try:
        return () if shape is None else member.axes(len(shape))
    except ValueError as error:
        raise ValueError(f"shape: expected that of an input of {shown(layer)}; got {shape}") from error


def _masks() -> list[str]:
    return [name for name, kind in MEMBERS.items() if issubclass(kind, MaskMember)]


class OfMember:
    """Base class of the layers of any member, for every framework: holds the member."""

    member: Any
    """The member. To change a setting, as a schedule does, set another one; `p` sets the member's p."""

    @property
    def p(self) -> Any:
        """The member's p."""
        return self.member.p

    @p.setter
    def p(self, value: float) -> None:
        self.member = replace(self.member, p=value)

    @property
    def _p(self) -> float | None:
        """The probability that an element is dropped; None for a member without a mask."""
        return self.member.p if isinstance(self.member, MaskMember) else None

    def _axes_for(self, shape: tuple[int, ...] | None) -> tuple[int, ...]:
        return mask_axes(self, self.member, shape)

    def _noise(self, shape: tuple[int, ...]) -> Member:
        return self.member


class OfSettings(OfMember):
    """Base class of the layers of one kind of member, built from its settings, such as
    `class DropPath(OfSettings, kind=family.DropPath)`.

    A framework derives its own base class from this one and from its layer of any member, and sets the first four
    attributes there.
    """

    layers: ClassVar[dict[type[Member], Any]]
    """The classes by the kind of member, for `from_table`; each class adds itself."""
    name_of_p: ClassVar[str] = "p"
    """What the framework calls p."""
    more: ClassVar[str] = ""
    """The documentation of further arguments that the framework's layers take."""
    chosen: ClassVar[Mapping[str, Callable[[], Any]]] = {}
    """The settings whose default the framework chooses, and not the member, by name."""

    kind: ClassVar[type[Member]]

    def __init_subclass__(cls, kind: type[Member] | None = None) -> None:
        super().__init_subclass__()
        if kind is not None:  # None for a subclass of the user's
            cls.kind, cls.__doc__ = kind, cls.__doc__ or documentation(kind, cls.name_of_p, cls.more)
            cls.__signature__ = signature(kind, cls.name_of_p, cls.chosen)  # type: ignore[attr-defined]  # for inspect
            cls.layers[kind] = cls

    def __init__(self, *settings: Any, seed: int | Key | None = None, **named: Any) -> None:
        own = signature(self.kind, self.name_of_p, self.chosen)
        given = own.bind(*settings, **{name: named.pop(name) for name in own.parameters if name in named}).arguments
        for name, default in self.chosen.items():
            if name in own.parameters and given.get(name) is None:
                given[name] = default()
        if self.name_of_p in given:
            (check,) = (each.metadata["check"] for each in fields(self.kind) if each.name == "p")
            given["p"] = check(self.name_of_p, given.pop(self.name_of_p))  # whose errors name p as the framework does
        super().__init__(self.kind(**given), seed=seed, **named)  # type: ignore[call-arg]  # the layer of any member
