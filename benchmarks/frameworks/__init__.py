"""What is compared, by framework: the same names in each, so that one loop measures them all.

Each module imports its framework, and so is itself imported only in a process of its own (see `workers`).
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
"""Who drops: this library; the framework's own function; the section's formula; and nobody, by a plain copy."""

NONE = "none"
"""No dropout at all."""

FUSED, APART, OWN_PAIR = "multidrop: relu_dropout", "multidrop: ReLU, then dropout", "framework: ReLU, then dropout"
"""Who drops what a ReLU let through."""

EAGER = "eager"

P1, P2 = 0.2, 0.5
"""The probabilities of the section's net."""


@dataclass(frozen=True)
class Case:
    """What is dropped, and how.

    Args:
        shape: the tensor's.
        p: the probability that an element is dropped.
        dtype: the elements' type, by name.
        layout: "contiguous" or "channels-last", for which the shape has four dimensions, (n, c, h, w).
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
        """As JSON has it."""
        return {**asdict(self), "size": self.size}


@dataclass(frozen=True)
class Candidate:
    """One way to drop.

    Args:
        forward: gives the output Y.
        both: forward and backward; gives Y and the gradient dX. A copy's are two copies, of X and of dY.
    """

    forward: Callable[[], Any]
    both: Callable[[], tuple[Any, Any]]


class Framework(Protocol):
    """A framework as it is measured, on one device."""

    name: str
    modes: tuple[str, ...]
    dtypes: tuple[str, ...]
    layouts: tuple[str, ...]

    def __init__(self, device: str) -> None:
        """`device` is "cpu" or "gpu"."""

    def candidates(self, case: Case) -> dict[str, Callable[[], Candidate]]:
        """Builders of what drops the same tensor, by the names above; one who cannot, raises when it is built."""

    def rectified(self, case: Case) -> dict[str, Callable[[], Candidate]]:
        """The same for a ReLU and a dropout after it."""

    def ways(self, case: Case) -> dict[str, Callable[[], Any]]:
        """Ways to call this library and the framework's own, forward only, by "multidrop: …" and "framework: …"."""

    def chain(self, who: str, depth: int, case: Case) -> tuple[Callable[[], Any], Callable[[Any], Any]]:
        """A function that drops `depth` times in a row, recording for a backward pass, and gives whatever must live
        until then; and the backward pass, which takes that."""

    def nets(self) -> dict[str, Callable[[], Any]]:
        """Builders of the section's net, by who drops in it."""

    def train_as_in_section(self, net: Any, train_iter: Any, test_iter: Any, epochs: int, lr: float) -> float:
        """The section's own training loop; gives the test accuracy."""

    def scope(self) -> AbstractContextManager[Any]:
        """In which nets and batches are made on the device."""

    def accounted(self, who: str, case: Case) -> int | None:
        """The bytes that one dropout keeps for its backward pass, by the framework's own accounting; None without
        one."""

    def in_use(self) -> int:
        """Bytes of memory in use on the device."""

    def synchronise(self) -> None:
        """Waits for all that was begun."""

    def to_numpy(self, tensor: Any) -> Any:
        """The values on the host, as float64 or what they are."""


def load(name: str, device: str) -> Framework:
    """The framework of that name.

    Raises:
        ImportError: where it is not installed, or has no such device.
    """
    return importlib.import_module(f"{__name__}.on_{name}").Measured(device)


def inputs(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """X and dY as float32, in [1, 2): a zero in a result is then one that was dropped."""
    generator = np.random.default_rng(0)
    return tuple(generator.random(case.shape, np.float32) + np.float32(1) for _ in range(2))  # type: ignore[return-value]  # two


def check(framework: Framework, who: str, candidate: Candidate, case: Case) -> None:
    """That a candidate does what it is timed for: it drops the share p, anew in each call, scales the rest, and gives
    the gradient of the same mask; or it copies.

    Raises:
        AssertionError: where it does not.
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
        # A framework that compares p with numbers of the tensor's type drops a share that those can tell.
        step = 0.0 if who == OURS else {"bfloat16": 2**-8, "float16": 2**-11}.get(case.dtype, 0.0)
        assert abs(share - case.p) < 6 * deviation + step, f"{who}: expected a share of {case.p} dropped; got {share}"
    assert ((Y != 0) == (dX != 0)).all(), f"{who}: expected the output's mask in the gradient; got another"
    assert case.size < 1024 or ((first != 0) != (Y != 0)).any(), f"{who}: expected a new mask in each call"
