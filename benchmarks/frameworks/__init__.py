"""The candidates of a comparison in each framework, under the same names, so that one loop measures all frameworks.

Each module imports its framework, so it is imported only in that framework's process (see `workers`).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np

NAMES = ("numpy", "torch", "tensorflow", "mxnet")

OURS, OWN, SECTION, COPY = "multidrop", "framework", "section", "copy"
"""The candidates: this library, the framework's own function, the section's formula, and a plain copy."""

NONE = "none"
"""No dropout at all."""

FUSED, APART, OWN_PAIR = "multidrop: relu_dropout", "multidrop: ReLU, then dropout", "framework: ReLU, then dropout"
"""The candidates for ReLU with dropout."""

EAGER = "eager"

P1, P2 = 0.2, 0.5
"""The probabilities of the section's net."""


@dataclass(frozen=True)
class Case:
    """An input of dropout, and the way to run it.

    Args:
        shape: the tensor's shape.
        p: the probability that an element is dropped.
        dtype: the name of the elements' type.
        layout: "contiguous", or "channels-last" for a shape with four dimensions, (n, c, h, w).
        mode: one of the framework's `modes`.
    """

    shape: tuple[int, ...] = (2048, 2048)
    p: float = 0.2
    dtype: str = "float32"
    layout: str = "contiguous"
    mode: str = EAGER

    @property
    def size(self) -> int:
        """The number of elements."""
        return int(np.prod(self.shape))

    def to_dict(self) -> dict[str, Any]:
        """The case as JSON can represent it."""
        return {**asdict(self), "size": self.size}


@dataclass(frozen=True)
class Candidate:
    """One way to compute dropout.

    Args:
        forward: returns the output Y.
        both: runs forward and backward; returns Y and the gradient dX. For the copy, these are copies of X and of dY.
    """

    forward: Callable[[], Any]
    both: Callable[[], tuple[Any, Any]]


class Framework(Protocol):
    """The benchmarks of one framework on one device."""

    name: str
    modes: tuple[str, ...]
    dtypes: tuple[str, ...]
    layouts: tuple[str, ...]

    def __init__(self, device: str) -> None:
        """`device` is "cpu" or "gpu"."""

    def candidates(self, case: Case) -> dict[str, Callable[[], Candidate]]:
        """Builders of the candidates for a case, by the names above. A builder raises if its candidate does not support
        the case."""

    def rectified(self, case: Case) -> dict[str, Callable[[], Candidate]]:
        """Builders of the candidates for ReLU with dropout."""

    def ways(self, case: Case) -> dict[str, Callable[[], Any]]:
        """Ways to call the dropout of this library and of the framework, forward only, named "multidrop: …" and
        "framework: …"."""

    def chain(self, who: str, depth: int, case: Case) -> tuple[Callable[[], Any], Callable[[Any], Any]]:
        """A function that applies dropout `depth` times, records the backward pass, and returns what that needs; and a
        function that runs the backward pass on it."""

    def nets(self) -> dict[str, Callable[[], Any]]:
        """Builders of the section's net, by the candidate that drops in it."""

    def train_as_in_section(self, net: Any, train_iter: Any, test_iter: Any, epochs: int, lr: float) -> float:
        """Runs the section's own training loop, and returns the test accuracy."""

    def scope(self) -> AbstractContextManager[Any]:
        """A context that makes nets and batches on the device."""

    def accounted(self, who: str, case: Case) -> int | None:
        """The bytes that one dropout keeps for its backward pass, by the framework's own accounting; None if it has
        none."""

    def in_use(self) -> int:
        """The bytes of memory in use on the device."""

    def synchronise(self) -> None:
        """Waits until all work is done."""

    def to_numpy(self, tensor: Any) -> Any:
        """Copies the values to the host; their type may change to float64."""


def load(name: str, device: str) -> Framework:
    """Imports the framework of that name.

    Raises:
        ImportError: if it is not installed, or does not support the device.
    """
    return importlib.import_module(f"{__name__}.on_{name}").Measured(device)


def inputs(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """X and dY as float32, in [1, 2), so that any zero in a result is a dropped element."""
    generator = np.random.default_rng(0)
    return tuple(generator.random(case.shape, np.float32) + np.float32(1) for _ in range(2))  # type: ignore[return-value]  # two


def check(framework: Framework, who: str, candidate: Candidate, case: Case) -> None:
    """Checks a candidate before it is timed: it drops the share p with a new mask in each call, scales the rest, and
    uses the same mask in the gradient. The copy must copy.

    Raises:
        AssertionError: if the candidate does not.
    """
    X, dY = (values.astype(np.float64) for values in inputs(case))
    first = np.array(framework.to_numpy(candidate.forward()), np.float64)
    Y, dX = (np.array(framework.to_numpy(tensor), np.float64) for tensor in candidate.both())
    rtol = 0.03 if case.dtype == "bfloat16" else 5e-3
    if who == COPY:
        np.testing.assert_allclose(first, X, rtol=rtol)
        np.testing.assert_allclose(Y, X, rtol=rtol)
        np.testing.assert_allclose(dX, dY, rtol=rtol)
        return
    for result, whole in ((first, X), (Y, X), (dX, dY)):
        assert result.shape == case.shape, f"{who}: expected shape {case.shape}; got {result.shape}"
        kept = result != 0
        np.testing.assert_allclose(result[kept], whole[kept] / (1 - case.p), rtol=rtol, err_msg=who)
        deviation = (case.p * (1 - case.p) / case.size) ** 0.5
        share = 1 - kept.mean()
        # A framework that compares p with random numbers of the tensor's type rounds p to that type.
        step = 0.0 if who == OURS else {"bfloat16": 2**-8, "float16": 2**-11}.get(case.dtype, 0.0)
        assert abs(share - case.p) < 6 * deviation + step, f"{who}: expected a share of {case.p} dropped; got {share}"
    assert ((Y != 0) == (dX != 0)).all(), f"{who}: expected the output's mask in the gradient; got a different one"
    assert case.size < 1024 or ((first != 0) != (Y != 0)).any(), f"{who}: expected a new mask in each call; got one"
