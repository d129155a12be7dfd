"""The optional parts that the section needs: nets, and what trains them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol, SupportsFloat, SupportsInt

import numpy.typing as npt

from .types import Model, Tensor

State = dict[str, npt.NDArray[Any]]
"""A net's state by name, the same names and layouts in every backend: `W1`, `b1`, … the weights, W of shape
(inputs, outputs), b of shape (outputs,); `dropout1`, … the mask streams, uint64 (seed, call of the next mask)."""


class Section(Protocol):
    """Optional: the net of the dropout section, which `multidrop.train` trains."""

    def Net(self, **architecture: Any) -> Model:
        """`multidrop.Net`, with all arguments by name: the fields of
        `multidrop.section.architecture.NetArchitecture`."""
        ...

    def perceptron(self, **architecture: Any) -> Model:
        """`multidrop.perceptron`, with all arguments by name: the fields of
        `multidrop.section.architecture.PerceptronArchitecture`."""
        ...

    def get_state(self, net: Model) -> State:
        """A net's weights and mask streams, copied to the host."""
        ...

    def set_state(self, net: Model, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Gives a net the weights and mask streams of `state`; ValueError where names or shapes do not fit."""
        ...

    def Trainer(self, net: Model, lr: float, weight_decay: float = 0.0) -> Trainer:
        """What trains and evaluates `net`: w ← w − lr·(mean gradient + weight_decay·w), no decay for biases."""
        ...


class Trainer(Protocol):
    """Minibatch SGD on softmax cross-entropy, for one net.

    Both methods return scalars that `float` and `int` convert: Python's, or the framework's own. A device can then
    compute ahead, because `multidrop.train` converts the scalars of an epoch at its end.
    """

    compiles: bool
    """Whether the first step compiles or traces the net, which takes longer than a step."""

    def step(self, X: Tensor, y: Tensor) -> tuple[SupportsFloat, SupportsInt]:
        """One step of SGD on one batch, in training mode.

        Args:
            X: examples, shape (n, …), of the net's floating type.
            y: labels, shape (n,), integers.

        Returns:
            The sum of the n losses, and how many examples were classified rightly, both from before the update.
        """
        ...

    def evaluate(self, X: Tensor, y: Tensor) -> tuple[SupportsFloat, SupportsInt]:
        """The sum of the losses of one batch, and how many examples are classified rightly, in evaluation mode."""
        ...


Pass = Callable[[npt.NDArray[Any], int], Iterator[tuple[Tensor, Tensor]]]
"""Gives the batches of one pass over a data set, from the order of the examples, int64 of shape (n,), and the number of
examples in a batch."""


class Resident(Protocol):
    """Optional: a `Trainer` that keeps a data set on its net's device."""

    def resident(self, X: npt.NDArray[Any], y: npt.NDArray[Any], values: npt.NDArray[Any] | None) -> Pass | None:
        """Copies a data set to the net's device.

        Args:
            X: examples, shape (n, …), floating, or uint8 with `values`.
            y: labels, int64 of shape (n,).
            values: floating, of shape (256,): batches hold values[x] in the place of each x.

        Returns:
            What gives the batches; None where they are better made on the host.
        """
        ...


class Threads(Protocol):
    """Optional: a limit on the framework's own threads. Experiments use it, because the number of threads may change
    the order of a sum. A backend whose threads the environment limits (OMP_NUM_THREADS) has none."""

    def one_thread(self) -> None:
        """Has operators of this process run in one thread each, if the framework has not started others."""
        ...


class Devices(Protocol):
    """Optional: devices besides the CPU, for the net of the section."""

    def devices(self) -> Mapping[str, AbstractContextManager[Any]]:
        """The devices that are here, "cpu" first, then such as "cuda:0": for each a context manager, within which
        nets are built on that device. `Trainer` takes batches from anywhere to where its net is."""
        ...
