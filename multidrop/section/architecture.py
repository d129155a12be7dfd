"""The section's multilayer perceptron as data: its sizes and its noise, checked once, and its initial weights."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from itertools import pairwise
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, overload

import numpy as np

from .. import checks
from ..family import ConcreteDropout, Dropout, Member
from ..protocol import State
from ..spec.keys import Key, as_key
from ..streams import seeds_for

INITIAL_DEVIATION = 0.01
DTYPES = ("float32", "float64")

P = ParamSpec("P")
Settings = TypeVar("Settings", covariant=True)
Built = TypeVar("Built", covariant=True)


@dataclass(frozen=True)
class PerceptronArchitecture:
    """The arguments of `multidrop.perceptron`, checked: linear layers with ReLU between them, some of which noise
    disturbs in training.

    Args:
        sizes: the length of a flattened example, the units of each hidden layer, and the number of outputs: two sizes
            or more. Inputs have shape (n, …) with sizes[0] elements each; outputs are logits of shape (n, sizes[-1]).
        noise: for each linear layer a member of `multidrop.family`, None, or p, which stands for `Dropout(p)`. A member
            disturbs the layer's input: noise[0] that of the net. One of weights, such as `DropConnect`, disturbs the
            layer's weights W of shape (inputs, outputs). None in the place of all: no noise at all.
        seed: keys the initial weights and the masks, as `manual_seed(seed)` before would: equal in every backend.
        dtype: "float32" or "float64", of weights and outputs.

    Raises:
        ValueError: for fewer than two sizes, a size below 1 or beyond all memory, a number of entries in `noise` that
            is not that of the linear layers, a member for images or sequences, a bad probability or seed, or another
            dtype.
    """

    sizes: Sequence[int] = (784, 256, 256, 10)
    noise: Sequence[Member | float | None] | None = (None, Dropout(0.2), Dropout(0.5))
    _: KW_ONLY
    seed: int | Key | None = None
    dtype: str = "float32"

    def __post_init__(self) -> None:
        if not _is_sequence(self.sizes) or len(self.sizes) < 2:
            raise ValueError(f"sizes: expected two integers above 0 or more; got {checks.shown(self.sizes)}")
        sizes = tuple(checks.positive(f"sizes[{i}]", size) for i, size in enumerate(self.sizes))
        _check_weights(sizes, [f"sizes[{i}]" for i in range(len(sizes))])
        object.__setattr__(self, "sizes", sizes)
        noise = [None] * (len(sizes) - 1) if self.noise is None else self.noise
        if not _is_sequence(noise) or len(noise) != len(sizes) - 1:
            raise ValueError(
                f"noise: expected {len(sizes) - 1} members, numbers or None, one for each linear layer; "
                f"got {checks.shown(noise)}"
            )
        shapes = zip(noise, self.layers, strict=True)
        members = tuple(_noise(f"noise[{i}]", each, shape) for i, (each, shape) in enumerate(shapes))
        object.__setattr__(self, "noise", members)
        object.__setattr__(self, "seed", None if self.seed is None else as_key(self.seed, "seed"))
        object.__setattr__(self, "dtype", checks.choice("dtype", self.dtype, DTYPES))

    @property
    def layers(self) -> tuple[tuple[int, int], ...]:
        """(inputs, outputs) of each linear layer."""
        return tuple(pairwise(self.sizes))

    @property
    def members(self) -> tuple[Member | None, ...]:
        """`noise`, in which a number has become a member."""
        return self.noise  # type: ignore[return-value]  # since `__post_init__`

    def initial_weights(self, key: Key) -> State:
        """`W1`, `b1`, … as host arrays: weights normal with deviation 0.01, biases zero. Then `logit1`, … of members
        that learn their p.

        The weights are drawn in float64 by one generator that the key seeds, so that every backend starts equal, and
        then rounded to the net's dtype.
        """
        generator = np.random.Generator(np.random.Philox(key=key.seed))
        state: State = {}
        for number, (inputs, outputs) in enumerate(self.layers, start=1):
            state[f"W{number}"] = generator.normal(0.0, INITIAL_DEVIATION, (inputs, outputs)).astype(self.dtype)
            state[f"b{number}"] = np.zeros(outputs, self.dtype)
        for number, member in enumerate(self.members):
            if isinstance(member, ConcreteDropout):
                state[f"logit{number}"] = np.array(member.logit, self.dtype)
        return state

    def start(self, framework: str, draw_key: Callable[[], Key]) -> tuple[State, tuple[Key | None, ...]]:
        """The initial weights of a new net, and the keys of its noise, one for each linear layer: from `seed`, else
        from `manual_seed`. Where neither is given, the weights' key is drawn and the noise has none.

        Args:
            framework: the backend's name.
            draw_key: draws a key from the framework's generator.
        """
        seeds = seeds_for(framework, self.seed)
        weights = self.initial_weights(seeds.next("weights") or draw_key())
        return weights, tuple(None if member is None else seeds.next("dropout") for member in self.members)

    def noise_layers(self, keys: Sequence[Key | None], layer: Callable[..., Any]) -> list[tuple[Any, Any]]:
        """For each linear layer, the layer that disturbs its input and the one that disturbs its weights, or None.

        Args:
            keys: those of `start`.
            layer: builds a layer of a member, given a `seed`: a backend's `layer`.
        """
        layers = [
            None if member is None else layer(member, seed=key) for member, key in zip(self.members, keys, strict=True)
        ]
        of_weights = [member is not None and member.of_weights for member in self.members]
        return [(None, noise) if own else (noise, None) for noise, own in zip(layers, of_weights, strict=True)]


@dataclass(frozen=True)
class Architecture:
    """The arguments of `multidrop.concise_net`, checked: a perceptron, 784-256-256-10 by default, each of whose layers
    but the last is followed by ReLU and dropout.

    Args:
        num_inputs: length of a flattened example; inputs have shape (n, …) with that many elements each.
        num_outputs: number of classes; outputs are logits of shape (n, num_outputs).
        num_hiddens1: units of the first hidden layer.
        num_hiddens2: units of the second hidden layer.
        dropout1: p after the first hidden layer, in [0, 1].
        dropout2: p after the second hidden layer, in [0, 1].
        seed: keys the initial weights and the masks, as `manual_seed(seed)` before would: equal in every backend.
        dtype: "float32" or "float64", of weights and outputs.

    Raises:
        ValueError: for a size below 1 or beyond all memory, a probability outside [0, 1], a bad seed or another dtype.
    """

    num_inputs: int = 784
    num_outputs: int = 10
    num_hiddens1: int = 256
    num_hiddens2: int = 256
    _: KW_ONLY
    dropout1: float = 0.2
    dropout2: float = 0.5
    seed: int | Key | None = None
    dtype: str = "float32"

    def __post_init__(self) -> None:
        for name in ("num_inputs", "num_outputs", "num_hiddens1", "num_hiddens2"):
            object.__setattr__(self, name, checks.positive(name, getattr(self, name)))
        for name in ("dropout1", "dropout2"):
            object.__setattr__(self, name, checks.probability(name, getattr(self, name)))
        names = ("num_inputs", "num_hiddens1", "num_hiddens2", "num_outputs")
        _check_weights([getattr(self, name) for name in names], names)
        object.__setattr__(self, "seed", self.perceptron.seed)
        object.__setattr__(self, "dtype", self.perceptron.dtype)

    @property
    def perceptron(self) -> PerceptronArchitecture:
        """The same as the arguments of `multidrop.perceptron`."""
        sizes = (self.num_inputs, self.num_hiddens1, self.num_hiddens2, self.num_outputs)
        return PerceptronArchitecture(
            sizes, (None, Dropout(self.dropout1), Dropout(self.dropout2)), seed=self.seed, dtype=self.dtype
        )


def _is_sequence(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _noise(name: str, value: object, shape: tuple[int, int]) -> Member | None:
    """The noise of a linear layer with weights of that shape, checked."""
    if value is None:
        return None
    if not isinstance(value, Member):
        try:
            return Dropout(checks.probability(name, value))
        except ValueError:
            expected = "a member of multidrop.family, a probability or None"
            raise ValueError(f"{name}: expected {expected}; got {checks.shown(value)}") from None
    try:
        value.check(shape if value.of_weights else (1, shape[0]))
    except ValueError as error:
        raise ValueError(
            f"{name}: expected a member that takes X of shape (n, {shape[0]}); got {checks.shown(value)}, which says: "
            f"{error}"
        ) from error
    return value


def _check_weights(sizes: Sequence[int], names: Sequence[str]) -> None:
    """That NumPy can number the weights of each layer, of eight bytes each; `names` are those of the sizes."""
    for pair in pairwise(zip(sizes, names, strict=True)):
        count, (_, name) = math.prod(size for size, _ in pair), max(pair, key=lambda each: each[0])
        if count >= 2**60:
            raise ValueError(f"{name}: expected fewer than 2^60 weights a layer; got {checks.shown(count)}")


@dataclass(frozen=True)
class NetArchitecture(Architecture):
    """The arguments of `multidrop.Net`, checked: those of `Architecture`, and one more.

    Args:
        is_training: whether the net drops at all in training mode. PyTorch's and NumPy's nets start in that mode;
            in TensorFlow and MXNet the call decides (`training=True`, `autograd.record()`), and a net with False
            never drops.

    Raises:
        ValueError: as `Architecture`, and for another `is_training` than True or False.
    """

    _: KW_ONLY
    is_training: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.flag("is_training", self.is_training)


class _SpellsOut(Protocol[P, Settings]):
    @overload
    def __call__(self, build: Callable[[Settings], Built]) -> Callable[P, Built]: ...
    @overload
    def __call__(self, build: Callable[[Any, Settings], Built]) -> Callable[Concatenate[Any, P], Built]: ...


def takes(settings: Callable[P, Settings]) -> _SpellsOut[P, Settings]:
    """A decorator of functions and methods whose last parameter is an object of the dataclass `settings`. Callers,
    `inspect.signature` and editors see the fields of that class as parameters in its place, and a docstring lists
    them."""

    def spell_out(build: Callable[..., Built]) -> Callable[..., Built]:
        own = inspect.signature(build)
        *before, _ = own.parameters.values()  # `self`, of a method
        spelled_out = own.replace(parameters=[*before, *inspect.signature(settings).parameters.values()])

        @functools.wraps(build)
        def built(*args: Any, **kwargs: Any) -> Built:
            try:
                spelled_out.bind(*args, **kwargs)
            except TypeError as error:
                raise TypeError(f"{build.__qualname__}() {error}") from None
            return build(*args[: len(before)], settings(*args[len(before) :], **kwargs))

        built.__signature__ = spelled_out  # type: ignore[attr-defined]  # what inspect looks for
        if build.__doc__:
            text, mark, raises = inspect.getdoc(build).partition("\n\nRaises:")  # type: ignore[union-attr]  # it has one
            built.__doc__ = f"{text}\n\nArgs:\n{_described(settings)}{mark}{raises}"
        return built

    return spell_out


def _described(settings: Any) -> str:
    """The lines on each field in the docstrings of a dataclass and of those that it extends."""
    texts = [inspect.getdoc(each) or "" for each in reversed(settings.__mro__[:-1])]
    return "\n".join(text.partition("Args:\n")[2].partition("\n\n")[0] for text in texts)
