"""The section's multilayer perceptron as data: its sizes and probabilities, checked once, its initial weights, and
the names that its state has in every backend."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass
from itertools import pairwise
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, overload

import numpy as np
import numpy.typing as npt

from .. import checks
from ..protocol import State
from ..spec.keys import Key, as_key
from ..streams import seeds_for

INITIAL_DEVIATION = 0.01
DTYPES = ("float32", "float64")

P = ParamSpec("P")
Settings = TypeVar("Settings", covariant=True)
Built = TypeVar("Built", covariant=True)


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
        object.__setattr__(self, "seed", None if self.seed is None else as_key(self.seed, "seed"))
        object.__setattr__(self, "dtype", checks.choice("dtype", self.dtype, DTYPES))
        order = ("num_inputs", "num_hiddens1", "num_hiddens2", "num_outputs")
        for pair in pairwise(order):
            count, name = (
                math.prod(getattr(self, name) for name in pair),
                max(pair, key=lambda name: getattr(self, name)),
            )
            if count >= 2**60:  # NumPy numbers no more, of eight bytes each
                raise ValueError(f"{name}: expected fewer than 2^60 weights a layer; got {checks.shown(count)}")

    @property
    def layers(self) -> tuple[tuple[int, int], ...]:
        """(inputs, outputs) of each linear layer."""
        sizes = (self.num_inputs, self.num_hiddens1, self.num_hiddens2, self.num_outputs)
        return tuple(pairwise(sizes))

    def initial_weights(self, key: Key) -> State:
        """`W1`, `b1`, … as host arrays: weights normal with deviation 0.01, biases zero.

        They are drawn in float64 by one generator that the key seeds, so that every backend starts equal, and then
        rounded to the net's dtype.
        """
        generator = np.random.Generator(np.random.Philox(key=key.seed))
        state: State = {}
        for number, (inputs, outputs) in enumerate(self.layers, start=1):
            state[f"W{number}"] = generator.normal(0.0, INITIAL_DEVIATION, (inputs, outputs)).astype(self.dtype)
            state[f"b{number}"] = np.zeros(outputs, self.dtype)
        return state

    def start(self, framework: str, draw_key: Callable[[], Key]) -> tuple[State, Key | None, Key | None]:
        """The initial weights of a new net, and the keys of its dropout layers: from `seed`, else from `manual_seed`,
        else from the framework's generator, where the layers have none.

        Args:
            framework: the backend's name.
            draw_key: draws a key from the framework's generator.
        """
        seeds = seeds_for(framework, self.seed)
        weights = self.initial_weights(seeds.next("weights") or draw_key())
        return weights, seeds.next("dropout"), seeds.next("dropout")


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


def state_of(weights: Mapping[str, npt.NDArray], keys: Mapping[str, Key]) -> State:
    """The state of a net with those weights, whose dropout layers `dropout1`, … have those keys next. A layer that
    follows its framework's generator has no key, and is left out."""
    return {**weights, **{name: np.array([key.seed, key.call], np.uint64) for name, key in keys.items()}}


def keys_in(state: Mapping[str, npt.NDArray], own: Mapping[str, npt.NDArray]) -> dict[str, Key]:
    """The keys of the dropout layers in a state, which must have just the names and shapes of the net's own state.

    Raises:
        ValueError: naming the first that differs.
    """
    missing, unknown = sorted(set(own) - set(state)), sorted(set(state) - set(own))
    if missing or unknown:
        raise ValueError(f"state: expected {sorted(own)}; missing {missing}, unknown {unknown}")
    for name, array in own.items():
        if state[name].shape != array.shape:
            raise ValueError(f"state: expected {name} of shape {array.shape}; got {state[name].shape}")
    return {name: Key(*map(int, state[name])) for name in own if name.startswith("dropout")}


def check_types(state: Mapping[str, npt.NDArray], own: Mapping[str, npt.NDArray]) -> None:
    """That a state's arrays have the types of the net's own state, of those that have the same name.

    Raises:
        ValueError: naming the first that differs.
    """
    for name in sorted(state.keys() & own.keys()):
        if state[name].dtype != own[name].dtype:
            raise ValueError(f"state: expected {name} of type {own[name].dtype}; got {state[name].dtype}")
