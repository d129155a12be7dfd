"""What a model is made of, as a comparison sees it: layers with weights, the dropouts between them, and what went
through each, in one layout for all frameworks.

The common layout is that of channels last: weights are (inputs, outputs), of convolutions (*window, inputs, outputs),
activations (n, …, channels).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

DENSE, CONVOLUTION, NORM, EMBEDDING, DROPOUT = "dense", "convolution", "norm", "embedding", "dropout"

KERNEL, BIAS = "kernel", "bias"
NORM_WEIGHTS = ("gamma", "beta", "running mean", "running variance")


class Part(NamedTuple):
    """A layer with weights."""

    path: str
    kind: str
    """One of those above, or the name of its class."""
    weights: Mapping[str, tuple[int, ...]]
    """Its weights by their common names, each with the axes by which its transpose is in the common layout."""
    activation: str | None = None
    """What it applies itself to what it gives."""


class Point(NamedTuple):
    """A layer as it was called, in the framework's own layout."""

    path: str
    kind: str
    input: Array
    output: Array
    channels_last: bool = True


def first_tensor(output: Any, types: tuple[type, ...]) -> Any:
    """The first tensor of what a model gives: itself, or of a tuple, list or mapping.

    Raises:
        TypeError: where there is none.
    """
    found = next(_tensors(output, types), None)
    if found is None:
        raise TypeError(f"model: expected one that gives a tensor, or several; got {type(output).__name__}")
    return found


def _tensors(output: Any, types: tuple[type, ...]) -> Iterator[Any]:
    if isinstance(output, types):
        yield output
    elif isinstance(output, Mapping):
        yield from _tensors(list(output.values()), types)
    elif isinstance(output, Iterable) and not isinstance(output, str):
        for value in output:
            yield from _tensors(value, types)


def equal(a: Array, b: Array) -> bool:
    """Whether two arrays have the same type, shape and values; NaN is equal to NaN."""
    a, b = np.asarray(a), np.asarray(b)
    return a.dtype == b.dtype and bool(np.array_equal(a, b, equal_nan=a.dtype.kind in "fcV"))
