"""The contract between a formula and a framework: `Member`, and `Draw`, which gives it random numbers.

A member is a value: a frozen dataclass of numbers and words. It takes a tensor of any framework and a `Draw`, which
holds the random numbers of one key as that framework's tensors, and returns its output in training. It uses Python's
operators (+, *, &, slices) and the methods of `Draw` alone, so that it is written once and runs in every framework.
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
"""Every class of members by its name, also those of other packages. Compiled programs refer to a member by name."""


class Draw(Protocol):
    """The random numbers of one key, for the tensor X that a member is given.

    Decisions are drawn for a shape, whose element i has the uniform U(i) of the specification. Along `axes`, all
    elements share one decision: the shape has 1 there. Along each axis the shape is larger than X by `margin`.
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
        """mean + stddev·z for each element, computed in float64 and rounded once to X's compute type (see `wide`)."""
        ...

    def uniform(self, X: Tensor) -> Tensor:
        """(U + 1/2)/2^32 for each element, in (0, 1), float64."""
        ...

    def select(self, X: Tensor, keep: Tensor, scale: float) -> Tensor:
        """X·scale where kept, computed as `wide` says and rounded once to X's type; +0 elsewhere, whatever X holds."""
        ...

    def wide(self, values: Tensor, X: Tensor) -> Tensor:
        """`values` in X's compute type: float64 for float64, float32 for the other types."""
        ...

    def narrow(self, values: Tensor, X: Tensor) -> Tensor:
        """`values` in X's type."""
        ...


def setting(default: Any, check: Callable[[str, Any], Any], choices: tuple[Any, ...] = ()) -> Any:
    """A field of a member.

    Args:
        default: its default.
        check: checks and converts a value; takes the field's name and the value.
        choices: all values, of a field that has few. Tests try each.
    """
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


def some_axes() -> Any:
    """A field: axes of X, which may be negative; by default none."""
    return setting((), lambda _, value: checks.axis_numbers(value))


def along(member: Any, ndim: int) -> tuple[int, ...]:
    """`Member.axes` of a member whose elements share decisions along those of its field `shared`."""
    return checks.axes(member.shared, ndim)


CHANNELS_FIRST, CHANNELS_LAST = "channels_first", "channels_last"


def images(ndim: int, data_format: str) -> tuple[int, ...]:
    """The spatial axes of (n, c, …) or (n, …, c): one, two or three.

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
    """Finds the decisions for a part among those for the whole tensor.

    Args:
        shape: the part's shape, which differs from the whole's along the first axis alone.
        start: the index of the part's first element in the whole.
        axes: axes along which all elements share one decision.
        margin: how much larger than X the shape of the decisions is along each axis; 0 along the first.

    Returns:
        The shape of the part's decisions, and the index of the first one.

    Raises:
        ValueError: if an index leaves [0, 2^64), or if elements share decisions and the part begins within an example.
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
    """Noise for a net in training.

    With its random numbers fixed, a member is an affine function of each element of X by itself. Its Jacobian is
    therefore diagonal, and `gradient` serves the backward pass, higher derivatives and forward mode.
    """

    example_shape: ClassVar[tuple[int, ...]] = (4, 3)
    """A shape that the member accepts; tests use it."""
    unbiased: ClassVar[bool] = True
    """Whether E[output] = X."""
    of_weights: ClassVar[bool] = False
    """Whether X is a weight, which a layer then computes with, and not an activation."""
    learns: ClassVar[bool] = False
    """Whether `__call__` takes a third argument, `learned`: a tensor that is trained. torch and TensorFlow
    differentiate with respect to it; NumPy and MXNet call `learned_gradient`. Such a member draws by `uniform` alone,
    because torch's compiler has to differentiate the formula."""

    text = ""
    """The member as JSON: its class and settings. Compiled programs hold it; see `of_text`. It is made at construction,
    because a compiler may hold a changed setting as a symbol, which has no value to write."""

    def __init_subclass__(cls, listed: bool = True) -> None:
        """Lists the class. Defined again, as in a notebook, it replaces the first.

        Raises:
            ValueError: if another class has its name.
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
        """The gradient with respect to X for dY, the gradient with respect to the output, with the same numbers."""
        return self(dY, draw)

    def axes(self, ndim: int) -> tuple[int, ...]:
        """The axes along which all elements share one decision, for an X of `ndim` dimensions.

        Raises:
            ValueError: if the member takes no X of `ndim` dimensions.
        """
        return ()

    def margin(self, ndim: int) -> tuple[int, ...]:
        """How much larger than X the shape of the decisions is along each axis; () where it is X's."""
        return ()

    @property
    def batch_axis(self) -> int:
        """The axis of X along which the examples of a batch lie."""
        return 0

    def check(self, shape: Sequence[int], start: int = 0) -> int:
        """Checks a tensor's shape and its start in the whole, before a key is taken.

        Returns:
            The start as an int.

        Raises:
            ValueError: if the member does not take the shape, or no part begins at that start.
        """
        start = checks.word64("start", start)
        extent(shape, start, self.axes(len(shape)), self.margin(len(shape)))
        return start

    @property
    def idle(self) -> bool:
        """Whether the member returns X unchanged, as at p = 0."""
        return getattr(self, "p", None) == 0.0


class MaskMember(Member, listed=False):
    """A member that drops by one mask: X/(1 − p) where kept, +0 elsewhere. Elements share decisions along `axes`."""

    p: float

    def __call__(self, X: Tensor, draw: Draw) -> Tensor:
        return draw.dropout(X, self.p, self.axes(len(X.shape)))


def _text(name: str, *settings: tuple[str, Any]) -> str:
    return json.dumps([name, dict(settings)])


_text._dynamo_marked_constant = True  # type: ignore[attr-defined]  # torch's tracer calls it, because it cannot trace `json`


@cache
def of_text(text: str) -> Member:
    """The member with this `text`.

    Raises:
        ValueError: if no class of its name is known.
    """
    name, settings = json.loads(text)
    if name not in MEMBERS:
        raise ValueError(f"member: expected one whose class is imported; got {checks.shown(name)}")
    return MEMBERS[name](**settings)


def run(member: Member, X: Tensor, draw: Draw, gradient: bool = False, learned: Tensor | None = None) -> Tensor:
    """Runs a member.

    Args:
        member: the member.
        X: its input; with `gradient`, the gradient with respect to its output.
        draw: the random numbers.
        gradient: whether to compute the gradient with respect to the input.
        learned: the tensor that the member learns, if any.

    Returns:
        The output or the gradient, in X's type.
    """
    if learned is not None:
        Y = member(X, draw, learned)  # type: ignore[call-arg]  # those that learn take it
    elif member.idle:
        return X
    else:
        Y = member.gradient(X, draw) if gradient else member(X, draw)
    return draw.narrow(Y, X)


def checked(member: object, learned: Tensor | None = None, shape: Sequence[int | None] | None = None) -> Member:
    """Checks that `member` is a member, and that it takes `learned` with an X of that shape.

    Args:
        member: the object to check.
        learned: the tensor that it is to learn.
        shape: X's, with None for an unknown size; None if nothing is known of it.

    Returns:
        The member.

    Raises:
        ValueError: if it is none, or does not take `learned`.
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
