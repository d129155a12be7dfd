"""The section in NumPy. The book has no NumPy version; this is MXNet's with NumPy's names and a backward pass."""

from __future__ import annotations

from typing import Any

import multidrop_numpy
import numpy as np


def draw_mask(X: Any, dropout: float) -> Any:
    """Draws a mask: True where an element is kept."""
    return np.random.uniform(0, 1, X.shape) > dropout


def apply_mask(mask: Any, X: Any, dropout: float, out: Any = None) -> Any:
    """Computes mask · X / (1 − dropout)."""
    return np.divide(mask.astype(X.dtype) * X, 1.0 - dropout, out=out)


def dropout_layer(X: Any, dropout: float, out: Any = None) -> Any:
    """The section's function."""
    return apply_mask(draw_mask(X, dropout), X, dropout, out)


class Dropout(multidrop_numpy.Layer):
    """The formula as a multidrop layer. At p = 0 it does nothing."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p, self._mask = p, None

    def forward(self, X: Any) -> Any:
        self._mask = draw_mask(X, self.p) if self.training and self.p else None
        return X if self._mask is None else apply_mask(self._mask, X, self.p)

    def backward(self, dY: Any) -> Any:
        return dY if self._mask is None else apply_mask(self._mask, dY, self.p)


def net(dropout1: float, dropout2: float) -> multidrop_numpy.Sequential:
    """The section's net with this layer."""
    generator = np.random.default_rng(0)

    def linear(inputs: int, outputs: int) -> multidrop_numpy.Linear:
        W = generator.normal(0, 0.01, (inputs, outputs)).astype(np.float32)
        return multidrop_numpy.Linear(W, np.zeros(outputs, np.float32))

    return multidrop_numpy.Sequential(
        multidrop_numpy.Flatten(),
        linear(784, 256),
        multidrop_numpy.ReLU(),
        Dropout(dropout1),
        linear(256, 256),
        multidrop_numpy.ReLU(),
        Dropout(dropout2),
        linear(256, 10),
    )
