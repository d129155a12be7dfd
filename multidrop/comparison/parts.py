"""The parts of a model in a comparison: its layers with weights, and the input and output of each layer's call.

The layout common to all frameworks is channels-last: weights are (inputs, outputs), those of convolutions (*window,
inputs, outputs), and activations (n, …, channels).
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
    """One of the constants above, or the name of its class."""
    weights: Mapping[str, tuple[int, ...]]
    """The axes that transpose each weight to the common layout, by the weight's common name."""
    activation: str | None = None
    """The activation that the layer itself applies to its output."""


class Point(NamedTuple):
    """One call of a layer, in the framework's own layout."""

    path: str
    kind: str
    input: Array
    output: Array
    channels_last: bool = True


def first_tensor(output: Any, types: tuple[type, ...]) -> Any:
    """The first tensor in a model's output, which may be a tensor, tuple, list or mapping.

    Raises:
        TypeError: if there is no tensor.
    """
    found = next(tensors_in(output, types), None)
    if found is None:
        raise TypeError(f"model: expected a model that returns tensors; got one that returns {type(output).__name__}")
    return found


def tensors_in(output: Any, types: tuple[type, ...]) -> Iterator[Any]:
    """The tensors in a structure of tuples, lists and mappings."""
    if isinstance(output, types):
        yield output
    elif isinstance(output, Mapping):
        yield from tensors_in(list(output.values()), types)
    elif isinstance(output, Iterable) and not isinstance(output, str):
        for value in output:
            yield from tensors_in(value, types)


def equal(a: Array, b: Array) -> bool:
    """Whether two arrays have the same type, shape and values; NaN is equal to NaN."""
    a, b = np.asarray(a), np.asarray(b)
    return a.dtype == b.dtype and bool(np.array_equal(a, b, equal_nan=a.dtype.kind in "fcV"))
