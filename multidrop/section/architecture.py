"""The section's multilayer perceptron as data: its sizes and probabilities, checked once, its initial weights, and
the names that its state has in every backend."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from .. import checks
from ..protocol import State
from ..spec.keys import Key

INITIAL_DEVIATION = 0.01
DTYPES = ("float32", "float64")


@dataclass(frozen=True)
class Architecture:
    """784-256-256-10 by default: every layer but the last followed by ReLU and dropout.

    Raises:
        ValueError: for a size below 1 or beyond all memory, a probability outside [0, 1] or a dtype other than float32
            and float64.
    """

    num_inputs: int
    num_outputs: int
    num_hiddens1: int
    num_hiddens2: int
    dropout1: float
    dropout2: float
    dtype: str

    def __post_init__(self) -> None:
        for name in ("num_inputs", "num_outputs", "num_hiddens1", "num_hiddens2"):
            object.__setattr__(self, name, checks.positive(name, getattr(self, name)))
        for name in ("dropout1", "dropout2"):
            object.__setattr__(self, name, checks.probability(name, getattr(self, name)))
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


def check_state(state: Mapping[str, npt.NDArray], expected: Mapping[str, tuple[int, ...]]) -> None:
    """That a state has just the names and shapes that a net expects.

    Raises:
        ValueError: naming the first that differs.
    """
    missing, unknown = sorted(set(expected) - set(state)), sorted(set(state) - set(expected))
    if missing or unknown:
        raise ValueError(f"state: expected {sorted(expected)}; missing {missing}, unknown {unknown}")
    for name, shape in expected.items():
        if state[name].shape != shape:
            raise ValueError(f"state: expected {name} of shape {shape}; got {state[name].shape}")


def check_types(state: Mapping[str, npt.NDArray], own: Mapping[str, npt.NDArray]) -> None:
    """That a state's arrays have the types of the net's own state, of those that have the same name.

    Raises:
        ValueError: naming the first that differs.
    """
    for name in sorted(state.keys() & own.keys()):
        if state[name].dtype != own[name].dtype:
            raise ValueError(f"state: expected {name} of type {own[name].dtype}; got {state[name].dtype}")
