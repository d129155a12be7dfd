"""What a member of the family is, and the numbers that it is given: the contract between a formula and a framework.

A member is a value: a frozen dataclass of numbers and words. Called with a tensor of any framework and a `Draw`, which
holds the numbers of one key as that framework's tensors, it gives its output for training. It keeps to the operators
of Python (+, *, &, slices) and to what a `Draw` has, so that it is written once and runs everywhere.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any, ClassVar, Protocol

from .. import checks

Tensor = Any

MEMBERS: dict[str, type[Member]] = {}
"""Every class of members by its name, those of other packages included: a compiled program names a member by it."""


class Draw(Protocol):
    """The numbers of one key, for the tensor X that a member is given.

    Element i of a shape that decisions are drawn for has the uniform U(i) of the specification. `axes` are those along
    which one decision holds for all elements: the shape has 1 there. `margin` is by how much the shape is larger than
    X along each axis.
    """

    @property
    def xp(self) -> Any:
        """The namespace of the framework's elementwise functions: `log`, `exp`, `tanh`, …"""
        ...

    def dropout(self, X: Tensor, p: float, axes: tuple[int, ...] = ()) -> Tensor:
        """`select(X, keep(X, p, axes), 1/(1 − p))`, in one pass where the framework has one. In X's type."""
        ...

    def keep(self, X: Tensor, p: float, axes: tuple[int, ...] = (), margin: tuple[int, ...] = ()) -> Tensor:
        """A bool tensor of the shape drawn for, False with probability p."""
        ...

    def normal(self, X: Tensor, mean: float, stddev: float) -> Tensor:
        """mean + stddev·z for each element, computed in float64 and rounded once to the type that X is computed in."""
        ...

    def uniform(self, X: Tensor) -> Tensor:
        """(U + 1/2)/2^32 for each element, in (0, 1), float64."""
        ...

    def select(self, X: Tensor, keep: Tensor, scale: float) -> Tensor:
        """X·scale where kept, computed as `wide` says and rounded once to X's type; +0 elsewhere, whatever X holds."""
        ...

    def wide(self, values: Tensor, X: Tensor) -> Tensor:
        """`values` in the type that X is computed in: float64 for float64, float32 for others."""
        ...

    def narrow(self, values: Tensor, X: Tensor) -> Tensor:
        """`values` in X's type."""
        ...


def setting(default: Any, check: Callable[[str, Any], Any], choices: tuple[Any, ...] = ()) -> Any:
    """A field of a member: its default, what checks a value (given the field's name), and all values, if few."""
    return field(default=default, metadata={"check": check, "choices": choices})


def rate(default: float) -> Any:
    """A field: a probability in [0, 1]."""
    return setting(default, checks.probability)


def size(default: int) -> Any:
    """A field: an integer above 0."""
    return setting(default, checks.positive)


def one_of(*choices: str) -> Any:
    """A field: one of these words, by default the first."""
    return setting(choices[0], lambda name, value: checks.choice(name, value, choices), choices)


def flag(default: bool) -> Any:
    """A field: True or False."""
    return setting(default, checks.flag, (False, True))


CHANNELS_FIRST, CHANNELS_LAST = "channels_first", "channels_last"


def images(ndim: int, data_format: str) -> tuple[int, ...]:
    """The axes of the positions in (n, c, …) or (n, …, c), of one, two or three dimensions.

    Raises:
        ValueError: for another number of dimensions.
    """
    dimensions(ndim, range(3, 6), "(n, c, …) or (n, …, c), with one to three dimensions of positions")
    return tuple(range(2, ndim)) if data_format == CHANNELS_FIRST else tuple(range(1, ndim - 1))


def whole_channels(member: Any, ndim: int) -> tuple[int, ...]:
    """`Member.axes` of a member that drops whole channels, which are where its `data_format` says."""
    return images(ndim, member.data_format)


def dimensions(ndim: int, expected: range, layout: str) -> None:
    """Checks how many dimensions X has.

    Raises:
        ValueError: where they are not as many as `expected`; it shows the layout.
    """
    if ndim not in expected:
        low, high = expected[0], expected[-1]
        raise ValueError(f"X: expected {low} to {high} dimensions, {layout}; got {ndim}")


ANY = 32  # as many dimensions as an array of NumPy 1 can have


def extent(
    shape: Sequence[int], start: int, axes: tuple[int, ...] = (), margin: tuple[int, ...] = ()
) -> tuple[tuple[int, ...], int]:
    """Where the decisions for a tensor lie among those for the whole that it is a part of.

    Args:
        shape: the tensor's; the whole has the same, but for the first axis.
        start: the index of the tensor's first element in the whole.
        axes: along which one decision holds for all.
        margin: by how much the shape drawn for is larger along each axis; none along the first.

    Returns:
        The shape to draw for, and the index of its first element.

    Raises:
        ValueError: where an index would leave [0, 2^64), and for a part that begins within an example, where elements
            share decisions.
    """
    wider = margin or (0,) * len(shape)
    drawn = tuple(1 if axis in axes else n + more for axis, (n, more) in enumerate(zip(shape, wider, strict=True)))
    start = checks.span(start, math.prod(shape))
    if start and (axes or margin):
        example = math.prod(shape[1:])
        number, rest = divmod(start, example) if example else (0, 0)
        if rest:
            raise ValueError(
                f"start: expected a multiple of {example}, the size of X[0], for elements share decisions; got {start}"
            )
        start = 0 if 0 in axes else number * math.prod(drawn[1:])
    return drawn, checks.span(start, math.prod(drawn))


@dataclass(frozen=True)
class Member:
    """A way of making a net noisy in training.

    Given its draws, a member takes each element of X by itself, and linearly but for a constant. So its Jacobian is
    diagonal, and `gradient` serves the backward pass, each further derivative, and forward mode.
    """

    example_shape: ClassVar[tuple[int, ...]] = (4, 3)
    """A shape that it takes."""
    unbiased: ClassVar[bool] = True
    """Whether E[output] = X."""
    learns: ClassVar[bool] = False
    """Whether it can be given a tensor that is learned, as the argument `learned` after the draw, which the framework
    differentiates; in NumPy and MXNet `learned_gradient` does. Such a member draws by `uniform` alone, which torch's
    compiler can differentiate past."""

    text = ""
    """The member as JSON: its class and settings. A program that is compiled holds it; see `of_text`. Made once, for a
    compiler may know a setting that changed as a variable, and no value to write."""

    def __init_subclass__(cls, listed: bool = True) -> None:
        """Lists the class; one that is defined again, as in a notebook, takes the place of the first.

        Raises:
            ValueError: where another class has its name.
        """
        if not listed:
            return
        other = MEMBERS.setdefault(cls.__name__, cls)
        if (other.__module__, other.__qualname__) != (cls.__module__, cls.__qualname__):
            raise ValueError(
                f"member: expected a name that no other has; got {cls.__name__} of {cls.__module__}, which "
                f"{other.__module__} has too"
            )
        MEMBERS[cls.__name__] = cls
        of_text.cache_clear()

    def __post_init__(self) -> None:
        for each in fields(self):
            object.__setattr__(self, each.name, each.metadata["check"](each.name, getattr(self, each.name)))
        text = _text(type(self).__name__, *((each.name, getattr(self, each.name)) for each in fields(self)))
        object.__setattr__(self, "text", text)

    def __call__(self, X: Tensor, draw: Draw) -> Tensor:
        """The output for X, in X's type or in the one that it is computed in."""
        raise NotImplementedError(f"{type(self).__name__}.__call__")  # each member's own

    def gradient(self, dY: Tensor, draw: Draw) -> Tensor:
        """The gradient with respect to X, from dY, the one with respect to the output, by the same draws."""
        return self(dY, draw)

    def axes(self, ndim: int) -> tuple[int, ...]:
        """Along which one decision holds for all elements of an X of so many dimensions.

        Raises:
            ValueError: where it takes none of so many.
        """
        return ()

    def margin(self, ndim: int) -> tuple[int, ...]:
        """By how much what is drawn for is larger than X along each axis; () for nothing."""
        return ()

    def check(self, shape: Sequence[int], start: int = 0) -> int:
        """Checks a tensor's shape and where it begins in the whole, before a key is taken.

        Returns:
            The start, as an int.

        Raises:
            ValueError: where the member does not take it.
        """
        start = checks.word64("start", start)
        extent(shape, start, self.axes(len(shape)), self.margin(len(shape)))
        return start

    @property
    def idle(self) -> bool:
        """Whether it gives X back as it is: at p = 0."""
        return getattr(self, "p", None) == 0.0


class MaskMember(Member, listed=False):
    """A member that is a dropout, with one decision along some axes: X/(1 − p) where kept, +0 elsewhere."""

    p: float

    def __call__(self, X: Tensor, draw: Draw) -> Tensor:
        return draw.dropout(X, self.p, self.axes(len(X.shape)))


def _text(name: str, *settings: tuple[str, Any]) -> str:
    return json.dumps([name, dict(settings)])


_text._dynamo_marked_constant = True  # type: ignore[attr-defined]  # torch's tracer calls it, for it cannot follow `json`


@cache
def of_text(text: str) -> Member:
    """The member that has this `text`.

    Raises:
        ValueError: where no class of its name is known.
    """
    name, settings = json.loads(text)
    if name not in MEMBERS:
        raise ValueError(f"member: expected one whose class is imported; got {checks.shown(name)}")
    return MEMBERS[name](**settings)


def run(member: Member, X: Tensor, draw: Draw, gradient: bool = False, learned: Tensor | None = None) -> Tensor:
    """A member's output for X, or its gradient for an output's gradient X; in X's type.

    Args:
        learned: the tensor that is learned, of a member that has one.
    """
    if learned is not None:
        Y = member(X, draw, learned)  # type: ignore[call-arg]  # those that learn take it
    elif member.idle:
        return X
    else:
        Y = member.gradient(X, draw) if gradient else member(X, draw)
    return draw.narrow(Y, X)


def checked(member: object, learned: Tensor | None = None, shape: Sequence[int | None] | None = None) -> Member:
    """`member`, where it is one, and takes `learned` with an X of that shape; None stands for what is not known.

    Raises:
        ValueError: where it does not.
    """
    if not isinstance(member, Member):
        raise ValueError(f"member: expected a member of multidrop.family; got {checks.shown(member)}")
    if learned is not None and not member.learns:
        raise ValueError(f"learned: expected None, for {type(member).__name__} learns nothing; got a tensor")
    if learned is not None and shape is not None:
        pairs = zip(reversed(learned.shape), reversed(shape), strict=False)
        fits = all(size in (1, wide) or None in (size, wide) for size, wide in pairs)
        if len(learned.shape) > len(shape) or not fits:
            raise ValueError(
                f"learned: expected a shape that can be broadcast to X's, {tuple(shape)}; got {tuple(learned.shape)}"
            )
    return member
